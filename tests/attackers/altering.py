"""Attackers who change what passes: the offer taken out, masked or changed, single octets anywhere."""

from __future__ import annotations

import re

from gateway.smtp.capability import OfferSize, append_offer, split_offer
from tests.attackers.attack import Act, Always, Attack, End, Kind, Piece, Say, altered, without_offer

E, E1, S, IDENTITY, EPOCH = 32, 1184, 32, 32, 4
"""Widths of the offer's fields, docs/protocol.md 4.3."""


class StripOffer(Always):
    """Takes the receiving gateway's lines out of the reply."""

    def piece(self, piece: Piece) -> list[Act]:
        if piece.kind is Kind.REPLY:
            return [Say(End.S, without_offer(piece.octets))]
        return super().piece(piece)


class Replace(Always):
    """Puts something else in the place of what a pattern finds in the reply."""

    def __init__(self, pattern: bytes, by: bytes) -> None:
        super().__init__()
        self._pattern, self._by = pattern, by

    def piece(self, piece: Piece) -> list[Act]:
        if piece.kind is Kind.REPLY:
            return [Say(End.S, re.sub(self._pattern, self._by, piece.octets))]
        return super().piece(piece)


def mask_offer() -> Attack:
    """As a Cisco ASA does with what it does not know: the keyword overwritten, everything else left."""
    return Replace(rb"XNIGHTMAIL", b"X" * 10)


def mask_offer_with_a() -> Attack:
    return Replace(rb"XNIGHTMAIL", b"X" * 9 + b"A")


def one_letter() -> Attack:
    return Replace(rb"XNIGHTMAIL", b"XNIGHTMAIX")


def lines_joined() -> Attack:
    """The line end before the first offer line is gone."""
    return Replace(rb"\r\n(250-XNIGHTMAIL 1 1/)", rb" \1")


class OfferInTheDomainLine(Always):
    """The offer stands in front, where no keyword is."""

    def piece(self, piece: Piece) -> list[Act]:
        if piece.kind is not Kind.REPLY:
            return super().piece(piece)
        lines = re.findall(rb"250[- ](XNIGHTMAIL[^\n]*\n)", piece.octets)
        own = without_offer(piece.octets).partition(b"\n")[2]
        return [Say(End.S, b"".join(b"250-" + line for line in lines) + own)]


class EhloRefused(Always):
    """Answers EHLO himself, and does not pass it on."""

    def __init__(self, reply: bytes) -> None:
        super().__init__()
        self._reply = reply

    def piece(self, piece: Piece) -> list[Act]:
        return [Say(End.S, self._reply)] if piece.kind is Kind.EHLO else super().piece(piece)


class HeloInstead(Always):
    """Turns EHLO into HELO on its way."""

    def piece(self, piece: Piece) -> list[Act]:
        if piece.kind is Kind.EHLO:
            return [Say(End.R, b"HELO" + piece.octets[4:])]
        return super().piece(piece)


class MaskGreeting(Always):
    """As a Cisco PIX does with it: asterisks. Postfix then says HELO."""

    def piece(self, piece: Piece) -> list[Act]:
        if piece.kind is Kind.GREETING:
            return [Say(End.S, b"220 " + b"*" * (len(piece.octets) - 6) + b"\r\n")]
        return super().piece(piece)


class OtherGreeting(Always):
    """Answers in the receiver's place from the greeting on; what S says goes nowhere."""

    def __init__(self, greeting: bytes) -> None:
        super().__init__()
        self._greeting = greeting

    def piece(self, piece: Piece) -> list[Act]:
        if piece.kind is Kind.GREETING:
            return [Say(End.S, self._greeting)]
        return super().piece(piece)


class ChangeOctet(Attack):
    """One octet of one message, on the first connection of the session."""

    def __init__(self, origin: End, kind: Kind, at: int, *, number: int = 0, mask: int = 0x01) -> None:
        super().__init__()
        self._which = (origin, kind, number)
        self._at, self._mask = at, mask
        self.done = False
        """False to the end if the message was shorter than that."""

    def piece(self, piece: Piece) -> list[Act]:
        if (piece.origin, piece.kind, piece.number) == self._which and self._at < len(piece.octets):
            self.done = True
            return [Say(piece.origin.other, altered(piece.octets, self._at, self._mask))]
        return super().piece(piece)


class ChangeLetter(Attack):
    """One letter of the offer's own becomes another one, so that it can still be read."""

    def __init__(self, at: int, dials: int = 1) -> None:
        super().__init__()
        self._at = at
        self.dials = dials

    def piece(self, piece: Piece) -> list[Act]:
        if piece.kind is not Kind.REPLY:
            return super().piece(piece)
        octets = bytearray(piece.octets)
        octets[self._at] = ord("A") if octets[self._at] != ord("A") else ord("B")
        return [Say(End.S, bytes(octets))]


class ChangeLarge(Attack):
    """One octet of the n-th large record: the mail's content is on its way."""

    def __init__(self, at: int, nth: int = 1) -> None:
        super().__init__()
        self._at, self._nth, self._count = at, nth, 0

    def piece(self, piece: Piece) -> list[Act]:
        if is_large(piece):
            self._count += 1
            if self._count == self._nth:
                return [Say(End.R, altered(piece.octets, self._at % len(piece.octets)))]
        return super().piece(piece)


def is_large(piece: Piece) -> bool:
    """A record that is full of content."""
    return piece.origin is End.S and piece.kind is Kind.RECORD and len(piece.octets) > 16_000


class ChangeOffer(Attack):
    """Changes the octets of the offer, and writes its lines as they should be."""

    def offer(self, octets: bytes) -> bytes:
        raise NotImplementedError

    def piece(self, piece: Piece) -> list[Act]:
        if piece.kind is Kind.REPLY:
            split = split_offer(piece.octets)
            assert split.offer is not None
            return [Say(End.S, append_offer(split.stripped, self.offer(split.offer)))]
        return super().piece(piece)


class MadeUpTicket(Always):
    """Shows an offer with a ticket that nobody has, in the place of the one that comes."""

    def piece(self, piece: Piece) -> list[Act]:
        if piece.kind is Kind.REPLY:
            return [Say(End.S, append_offer(without_offer(piece.octets), bytes(OfferSize.RESUMED.octets)))]
        return super().piece(piece)


class RemoveE1(ChangeOffer):
    """Makes a short offer of a full one: a downgrade to what a quantum computer breaks."""

    def offer(self, octets: bytes) -> bytes:
        return octets[:E] + octets[E + E1 :]


class ShiftEpoch(ChangeOffer):
    """Another day for R's static key."""

    def __init__(self, days: int) -> None:
        super().__init__()
        self._days = days

    def offer(self, octets: bytes) -> bytes:
        at = E + E1 + S + IDENTITY
        epoch = int.from_bytes(octets[at : at + EPOCH], "big") + self._days
        return octets[:at] + epoch.to_bytes(EPOCH, "big") + octets[at + EPOCH :]


class OtherIdentity(ChangeOffer):
    """Puts another identity's key into the honest offer."""

    def __init__(self, identity: bytes) -> None:
        super().__init__()
        self._identity = identity

    def offer(self, octets: bytes) -> bytes:
        at = E + E1 + S
        return octets[:at] + self._identity + octets[at + IDENTITY :]
