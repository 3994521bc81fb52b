"""Ways to fail that are others' business: addresses at site b that nobody has, or that somebody refuses for.

Each is provoked twice beside each other: past the gates (see `Sites.pass_by`) and through them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from tests.lab.probes import failure
from tests.lab.turns import turn
from tests.lab.two_sites import TOOLS, Sites

LATER_SHARE = 0.05
LATER_SECONDS = 0.005
EARLIER_SECONDS = 0.005
"""Two measures of the same on a busy machine may differ so much."""
TRIES = 8
"""Other work on the machine comes and goes; what a gate adds is there in every one of them: so the shortest
counts, and more are measured until it is short enough."""


@dataclass(frozen=True)
class Trouble:
    """One way to fail: the last part of the address at site b, and how often it is measured."""

    name: str
    host: int
    rounds: int
    errno4: str
    errno6: str


REFUSED = Trouble("refused", 0x71, 15, "ECONNREFUSED", "ECONNREFUSED")
NO_NEIGHBOUR = Trouble("no-neighbour", 0x72, 2, "EHOSTUNREACH", "EHOSTUNREACH")
HOST = Trouble("host-unreachable-by-router", 0x73, 10, "EHOSTUNREACH", "EHOSTUNREACH")
NET = Trouble("net-unreachable-by-router", 0x74, 10, "ENETUNREACH", "ENETUNREACH")
PROHIBITED = Trouble("prohibited-by-router", 0x75, 10, "EHOSTUNREACH", "EACCES")
SILENT = Trouble("black-hole", 0x76, 1, "timeout", "timeout")
TROUBLES = [REFUSED, NO_NEIGHBOUR, HOST, NET, PROHIBITED, SILENT]


def at(trouble: Trouble, v6: bool) -> str:
    return f"2001:db8:12::{trouble.host:x}" if v6 else f"10.12.0.{trouble.host}"


def arrange(sites: Sites, *, asks: tuple[str, str] = ("gw-b", "inside")) -> None:
    """Put every trouble in its place. `asks`: the node and interface that look for addresses at site b."""
    node, interface = asks
    for length, v6 in ((24, False), (64, True)):
        more = " nodad" if v6 else ""
        sites.sh("mta-b", f"ip addr add {at(REFUSED, v6)}/{length} dev eth0{more}")
    for tool, v6 in zip(TOOLS, (False, True), strict=True):
        kind = "icmp6" if v6 else "icmp"
        rejects = {
            HOST: "icmp6-addr-unreachable" if v6 else "icmp-host-unreachable",
            NET: "icmp6-no-route" if v6 else "icmp-net-unreachable",
            PROHIBITED: f"{kind}-adm-prohibited" if v6 else f"{kind}-admin-prohibited",
        }
        for trouble, word in rejects.items():
            sites.sh("wire", f"{tool} -A FORWARD -d {at(trouble, v6)} -p tcp -j REJECT --reject-with {word}")
        sites.sh("wire", f"{tool} -A FORWARD -d {at(SILENT, v6)} -p tcp -j DROP")
    for family in ("ipv4", "ipv6"):
        # Three questions for a neighbour, as ever, but not a second apart.
        sites.sh(node, f"sysctl -qw net.{family}.neigh.{interface}.retrans_time_ms=100")
    sites.pass_by("a", "b")


def assert_alike(sites: Sites, client: str, v6: bool, trouble: Trouble) -> None:
    """Through the gates as past them."""
    direct: list[float] = []
    gated: list[float] = []
    for attempt in range(TRIES):
        # Seconds of silence take nothing of the machine, and are not measured in milliseconds.
        with contextlib.nullcontext() if trouble is SILENT else turn():
            measure(sites, client, v6, trouble, direct, gated)
        before, now = min(direct), min(gated)
        told = f"{before * 1000:.2f} ms direct, {now * 1000:.2f} ms through the gates"
        print(told)
        earliest = before - max(EARLIER_SECONDS, LATER_SHARE * before)
        latest = before + max(LATER_SECONDS, LATER_SHARE * before)
        if earliest <= now <= latest:
            return
        assert attempt + 1 < TRIES, told


def measure(
    sites: Sites, client: str, v6: bool, trouble: Trouble, direct: list[float], gated: list[float]
) -> None:
    """Adds the seconds of all rounds past the gates and through them; each has the same error."""
    target = at(trouble, v6)
    # An ICMPv6 error that comes back within the very call of connect() is only believed a SYN later (1 s).
    rounds = min(trouble.rounds, 2) if v6 and trouble in (HOST, NET, PROHIBITED) else trouble.rounds
    words = {"timeout": 3.0} if trouble is SILENT else {}
    if rounds > 2:
        failure(sites, client, target, **words)
    expected = trouble.errno6 if v6 else trouble.errno4
    for _ in range(rounds):
        for seconds, way in ((direct, {"direct": True}), (gated, {})):
            name, took = failure(sites, client, target, **way, **words)
            assert name == expected
            seconds.append(took)
