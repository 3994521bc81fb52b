"""Whether this machine has room for so many sessions that are held open, judged by those that already are.

Two descriptors each in a worker of a gateway, of which a process has so many, and memory for their eight
sockets and their state. Pure, but for the two looks at the machine. Counterpart: `growth`, which holds them.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.policy import limits

TELLING: Final = 500
"""So many sessions show what one takes, and how they fall to workers; fewer might all be one worker's."""
SPARE: Final = 1.2
"""Times what was seen: for the load beside, and for the next ones, which may fall a little otherwise."""
MEMORY_USED: Final = 0.8
"""Of the memory that is free; the machine has other work."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What the sessions that are open take of the machine."""

    sessions: int = 0
    busiest: int = 0
    """So many of them are in one worker."""
    octets: int = 0

    @property
    def is_telling(self) -> bool:
        return self.sessions >= TELLING

    @property
    def busiest_share(self) -> float:
        return self.busiest / self.sessions if self.is_telling else 1.0


def lack(sessions: int, taken: Taken, allowed: int, free_octets: int) -> str:
    """What keeps so many from being held, in words; nothing: there is room.

    `allowed`: descriptors of a process, `free_octets`: memory, both as below.
    """
    in_one = int(sessions * taken.busiest_share * SPARE)
    most = worker_most(allowed)
    if in_one > most:
        return (
            f"one worker may get {in_one} of them and takes {most} at most"
            f" (two descriptors each; this machine lets a process have {allowed})"
        )
    each = taken.octets / taken.sessions if taken.is_telling else 0.0
    wanted = int((sessions - taken.sessions) * each)
    if wanted > free_octets * MEMORY_USED:
        return f"they take {wanted >> 20} MB more of memory, and {free_octets >> 20} MB are free"
    return ""


def worker_most(allowed: int) -> int:
    """Sessions that one worker takes on: as the product reckons, by default."""
    return min(limits.SESSIONS, (allowed - limits.DESCRIPTORS_KEPT) // 2)


def busiest(workers: Iterable[Iterable[int]]) -> int:
    """The most sessions of one worker, of all gateways' workers."""
    return max(count for counts in workers for count in counts)


# --- The machine -------------------------------------------------------------------------------------------


def descriptors(wanted: int) -> int:
    """So many for this process and those it starts, or as many as may be had; how many that is.

    The shell's own limit may be too low for so many sessions, and not every root may lift it.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = wanted if hard == resource.RLIM_INFINITY else max(hard, wanted)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except ValueError:
        most = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return most


def free_octets() -> int:
    """Of memory, as the kernel reckons what it could give."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
