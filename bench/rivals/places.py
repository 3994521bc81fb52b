"""One gateway's namespace with a rival in it: rules that bring it the mail, and its daemon.

Both rivals that proxy need the same of the kernel: packets of connections that the proxy makes in the
client's name must come to it, not be forwarded (`keep_returning`). The texts are pure and tested as such.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.planes import Plane
from gateway.lab import processes
from gateway.lab.processes import Process
from gateway.lab.topology import INSIDE, OUTSIDE

PROXY_PORT: Final = 10025
READY_SECONDS: Final = 20.0
LOOK_AGAIN_SECONDS: Final = 0.05
MARK: Final = 1
TABLE: Final = 100
FAR_ZONE: Final = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where one rival's daemon runs. `clients` and `servers` are the interfaces towards them."""

    node: str
    namespace: str
    folder: Path
    clients: str
    servers: str

    @property
    def log(self) -> Path:
        return self.folder / "rival.log"


def sending(plane: Plane) -> Place:
    return _place(plane, "gw-a", INSIDE, OUTSIDE)


def receiving(plane: Plane) -> Place:
    return _place(plane, "gw-b", OUTSIDE, INSIDE)


def _place(plane: Plane, node: str, clients: str, servers: str) -> Place:
    return Place(node, plane.namespace(node), plane.folder / node, clients, servers)


def tproxy_rules(clients: str, servers: str) -> str:
    """Mail from `clients` to the proxy's port, its far packets to its sockets: for iptables-restore."""
    return (
        "*mangle\n"
        f"-A PREROUTING -i {servers} -p tcp --sport 25 -m socket --transparent -j MARK --set-mark {MARK}\n"
        f"-A PREROUTING -i {clients} -p tcp --dport 25 -j TPROXY"
        f" --on-port {PROXY_PORT} --tproxy-mark {MARK}\n"
        "COMMIT\n"
    )


def redirect_rules(clients: str, servers: str) -> str:
    """The same by REDIRECT, for a proxy that asks for SO_ORIGINAL_DST.

    The proxy keeps the client's port as well, so both its connections have one and the same addresses and
    ports: the far one is tracked in a zone of its own, or the kernel would take it for the near one.
    """
    return (
        "*raw\n"
        f"-A PREROUTING -i {servers} -p tcp --sport 25 -j CT --zone {FAR_ZONE}\n"
        f"-A OUTPUT -p tcp --dport 25 -j CT --zone {FAR_ZONE}\n"
        "COMMIT\n"
        "*mangle\n"
        f"-A PREROUTING -i {servers} -p tcp --sport 25 -m socket --transparent -j MARK --set-mark {MARK}\n"
        "COMMIT\n"
        "*nat\n"
        f"-A PREROUTING -i {clients} -p tcp --dport 25 -j REDIRECT --to-ports {PROXY_PORT}\n"
        "COMMIT\n"
    )


def relay_rules(clients: str) -> str:
    """Mail from `clients` to the machine's own mail server, wherever it was going."""
    return f"*nat\n-A PREROUTING -i {clients} -p tcp --dport 25 -j REDIRECT --to-ports 25\nCOMMIT\n"


def apply(place: Place, rules: str) -> None:
    processes.run_in(place.namespace, ["iptables-restore", "-w"], stdin=rules.encode())


def keep_returning(place: Place) -> None:
    """What is marked belongs to a socket of this machine, whatever its address."""
    processes.run_in(place.namespace, ["ip", "rule", "add", "fwmark", str(MARK), "lookup", str(TABLE)])
    processes.run_in(
        place.namespace, ["ip", "route", "add", "local", "default", "dev", "lo", "table", str(TABLE)]
    )


def start(place: Place, command: list[str]) -> Process:
    """The daemon in the foreground, with as many descriptors as the kernel lets it have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = ["prlimit", f"--nofile={hard}:{hard}"]
    return processes.start_in(
        place.namespace, [*limits, *command], log=place.log, pid_file=place.folder / "rival.pid"
    )


def wait_listening(place: Place, port: int, process: Process) -> None:
    """Raises SystemExit with the daemon's last words where it does not come up."""
    deadline = time.monotonic() + READY_SECONDS
    while f":{port} ".encode() not in processes.run_in(place.namespace, ["ss", "-Hltn"]).stdout:
        if time.monotonic() > deadline or not process.alive:
            words = place.log.read_text(errors="replace").strip().splitlines()
            raise SystemExit(f"bench: {place.namespace}: nothing listens on {port}: {words[-1:]}")
        time.sleep(LOOK_AGAIN_SECONDS)
