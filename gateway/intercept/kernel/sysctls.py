"""Switches of the kernel that stand otherwise while our rules do, and are given back with them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.intercept.kernel import nft
from gateway.intercept.objects import KernelObject, Sysctl

_ALL: Final = Path("/proc/sys")


class Sysctls:
    """What each was before us is noted in our nft table before it changes, and remembered here as well."""

    of: tuple[type[KernelObject], ...] = (Sysctl,)
    numbered = False

    def __init__(self) -> None:
        self._former: dict[str, str] = {}

    def missing(self, wanted: Sequence[Sysctl]) -> list[str]:
        """Where they may not be changed they stay as they are: mail flows, but for what they are about."""
        return [
            f"sysctl {each.name.replace('/', '.')}={each.value}"
            for each in wanted
            if value(each.name) not in (each.value, "") and os.access(_ALL / each.name, os.W_OK)
        ]

    def surplus(self, wanted: Sequence[Sysctl]) -> list[str]:
        return []

    def put(self, wanted: Sequence[Sysctl]) -> None:
        """Those that are no longer wanted are given back."""
        self.recall()
        names = {each.name for each in wanted}
        for name in self._former.keys() - names:
            turn(name, self._former[name])
        fresh = {each.name: value(each.name) for each in wanted if value(each.name) not in (each.value, "")}
        self._former = {name: was for name, was in (fresh | self._former).items() if name in names}
        nft.note(self._former)
        for each in wanted:
            turn(each.name, each.value)

    def mend(self, wanted: Sequence[Sysctl]) -> list[str]:
        gone = self.missing(wanted)
        if gone:
            self.put(wanted)
        return gone

    def take_away(self) -> None:
        self.recall()
        for name, former in self._former.items():
            turn(name, former)
        self._former = {}

    def recall(self) -> None:
        """Remember what the kernel was told to."""
        self._former |= nft.notes()


def value(name: str) -> str:
    """Of a switch, by its path below /proc/sys; empty where there is none."""
    try:
        return (_ALL / name).read_text().strip()
    except OSError:
        return ""


def icmp_seconds_apart() -> dict[int, float]:
    """By family, how far apart two ICMP errors to the same address are sent at least; 0: without a limit."""
    names = {4: "net/ipv4/icmp_ratelimit", 6: "net/ipv6/icmp/ratelimit"}
    found = {family: value(name) for family, name in names.items()}
    return {family: int(said) / 1000 if said.isdigit() else 0.0 for family, said in found.items()}


def turn(name: str, wanted: str) -> None:
    """Set a switch; where that is not allowed it stays as it is."""
    with contextlib.suppress(OSError):
        (_ALL / name).write_text(wanted)
