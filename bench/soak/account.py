"""Mails sent, found in mailboxes and in doubt -> what was lost, doubled or altered. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

Place = tuple[str, str]
"""Site's letter and user: a mailbox."""

_MESSAGE_ID: Final = re.compile(r"/cleanup\[\d+\]: (\w+): message-id=<([^@>]+)@lab\.test>")
_DOUBT: Final = re.compile(r"/smtp\[\d+\]: (\w+): to=<([^>]+)>.*status=deferred.*may be sent more than once")
"""Postfix's own words where the connection ended behind the final dot (RFC 1047)."""


@dataclass(slots=True)
class Account:
    """Of every mail and every mailbox that it is for."""

    expected: set[tuple[str, Place]] = field(default_factory=set)
    found: Counter[tuple[str, Place]] = field(default_factory=Counter)
    altered: int = 0
    strangers: int = 0
    """Mails in a mailbox that nobody sent there: bounces above all."""
    doubts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(mail, recipient's address) -> how often its sender did not learn whether it was taken."""
    _names: dict[tuple[str, str], str] = field(default_factory=dict)

    def sent(self, name: str, places: Iterable[Place]) -> None:
        self.expected |= {(name, place) for place in places}

    def came(self, name: str, place: Place, *, whole: bool) -> None:
        if (name, place) in self.expected:
            self.found[name, place] += 1
            self.altered += not whole
        else:
            self.strangers += 1

    def read_log(self, server: str, lines: Iterable[str]) -> None:
        """What a Postfix wrote; queue ids are used again, so in the order in which it was written."""
        for line in lines:
            if named := _MESSAGE_ID.search(line):
                self._names[server, named[1]] = named[2]
            elif doubt := _DOUBT.search(line):
                name = self._names.get((server, doubt[1]))
                if name is not None:
                    self.doubts[name, doubt[2].replace("@six.", "@")] += 1

    @property
    def missing(self) -> list[tuple[str, Place]]:
        return sorted(self.expected - set(self.found))

    def result(self) -> dict[str, int]:
        """A second copy is excused by a doubt of that very mail and recipient, and by nothing else."""
        doubled = in_doubt = 0
        for (name, place), copies in self.found.items():
            excused = min(copies - 1, self.doubts[name, address(place)])
            in_doubt += excused
            doubled += copies - 1 - excused
        return {
            "deliveries": len(self.expected),
            "lost": len(self.missing),
            "doubled": doubled,
            "altered": self.altered,
            "in_doubt": in_doubt,
            "strangers": self.strangers,
        }


def address(place: Place) -> str:
    """Of a mailbox, without the label that says by which family it is reached."""
    letter, user = place
    return f"{user}@{letter}.test"
