"""What the doctor has seen of the machine: facts in frozen records, and nothing that reads any.

Counterparts: `machine` makes one, the checks judge it. So a check is a pure function, and a test can show
it a machine that nobody has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any

from gateway.addresses import Ipset
from gateway.config import Config, Network, Placement

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. `carrier`: whether its cable leads to something that is on."""

    index: int
    name: str
    up: bool = True
    carrier: bool = True
    mtu: int = 1500
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    interface: str
    address: Interface


@dataclass(frozen=True, slots=True)
class Route:
    """One unicast route of the main table; `interfaces` are several where it is multipath."""

    destination: Network
    interfaces: tuple[str, ...]
    gateway: str = ""
    metric: int = 0


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """`ip rule`; `narrow`: it asks for more than to be a packet (a source, a mark, an interface).

    `interface`: by which a packet comes; `particular`: it asks for what stands in no field here.
    """

    family: int
    priority: int
    table: int
    narrow: bool = False
    interface: str = ""
    source: Network | None = None
    destination: Network | None = None
    mark: int = 0
    particular: bool = False


@dataclass(frozen=True, slots=True)
class Neighbour:
    interface: str
    address: str
    router: bool = False


@dataclass(frozen=True, slots=True)
class File:
    """What stands at a path. `kind`: file, directory, link, other, or "" for nothing."""

    path: Path
    kind: str = ""
    mode: int = 0
    owner: int = 0
    parents_owner: int = 0


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system below a path."""

    path: Path
    free_octets: int
    used_octets: int = 0
    read_only: bool = False
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """`born`: seconds since 1970, 0 where that is not known. `unreadable`: why, in one line."""

    file: File
    unreadable: str = ""
    born: int = 0
    of_another_machine: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of peers: what is wrong with the file, and damaged ones that were set aside."""

    file: File
    unreadable: str = ""
    set_aside: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Daemon:
    """`pid`: who listens on the control socket, None if nobody does. `status`: None without an answer.

    `states`: of each process of it the kernel's letter (R, S, T for stopped, ...).
    """

    pid: int | None = None
    status: Mapping[str, Any] | None = None
    states: Mapping[int, str] = field(default_factory=dict)
    unheard: bool = False
    """Nobody can connect to it: its socket was removed."""


@dataclass(frozen=True, slots=True)
class Clock:
    """`newest`: the newest of our own files, `newest_at` its time. Seconds since 1970."""

    now: float
    synchronised: bool = True
    newest: str = ""
    newest_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One machine at one moment."""

    config: Config
    config_path: Path
    config_text: str = ""
    config_is_default: bool = True
    """It is where a command of ours looks for it by itself."""
    interfaces_unknown: str = ""
    """Why inside and outside cannot be told; then they are as the file says."""
    root: bool = True
    systemd: bool = False
    missing_tools: tuple[str, ...] = ()
    rules_refused: str = ""
    """What the kernel says against our rules, when it is asked without putting them in."""
    absent_sets: tuple[Ipset, ...] = ()
    """Of those in exceptions.never."""
    bridge_refused: str = ""
    """Why the bridge that is named, or its ports, cannot be had."""
    version: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """By their names with slashes, since a dot may stand in an interface's name."""
    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    routing_rules: tuple[RoutingRule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    dumps: Mapping[int, str] = field(default_factory=dict)
    """iptables-save by family."""
    legacy: Mapping[int, str] = field(default_factory=dict)
    """iptables-legacy-save by family, where old tables are in use."""
    nft: tuple[Mapping[str, Any], ...] = ()
    """`nft -j list ruleset`."""
    missing_rules: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """What a bridge needs of this kernel and does not find."""
    wanted: str = "up"
    wanted_until_reboot: bool = False
    wanted_unreadable: str = ""
    daemon: Daemon = field(default_factory=Daemon)
    identity: Identity = field(default_factory=lambda: Identity(File(Path("identity"))))
    memory: Memory = field(default_factory=lambda: Memory(File(Path("peers.db"))))
    state: File = field(default_factory=lambda: File(Path("state")))
    disk: Disk | None = None
    log_trouble: str = ""
    alarms_unheard: str = ""
    """Which program that alarms go out by is not here."""
    clock: Clock = field(default_factory=lambda: Clock(0.0))
    ports_taken: tuple[int, ...] = ()
    """Of our listening ports, where they leave no room for a worker, while no daemon of ours runs."""
    queues_taken: tuple[int, ...] = ()
    """Of our packet queues, likewise."""
    orphans: tuple[int, ...] = ()
    """Workers whose daemon has died, likewise."""

    def link(self, name: str) -> Link | None:
        return next((link for link in self.links if link.name == name), None)

    def sysctl(self, name: str) -> str:
        """Its value; empty where this kernel has no such switch."""
        return self.sysctls.get(name, "")

    @property
    def sides(self) -> tuple[str, ...]:
        """Our interfaces, inside first, each once."""
        return tuple(dict.fromkeys(self.config.inside + self.config.outside))

    @property
    def hooks(self) -> tuple[str, ...]:
        """Interfaces by which packet filters know our packets; empty: any may be one."""
        config = self.config
        if config.placement is Placement.HOST:
            return config.outside
        return (*self.sides, config.bridge, config.bridge_interface) if self.bridged else self.sides

    @property
    def bridged(self) -> bool:
        return self.config.placement is Placement.BRIDGE

    def has_ipv6(self, interface: str) -> bool:
        """Whether it has an IPv6 address that is good for more than its own link."""
        return any(
            one.interface == interface and one.address.version == 6 and not one.address.ip.is_link_local
            for one in self.addresses
        )

    @property
    def runs(self) -> bool:
        """Whether a daemon runs and answers."""
        return self.daemon.status is not None

    def ours(self, *words: str) -> tuple[str, ...]:
        """A command of ours, with the configuration that this is about."""
        where = () if self.config_is_default else ("--config", str(self.config_path))
        return ("nightmail", *where, *words)
