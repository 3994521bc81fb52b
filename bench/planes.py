"""Three copies of the lab's network that stand side by side, so that rounds of all three can alternate.

    direct   mta-a - router - wire - router - mta-b                  no gateway runs
    clear    mta-a - gateway - wire - router - mta-b                 one, and the other side has none
    channel  mta-a - gateway - wire - gateway - mta-b                two: the mail goes through the channel

Every plane has all five namespaces and the same forwarding hops; only the daemons differ. Counterparts:
`gateway.lab.network` builds, `gateway.lab.gateways` starts the daemons as an operator's are started.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from bench import form
from gateway.lab import gateways, network, processes, topology, wan

PREFIX: Final = "nmb-"
PAIRS: Final = 16
"""Pairs of addresses: the kernel balances its queues by addresses alone, so one pair is one worker."""
SOURCES: Final = 4
HOLDERS: Final = 16
"""Senders whose sessions are held open, each to all servers: with so many pairs no worker has far more than
its part of them, whatever the kernel's hash, and no source meets the limit of one."""
FIRST_EXTRA: Final = 101
FIRST_HOLDER: Final = FIRST_EXTRA + SOURCES
ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)

SWITCHES: Final = {
    # Ports of finished sessions are waited for a minute; a round makes thousands.
    "net/ipv4/ip_local_port_range": "1024 65000",
    "net/ipv4/tcp_max_syn_backlog": "8192",
    # Otherwise a connection begins with what the one before it has learned of the line.
    "net/ipv4/tcp_no_metrics_save": "1",
}


class Kind(Protocol):
    """What tells one plane from the others: its name, and the nodes on which our gateway runs."""

    @property
    def value(self) -> str: ...

    @property
    def gateway_names(self) -> tuple[str, ...]: ...


AnyKind = TypeVar("AnyKind", bound=Kind)
Each = TypeVar("Each")


class Variant(enum.Enum):
    """What stands between the two mail servers."""

    DIRECT = "direct"
    CLEAR = "clear"
    CHANNEL = "channel"

    @property
    def gateway_names(self) -> tuple[str, ...]:
        return {"direct": (), "clear": ("gw-a",), "channel": ("gw-a", "gw-b")}[self.value]


@dataclass(frozen=True, slots=True)
class Plane:
    """One copy of the network and its daemons."""

    variant: Kind
    owner: str
    folder: Path
    table: topology.Topology
    names: tuple[str, ...]
    """The nodes on which a gateway runs."""
    source: Path | None = None

    def namespace(self, node: str) -> str:
        return f"{_prefix(self.owner)}{self.variant.value}-{node}"

    @property
    def namespaces(self) -> list[str]:
        return [self.namespace(node) for node in self.table.nodes]

    @property
    def gateways(self) -> list[gateways.Gateway]:
        return [
            gateways.Gateway(self.table.nodes[name], self.namespace(name), self.folder / name, self.source)
            for name in self.names
        ]

    @property
    def destinations(self) -> list[str]:
        """Addresses of the receiving mail server; each is reached from one fixed source address."""
        return [_numbered(self.table.mail_server("b"), FIRST_EXTRA + i) for i in range(PAIRS)]

    @property
    def holders(self) -> list[str]:
        """Addresses of the sending mail server that no load comes from, unless it asks for them."""
        return [_numbered(self.table.mail_server("a"), FIRST_HOLDER + i) for i in range(HOLDERS)]

    @property
    def line(self) -> wan.Line:
        return wan.Line(self.namespace("wire"), self.folder)

    def gateway_pids(self, name: str) -> list[int]:
        """Every process of one gateway's daemon."""
        return [process.pid for process in processes.living_in([self.namespace(name)])]


def _numbered(node: topology.Node, number: int) -> str:
    return f"{node.home.v4.rpartition('.')[0]}.{number}"


def in_turn(variants: Iterable[Each], turn: int) -> list[Each]:
    """Each turn begins with another one, so that what the machine does otherwise meets all of them alike."""
    several = list(variants)
    turn %= len(several)
    return several[turn:] + several[:turn]


@contextlib.contextmanager
def standing(
    owner: str,
    variants: list[AnyKind],
    *,
    start: bool = True,
    source: Path | None = None,
    names: tuple[str, ...] | None = None,
    configuration: str = "",
    change: Callable[[Plane, str], str] | None = None,
) -> Iterator[dict[AnyKind, Plane]]:
    """The planes, ready for mail (unless `start` is False); taken down again whatever happens.

    `source`: another tree to run the daemons from than `form.product`. `names`: the nodes with a gateway, if
    others than the variant's. `configuration`: lines for theirs. `change` makes a plane's another.

    `owner` is the command whose planes these are. Raises SystemExit if the same command runs already: its
    namespaces have the same names.
    """
    table = topology.load()
    source = form.product() if source is None and start else source
    with tempfile.TemporaryDirectory(prefix="nightmail-bench-") as folder, alone(owner):
        planes = {
            variant: Plane(
                variant,
                owner,
                Path(folder) / variant.value,
                table,
                variant.gateway_names if names is None else names,
                source,
            )
            for variant in variants
        }
        for plane in planes.values():
            plane.folder.mkdir(mode=0o755)
            _build(plane)
        if start:
            _start_daemons(list(planes.values()), configuration, change)
        yield planes


@contextlib.contextmanager
def alone(owner: str) -> Iterator[None]:
    """No other run of this command, and nothing left of one; nothing of this one either, behind it.

    Raises SystemExit if the same command runs already: its namespaces have the same names.
    """
    with _lock_file(owner).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"{owner}: runs on this machine already") from None
        try:
            _take_down_leftovers(owner)
            yield
        finally:
            # A second signal must not end the tidying half way; what it waits for is bounded.
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
            _take_down_leftovers(owner)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


def _build(plane: Plane) -> None:
    network.create(plane.namespaces)
    network.build(plane.table, plane.namespace)
    for namespace in plane.namespaces:
        network.inside(namespace, _set_switches)
    _add_pairs(plane)


def _start_daemons(
    planes: list[Plane], configuration: str, change: Callable[[Plane, str], str] | None
) -> None:
    every = [(plane, one) for plane in planes for one in plane.gateways]
    for plane, one in every:
        gateways.prepare(one)
        text = one.configuration.read_text() + configuration
        one.configuration.write_text(change(plane, text) if change is not None else text)
        gateways.start(one)
    for _, one in every:
        gateways.wait_ready(one)


def _set_switches() -> None:
    for name, value in SWITCHES.items():
        (Path("/proc/sys") / name).write_text(value)


def _add_pairs(plane: Plane) -> None:
    sender, receiver = plane.table.mail_server("a"), plane.table.mail_server("b")
    router = plane.table.nodes["gw-a"].addresses["site-a"].v4
    own = [_numbered(sender, FIRST_EXTRA + i) for i in range(SOURCES)] + plane.holders
    lines = [f"addr add {address}/24 dev eth0" for address in own]
    for i, destination in enumerate(plane.destinations):
        source = _numbered(sender, FIRST_EXTRA + i % SOURCES)
        lines.append(f"route add {destination}/32 via {router} src {source}")
    _ip(plane.namespace(sender.name), lines)
    _ip(plane.namespace(receiver.name), [f"addr add {to}/24 dev eth0" for to in plane.destinations])


def _ip(namespace: str, lines: list[str]) -> None:
    processes.run_in(namespace, ["ip", "-batch", "-"], stdin="\n".join([*lines, ""]).encode())


def _prefix(owner: str) -> str:
    return f"{PREFIX}{owner}-"


def _lock_file(owner: str) -> Path:
    return Path(tempfile.gettempdir()) / f"nightmail-{owner}.lock"


def _take_down_leftovers(owner: str) -> None:
    """Ours, and those of a run that was killed: told by their prefix, ended by where they live."""
    if not network.RUN_NETNS.is_dir():
        return
    names = sorted(name for name in os.listdir(network.RUN_NETNS) if name.startswith(_prefix(owner)))
    processes.kill_all_in(names)
    network.remove(names)
