"""Namespaces that a test makes for itself, beside those of the labs: PREFIX-PID, or PREFIX-PID-NAME each.

Nobody but the test speaks in them: no daemon, no mail server, no listener on a wire.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pyroute2 import netns

from gateway.lab import network
from gateway.lab.processes import kill_all_in

WITHOUT_ROOTS_TOOLS: Final = (
    "for each in /usr/local/sbin /usr/sbin /sbin; do [ -L $each ] || mount -t tmpfs none $each; done"
)
"""For a shell in a mount namespace of its own: from then on these folders are empty there."""


AT_ONCE: Final = "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0"
"""While an interface's link-local address is still looked for, a router asks for nobody by it, and says that
its neighbours cannot be reached."""


def ip(*commands: str) -> None:
    """Each as behind `ip` in a shell."""
    for command in commands:
        done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"ip {command}: {done.stderr}"


def remove_ours(prefix: str) -> None:
    """With all that runs in them: this process's, and those of test runs that were killed."""
    for name in netns.listnetns():
        owner = re.match(rf"{prefix}-(\d+)(-|$)", name)
        if owner and (int(owner[1]) == os.getpid() or not Path("/proc", owner[1]).exists()):
            kill_all_in([name])
            network.remove([name])


@contextlib.contextmanager
def lonely_router(name: str) -> Iterator[None]:
    """One namespace that looks like a router's; nobody is behind its interfaces lan and wan."""
    try:
        ip(
            f"netns add {name}",
            f"netns exec {name} {AT_ONCE}",
            f"-n {name} link set lo up",
            f"-n {name} link add lan type veth peer name lan-far",
            f"-n {name} link add wan type veth peer name wan-far",
            *(f"-n {name} link set {each} up" for each in ("lan", "wan", "lan-far", "wan-far")),
            f"-n {name} address add 10.1.0.1/24 dev lan",
            f"-n {name} address add 10.2.0.1/24 dev wan",
            f"-n {name} route add default via 10.2.0.2",
            f"netns exec {name} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        )
        yield
    finally:
        kill_all_in([name])
        network.remove([name])


def build_router_between(inside: str, router: str, outside: str) -> None:
    """inside (10.1.0.2) --lan-- router --wan-- outside (10.2.0.2). `inside` sends all by the router, which is
    not told to forward."""
    for name in (inside, router, outside):
        ip(f"netns add {name}", f"netns exec {name} {AT_ONCE}", f"-n {name} link set lo up")
    ip(f"link add lan netns {router} type veth peer name eth netns {inside}")
    ip(f"link add wan netns {router} type veth peer name eth netns {outside}")
    link(inside, "eth", "10.1.0.2/24", "fd00:1::2/64")
    link(router, "lan", "10.1.0.1/24", "fd00:1::1/64")
    link(router, "wan", "10.2.0.1/24", "fd00:2::1/64")
    link(outside, "eth", "10.2.0.2/24", "fd00:2::2/64")
    ip(f"-n {inside} route add default via 10.1.0.1", f"-n {inside} -6 route add default via fd00:1::1")


def link(here: str, name: str, v4: str, v6: str) -> None:
    ip(f"-n {here} addr add {v4} dev {name}", f"-n {here} addr add {v6} dev {name} nodad")
    ip(f"-n {here} link set {name} up")
