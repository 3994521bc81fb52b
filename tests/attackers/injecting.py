"""Attackers who put octets in: commands for the receiver, replies for the sender, before and behind."""

from __future__ import annotations

from tests.attackers.attack import Act, Always, Attack, End, Fin, Kind, Piece, Say

COMMANDS = b"RSET\r\nMAIL FROM:<evil@c.test>\r\nRCPT TO:<bob@b.test>\r\nDATA\r\nowned\r\n.\r\n"
REPLIES = b"250 2.0.0 Ok: queued as evil\r\n"


class Inject(Attack):
    """Puts octets before or behind one message, towards whom that message goes."""

    def __init__(
        self,
        origin: End,
        kind: Kind,
        octets: bytes,
        *,
        number: int = 0,
        before: bool = False,
        apart: bool = False,
    ) -> None:
        super().__init__()
        self._which = (origin, kind, number)
        self._octets, self._before, self._apart = octets, before, apart

    def piece(self, piece: Piece) -> list[Act]:
        if (piece.origin, piece.kind, piece.number) != self._which:
            return super().piece(piece)
        to = piece.origin.other
        if self._before:
            return [Say(to, self._octets), Say(to, piece.octets, self._apart)]
        return [Say(to, piece.octets), Say(to, self._octets, self._apart)]


class InjectAtEnd(Always):
    """Behind the last record of a direction, before its FIN."""

    def __init__(self, origin: End, octets: bytes, *, apart: bool = False) -> None:
        super().__init__()
        self._origin, self._octets, self._apart = origin, octets, apart

    def end(self, origin: End) -> list[Act]:
        if origin is self._origin:
            return [Say(origin.other, self._octets, self._apart), Fin(origin.other)]
        return super().end(origin)


class AnswerVerb(Attack):
    """Answers the verb himself, as a mail server would, and passes nothing on from there."""

    def __init__(self, reply: bytes, dials: int = 1) -> None:
        super().__init__()
        self._reply = reply
        self.dials = dials
        self._answered = False

    def begin(self) -> list[Act]:
        self._answered = False
        return []

    def piece(self, piece: Piece) -> list[Act]:
        if piece.kind is Kind.VERB:
            self._answered = True
            return [Say(End.S, self._reply)]
        return [] if self._answered else super().piece(piece)

    def end(self, origin: End) -> list[Act]:
        return [Fin(end) for end in End] if self._answered else super().end(origin)
