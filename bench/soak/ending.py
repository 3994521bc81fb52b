"""Processes of the daemon that were told to end: who they are, and whether they do. Pure.

A worker that was told to end carries its sessions to their ends, rightly a quarter of an hour later, and its
signer ends with it; how many there are is by the faults of the time before. So they are no part of what may
grow, and are held to something else: they have to end. Counterparts: `measures`, `verdict`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Record = dict[str, Any]

DRAINING: Final = "draining"
ENDING_SECONDS: Final = 1500.0
"""The longest sessions of the load last 16 minutes, and some longer in which mail waited for a fault's end: a
process that was told to end and is there after so long does not end."""


def told(found: Sequence[dict[str, Any]], states: Mapping[int, str]) -> list[dict[str, Any]]:
    """Each process, and whether it was told to end: a worker that only carries its last sessions, and the
    signer of such workers. `states`: of the workers that the daemon knows; empty where it has not answered.

    A worker that the daemon does not know is of a supervisor that was killed, and carries its last sessions
    as well.
    """
    newest = max(((one["started"], one["pid"]) for one in found if one["role"] == "signer"), default=None)

    def ends(one: dict[str, Any]) -> bool:
        if one["role"] == "worker":
            return bool(states) and states.get(one["pid"], DRAINING) == DRAINING
        return one["role"] == "signer" and (one["started"], one["pid"]) != newest

    return [{**one, DRAINING: ends(one)} for one in found]


def is_told(process: Mapping[str, Any]) -> bool:
    """Records of before this was looked at have no word of it."""
    return bool(process.get(DRAINING))


def account(samples: Sequence[Record], last: Record | None) -> Record:
    """Of the processes that were told to end: how many at most at once, for how long at most, and, in words,
    which do not. `last` is the look at the end, when no session is left."""
    most, longest = 0, 0.0
    since: dict[tuple[str, int, int], float] = {}
    endless: dict[tuple[str, int, int], str] = {}
    for one in [*samples, *([last] if last else [])]:
        for letter, gateway in one["gateways"].items():
            keys = {(letter, each["pid"], each["started"]): each for each in gateway["processes"]}
            those = {key: each for key, each in keys.items() if is_told(each)}
            since = {key: at for key, at in since.items() if key[0] != letter or key in those}
            most = max(most, len(those))
            for key, each in those.items():
                seconds = one["at"] - since.setdefault(key, one["at"])
                longest = max(longest, seconds)
                if seconds > ENDING_SECONDS or one is last:
                    endless[key] = f"{letter}: {each['role']} {each['pid']} has not ended {seconds:.0f} s on"
    return {"most": most, "longest_seconds": round(longest), "endless": list(endless.values())}
