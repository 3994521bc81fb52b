"""A router without a trouble, as the doctor sees it, and what it finds once something is changed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

from gateway.cli.shell import shown
from gateway.config import Config
from gateway.operator import doctor
from gateway.operator.doctor.snapshot import (
    Address,
    Clock,
    Daemon,
    Disk,
    Link,
    Route,
    Snapshot,
)
from gateway.operator.doctor.trouble import Trouble

STATUS = {
    "version": "1",
    "inside_networks": ["10.1.0.0/24"],
    "workers": [{"slot": 0, "state": "serving", "pid": 5}],
}
NOW = 1_800_000_000.0


def route(to: str, *interfaces: str, gateway: str = "", metric: int = 0) -> Route:
    return Route(ip_network(to), interfaces, gateway, metric)


def healthy(**changes: Any) -> Snapshot:
    """A router without a trouble."""
    seen = Snapshot(
        Config(inside=("lan",), outside=("wan",), state_dir=Path("/state")),
        Path("/etc/nightmail/nightmail.toml"),
        version="1",
        sysctls={
            "net/ipv4/ip_forward": "1",
            "net/ipv6/conf/all/forwarding": "1",
            "net/netfilter/nf_conntrack_max": "262144",
            "net/netfilter/nf_conntrack_count": "12",
        },
        links=(Link(1, "lo"), Link(2, "lan"), Link(3, "wan")),
        addresses=tuple(
            Address(name, ip_interface(one))
            for name, one in (
                ("lan", "10.1.0.1/24"),
                ("lan", "fd00:1::1/64"),
                ("wan", "192.0.2.1/24"),
                ("wan", "fd00:2::1/64"),
            )
        ),
        routes=(
            route("10.1.0.0/24", "lan"),
            route("0.0.0.0/0", "wan", gateway="192.0.2.2"),
            route("::/0", "wan", gateway="fd00:2::2"),
        ),
        daemon=Daemon(4, STATUS, {4: "S", 5: "S"}),
        clock=Clock(NOW),
        disk=Disk(Path("/state"), 1 << 30),
    )
    return replace(seen, **changes)


def found(seen: Snapshot) -> list[tuple[str, Trouble]]:
    return [(name, one) for name, troubles in doctor.judged(seen).items() for one in troubles]


def only(seen: Snapshot, check: str) -> Trouble:
    ((name, trouble),) = found(seen)
    assert name == check, trouble
    assert "\n" not in trouble.what + trouble.why
    assert shown(trouble.mend) == trouble.mend
    return trouble


def matched(left: dict[str, Any], right: Any) -> dict[str, Any]:
    return {"match": {"op": "==", "left": left, "right": right}}
