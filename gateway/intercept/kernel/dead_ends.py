"""The sets of dead ends in our nft table: servers whose SYNs pass without being judged, and how many did."""

from __future__ import annotations

import json
from typing import Final

from gateway.intercept.kernel.commands import run, succeeds
from gateway.intercept.objects import NFT_TABLE

_COUNTER: Final = "spared"


def add_dead_end(address: str, port: int, seconds: int) -> None:
    """For so long. Raises EnvironmentFailureError; one that is there already keeps its time."""
    run(["nft", "-f", "-"], f"add element inet {NFT_TABLE} {_element(address, port, seconds)}\n")


def remove_dead_end(address: str, port: int) -> None:
    """No error where it is gone already."""
    succeeds(["nft", "delete", "element", "inet", NFT_TABLE, *_element(address, port).split(" ", 1)])


def is_dead_end(address: str, port: int) -> bool:
    return succeeds(["nft", "get", "element", "inet", NFT_TABLE, *_element(address, port).split(" ", 1)])


def dead_end_count() -> int:
    """SYNs that passed so since the table was made. Raises EnvironmentFailureError."""
    listing = json.loads(run(["nft", "-j", "list", "counter", "inet", NFT_TABLE, _COUNTER]))
    return sum(one["counter"]["packets"] for one in listing["nftables"] if "counter" in one)


def _element(address: str, port: int, seconds: int | None = None) -> str:
    family = 6 if ":" in address else 4
    until = "" if seconds is None else f" timeout {seconds}s"
    return f"dead{family} {{ {address} . {port}{until} }}"
