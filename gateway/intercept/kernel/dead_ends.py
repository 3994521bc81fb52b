"""The sets of dead ends in our nft table: servers whose SYNs pass without being judged, and how many did."""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.intercept.kernel import nft
from gateway.intercept.kernel.commands import run, succeeds
from gateway.intercept.objects import FAMILIES, NFT_TABLE, element_query

_COUNTED: Final = re.compile(r"\n\tcounter spared {\n\t\tpackets (\d+) ")


def add_dead_end(address: str, port: int, seconds: int) -> None:
    """For so long. Raises EnvironmentFailureError; one that is there already keeps its time."""
    run(["nft", "-f", "-"], f"add element inet {NFT_TABLE} {_element(address, port, seconds)}\n")


def remove_dead_end(address: str, port: int) -> None:
    """No error where it is gone already."""
    succeeds(["nft", "delete", "element", "inet", NFT_TABLE, *_element(address, port).split(" ", 1)])


def forget_dead_ends() -> None:
    """All of them. Raises EnvironmentFailureError."""
    run(["nft", "-f", "-"], "".join(f"flush set inet {NFT_TABLE} dead{family}\n" for family in FAMILIES))


def is_dead_end(address: str, port: int) -> bool:
    return succeeds(element_query(*_element(address, port).split(" ", 1)))


def dead_end_count() -> int:
    """SYNs that passed so since the table was made. Raises EnvironmentFailureError."""
    table = nft.ours_in(run(nft.listing_command("inet")), "inet")
    found = _COUNTED.search(table or "")
    if found is None:
        raise EnvironmentFailureError(f"nft: nothing is counted in a table {NFT_TABLE}")
    return int(found[1])


def _element(address: str, port: int, seconds: int | None = None) -> str:
    family = 6 if ":" in address else 4
    until = "" if seconds is None else f" timeout {seconds}s"
    return f"dead{family} {{ {address} . {port}{until} }}"
