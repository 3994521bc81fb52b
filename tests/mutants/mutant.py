"""A check of the code taken out: where, what stands there, and what stands there instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """One exact text of a file, which must stand there once, and its replacement."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """`check` says in a few words what the code no longer does; unique."""

    check: str
    edits: tuple[Edit, ...]


class Room:
    """Collects the mutants of one file of the code."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.mutants: list[Mutant] = []

    def lacks(self, check: str, *texts: str) -> None:
        """`texts`: old, new, old, new, ..."""
        pairs = zip(texts[::2], texts[1::2], strict=True)
        self.mutants.append(Mutant(check, tuple(Edit(self._file, old, new) for old, new in pairs)))


def mutants_of(*rooms: Room) -> tuple[Mutant, ...]:
    return tuple(mutant for room in rooms for mutant in room.mutants)


def mutants_in(rooms: Mapping[str, Sequence[tuple[str, ...]]]) -> tuple[Mutant, ...]:
    """File -> what each of its mutants lacks, in the words of `Room.lacks`."""
    made = [Room(file) for file in rooms]
    for room, rows in zip(made, rooms.values(), strict=True):
        for row in rows:
            room.lacks(*row)
    return mutants_of(*made)
