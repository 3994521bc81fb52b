"""Attackers who say again what was said before, elsewhere or in another order."""

from __future__ import annotations

from collections.abc import Sequence

from tests.attackers.altering import is_large
from tests.attackers.attack import Act, Attack, End, Kind, Piece, Say


class Twice(Attack):
    """One message comes twice."""

    def __init__(self, origin: End, kind: Kind, *, number: int = 0, apart: bool = False) -> None:
        super().__init__()
        self._which = (origin, kind, number)
        self._apart = apart

    def piece(self, piece: Piece) -> list[Act]:
        passed = super().piece(piece)
        if (piece.origin, piece.kind, piece.number) == self._which:
            passed.append(Say(piece.origin.other, piece.octets, self._apart))
        return passed


class Later(Attack):
    """One message comes behind the next one from there."""

    def __init__(self, origin: End, kind: Kind, *, number: int = 0) -> None:
        super().__init__()
        self._which = (origin, kind, number)
        self._held: Piece | None = None

    def piece(self, piece: Piece) -> list[Act]:
        if (piece.origin, piece.kind, piece.number) == self._which:
            self._held = piece
            return []
        acts = super().piece(piece)
        if self._held is not None and piece.origin is self._held.origin:
            acts.append(Say(piece.origin.other, self._held.octets))
            self._held = None
        return acts


class ContentTurned(Attack):
    """The second and third large records change places, or the second comes twice, or does not come."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what, self._count = what, 0
        self._held = b""

    def piece(self, piece: Piece) -> list[Act]:
        if not is_large(piece):
            return super().piece(piece)
        self._count += 1
        if self._count == 2:
            self._held = piece.octets
            return [] if self._what in ("swapped", "dropped") else [Say(End.R, piece.octets * 2)]
        if self._count == 3 and self._what == "swapped":
            return [Say(End.R, piece.octets + self._held)]
        return super().piece(piece)


class FromBefore(Attack):
    """In the place of a message stands what was recorded in another session."""

    def __init__(self, origin: End, kind: Kind, recorded: bytes, dials: int = 1, *, number: int = 0) -> None:
        super().__init__()
        self._which = (origin, kind, number)
        self._recorded = recorded
        self.dials = dials

    def piece(self, piece: Piece) -> list[Act]:
        if (piece.origin, piece.kind, piece.number) == self._which:
            return [Say(piece.origin.other, self._recorded)]
        return super().piece(piece)


def of_kind(pieces: Sequence[Piece], origin: End, *kinds: Kind) -> bytes:
    """What this side said of these kinds, one behind the other."""
    return b"".join(p.octets for p in pieces if p.origin is origin and p.kind in kinds)
