"""Rules of ours that others flush, replace or take away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from bench.chaos.faults.fault import Act, Subject, on_daemon
from bench.chaos.ground import World
from bench.chaos.service import Service
from gateway.errors import EnvironmentFailureError
from gateway.lab import gateways

SUBJECT: Final = Subject()
fault: Final = SUBJECT.fault

TOOLS: Final = ("iptables", "ip6tables")
PUT_BACK_SECONDS: Final = 10.0
PUT_BACK: Final = "the daemon puts back what is missing"
NOT_TURNED: Final = "what the mail server sends is not turned back, and the far end resets it"
FOREIGN: Final = """\
*nat
:PREROUTING ACCEPT [0:0]
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
COMMIT
*filter
:FORWARD ACCEPT [0:0]
:SITE - [0:0]
-A FORWARD -j SITE
-A SITE -j ACCEPT
COMMIT
"""


def _rules(*commands: str, stdin: str = "") -> Act:
    """Commands on gateway a, and how long its rules then were not whole."""

    def act(world: World) -> Iterator[None]:
        before = _ours(world) if world.guarded else []
        for command in commands:
            # Where nothing of ours stands there may be nothing to take away.
            with contextlib.suppress(*(() if world.guarded else (EnvironmentFailureError,))):
                world.feed(world.home("a"), command, stdin)
        if world.guarded:
            at = time.monotonic()
            while _ours(world) != before and time.monotonic() < at + PUT_BACK_SECONDS:
                time.sleep(0.02)
            world.notes["put_back_s"] = round(time.monotonic() - at, 3)
        yield

    return act


def _ours(world: World) -> list[str]:
    """Our rules, routing rules and routes; without counters, and without what a set of nft holds."""
    lines = [
        f"{tool} {line}" for tool in TOOLS for line in world.sh(world.home("a"), f"{tool}-save").splitlines()
    ]
    lines += world.sh(world.home("a"), "nft -s -t list ruleset").splitlines()
    for family in ("-4", "-6"):
        lines += world.sh(world.home("a"), f"ip {family} rule").splitlines()
        lines += world.sh(world.home("a"), f"ip {family} route show table all").splitlines()
    return sorted(line for line in lines if any(name in line for name in ("NIGHTMAIL", "nightmail", "2525")))


for _table in ("filter", "mangle", "raw", "nat", "security"):
    fault(
        f"iptables-flush-{_table}",
        f"`iptables -t {_table} -F`, both families",
        PUT_BACK,
        quick=_table == "mangle",
    )(_rules(*(f"{tool} -w -t {_table} -F" for tool in TOOLS)))
fault("iptables-restore-foreign", "`iptables-restore` of a rule set without ours", PUT_BACK)(
    _rules(*(f"{tool}-restore -w" for tool in TOOLS), stdin=FOREIGN)
)
fault(
    "firewalld-reload", "every table flushed and its chains deleted, then a firewall's own rules", PUT_BACK
)(
    # Chains go with the restore, in one step. With a command for it the daemon, which puts its rules back,
    # comes between now and then, and a chain that is used cannot be deleted.
    _rules(
        *(f"{tool} -w -t {table} -F" for tool in TOOLS for table in ("raw", "mangle", "nat", "filter")),
        *(f"{tool}-restore -w" for tool in TOOLS),
        stdin=FOREIGN,
    )
)
fault("nft-flush-ruleset", "`nft flush ruleset`", PUT_BACK, quick=True, breaks_on_host=NOT_TURNED)(
    _rules("nft flush ruleset")
)
fault(
    "ip-rule-removed",
    "all routing rules but the kernel's own are gone",
    PUT_BACK,
    breaks_on_host=NOT_TURNED,
)(
    _rules(
        *(f"ip {family} rule flush" for family in ("-4", "-6")),
        *(
            f"ip {family} rule add pref {pref} lookup {table}"
            for family in ("-4", "-6")
            for pref, table in ((32766, "main"), (32767, "default"))
            if not (family == "-6" and table == "default")
        ),
    )
)
fault("route-removed", "our routing table is emptied", PUT_BACK, quick=True, breaks_on_host=NOT_TURNED)(
    _rules(*(f"ip {family} route flush table 2525" for family in ("-4", "-6")))
)


@fault(
    "rules-down-and-up",
    "`nightmail down`, and `nightmail up`",
    "the operator's own hand",
    seconds=2.0,
    breaks_tcp="what has not ended after 20 s is reset before the rules go",
)
@on_daemon("a")
def _down_and_up(world: World, service: Service) -> Iterator[None]:
    command = gateways.nightmail_command("--config", str(service.gateway.configuration))
    service.in_mounts(*command, "down")
    try:
        yield
    finally:
        service.in_mounts(*command, "up")
        service.wait_ready()
        world.clear_from = time.monotonic() + 0.5
