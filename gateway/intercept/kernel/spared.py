"""Sets of our nft table: whose SYNs pass unjudged (dead ends, clients that rest), and how many did so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.intercept.kernel import nft
from gateway.intercept.kernel.commands import run, succeeds
from gateway.intercept.objects import FAMILIES, NFT_TABLE, element_query

Entry = Sequence[str | int]
"""An address first, which tells the family."""


class SparedSet:
    """Two sets, one of each family, and the counter of what has matched in them."""

    def __init__(self, name: str, counter: str) -> None:
        self._name = name
        self._counted = re.compile(rf"\n\tcounter {counter} {{\n\t\tpackets (\d+) ")

    def add(self, entries: Iterable[Entry], seconds: int) -> None:
        """For so long; one that is there already keeps its time. Raises EnvironmentFailureError."""
        until = f" timeout {seconds}s"
        lines = (f"add element inet {NFT_TABLE} {' '.join(self._element(one, until))}\n" for one in entries)
        run(["nft", "-f", "-"], "".join(lines))

    def remove(self, entry: Entry) -> None:
        """No error where it is gone already."""
        succeeds(["nft", "delete", "element", "inet", NFT_TABLE, *self._element(entry)])

    def forget(self) -> None:
        """All of them. Raises EnvironmentFailureError."""
        lines = (f"flush set inet {NFT_TABLE} {self._name}{family}\n" for family in FAMILIES)
        run(["nft", "-f", "-"], "".join(lines))

    def has(self, entry: Entry) -> bool:
        return succeeds(element_query(*self._element(entry)))

    def count(self) -> int:
        """SYNs that passed so since the table was made. Raises EnvironmentFailureError."""
        table = nft.ours_in(run(nft.listing_command("inet")), "inet")
        found = self._counted.search(table or "")
        if found is None:
            raise EnvironmentFailureError(f"nft: nothing is counted in a table {NFT_TABLE}")
        return int(found[1])

    def _element(self, entry: Entry, until: str = "") -> tuple[str, str]:
        family = 6 if ":" in str(entry[0]) else 4
        return f"{self._name}{family}", f"{{ {' . '.join(map(str, entry))}{until} }}"


DEAD_ENDS: Final = SparedSet("dead", "spared")
"""Of servers: address and port."""
RESTING: Final = SparedSet("resting", "rested")
"""Of clients: the client's address, and address and port of a server that it comes to."""
