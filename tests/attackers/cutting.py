"""Attackers who cut, hold back, or let the line go dead."""

from __future__ import annotations

import enum

from tests.attackers.altering import is_large
from tests.attackers.attack import Act, Attack, End, Fin, Kind, Piece, Rst, Say


class How(enum.Enum):
    """What comes behind the cut."""

    FIN = "fin"
    RST = "reset"
    SILENCE = "silence"


class Cut(Attack):
    """Lets `at` octets of one message through, and nothing behind them in either direction."""

    def __init__(
        self, origin: End, kind: Kind, at: int, *, number: int = 0, how: How = How.FIN, dials: int = 1
    ) -> None:
        super().__init__()
        self._which = (origin, kind, number)
        self._at, self._how = at, how
        self.dials = dials
        self._over = False

    def begin(self) -> list[Act]:
        self._over = False
        return []

    def piece(self, piece: Piece) -> list[Act]:
        if self._over:
            return []
        if (piece.origin, piece.kind, piece.number) != self._which:
            return super().piece(piece)
        self._over = True
        passed: list[Act] = [Say(piece.origin.other, piece.octets[: self._at])] if self._at else []
        return passed + ends(self._how)

    def end(self, origin: End) -> list[Act]:
        # Who has waited long enough ends the silence, or both connections would stand for ever.
        return ends(How.RST) if self._over else super().end(origin)


def ends(how: How) -> list[Act]:
    if how is How.SILENCE:
        return []
    return [Fin(end) if how is How.FIN else Rst(end) for end in End]


class CutInContent(Attack):
    """Ends both sides in the middle of a mail's content, `at` octets into its second large record."""

    def __init__(self, at: int, how: How) -> None:
        super().__init__()
        self._at, self._how = at, how
        self._count = 0

    def piece(self, piece: Piece) -> list[Act]:
        if is_large(piece):
            self._count += 1
        if self._count < 2:
            return super().piece(piece)
        if self._count == 2 and is_large(piece):
            self._count += 1
            return [Say(End.R, piece.octets[: self._at]), *ends(self._how)]
        return []

    def end(self, origin: End) -> list[Act]:
        if self._count < 2:
            return super().end(origin)
        # The sender has given up: now the line is let go, or both connections would stand for ever.
        return ends(How.RST) if self._how is How.SILENCE else []
