"""One TOML file -> one frozen `Config`. The only place where defaults are merged.

Every error is one line that names file and key (and the line where it can be told) and what is allowed.
Reads no machine state: which interfaces exist is told to `with_interfaces` by the caller.
Each key is a line of `KEYS`; docs/configuration.md and the example file are tested against it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from gateway import addresses, config_text, outlets, values
from gateway.addresses import Listed
from gateway.config_text import ConfigurationError, Written, line_of, located, one_line, shown
from gateway.policy import limits
from gateway.values import EntryError

Network = addresses.Network

VERSION: Final = 1
DEFAULT_PATH: Final = Path("/etc/nightmail/nightmail.toml")
LOG_LEVELS: Final = ("debug", "info", "notice", "alarm", "error")


@dataclass(frozen=True, slots=True)
class Marks:
    """Eight bits of the packet mark, under `mask`; the other bits are the site's own."""

    mask: int = 0xFF000000


class Placement(enum.Enum):
    """Where the gateway stands; see docs/placements.md."""

    ROUTER = "router"
    HOST = "host"
    BRIDGE = "bridge"


@dataclass(frozen=True, slots=True)
class Config:
    """What the operator chose; see docs/configuration.md for each key."""

    placement: Placement = Placement.ROUTER
    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    """Both empty: not named in the file; `with_interfaces` finds them."""
    inside_networks: tuple[Network, ...] = ()
    always: tuple[Network, ...] = ()
    never: tuple[Network, ...] = ()
    never_ipsets: tuple[addresses.Ipset, ...] = ()
    """Sets of the kernel's, whose members count as `never`."""
    never_offer: tuple[Network, ...] = ()
    nat_addresses: tuple[Network, ...] = ()
    ports: tuple[int, ...] = (25,)
    marks: Marks = field(default_factory=Marks)
    table: int = 2525
    zone: int = 2525
    bridge: str = "br0"
    bridge_port: str = "nm0"
    bridge_interface: str = "nm1"
    bridge_table: int = 2526
    unfiltered: tuple[int, ...] = ()
    """Of a bridge: families whose frames met no packet filter before us. The machine knows, not the file."""
    untagged_vlan: int = 0
    """Likewise: in which VLAN frames without a tag are, where it tells VLANs apart; else 0."""
    vlan_asked: bool = False
    """Likewise: whether nft can ask that of each frame."""
    first_queue: int = 2500
    first_listen_port: int = 12525
    workers: int = 2
    state_dir: Path = Path("/var/lib/nightmail")
    run_dir: Path = Path("/run/nightmail")
    user: str = "nightmail"
    log_level: str = "info"
    log_file: Path | None = None
    """None: where `log_to` says."""
    log_to: str = "stderr"
    dead_end_minutes: int = 30
    """0: every session is looked at."""
    offers_rest: bool = True
    """False: also those get an offer in each session who have ignored many."""
    tickets: bool = True
    """False: each session has a whole handshake."""
    alarm_again_hours: int = 24
    alarm_command: tuple[str, ...] = ()
    alarm_mail_to: str = ""
    alarm_sendmail: Path = Path("/usr/sbin/sendmail")
    alarm_server: tuple[str, int] | None = None
    """Takes the mail by SMTP, in place of `alarm_sendmail`."""
    metrics_listen: outlets.Listen | None = None
    sessions: int = limits.SESSIONS
    sessions_per_source: int = limits.SESSIONS_PER_SOURCE
    handshakes_per_second: int = limits.HANDSHAKES_PER_SECOND
    handshakes_per_source: int = limits.HANDSHAKES_PER_SOURCE
    held_megabytes: int = limits.HELD_OCTETS >> 20
    written: Written | None = field(default=None, compare=False, repr=False)
    """The file that all this comes from, for complaints about what only the machine knows to be wrong."""

    @property
    def held_octets(self) -> int:
        """Octets that may wait in one worker for slow sockets."""
        return self.held_megabytes << 20

    @property
    def held_octets_per_source(self) -> int:
        """A quarter of them."""
        return self.held_octets * limits.HELD_OCTETS_PER_SOURCE // limits.HELD_OCTETS

    @property
    def identity_file(self) -> Path:
        return self.state_dir / "identity"

    @property
    def pins_file(self) -> Path:
        return self.state_dir / "peers.db"

    @property
    def wanted_file(self) -> Path:
        return self.state_dir / "wanted.json"

    @property
    def control_socket(self) -> Path:
        return self.run_dir / outlets.CONTROL_SOCKET

    @property
    def rules_lock(self) -> Path:
        return self.run_dir / outlets.RULES_LOCK


@dataclass(frozen=True, slots=True)
class FoundInterface:
    """A network interface of this machine, other than the loopback."""

    name: str
    holds_default_route: bool
    is_up: bool = True
    """One that is down may be named, but is never guessed."""


def load(path: Path) -> Config:
    """The file's values over the defaults. Raises ConfigurationError."""
    return _merged(*config_text.read(path))


def with_interfaces(config: Config, found: Sequence[FoundInterface]) -> Config:
    """The same with `inside` and `outside` filled in where the file does not name them and they matter.

    Of two interfaces the one that holds the default route is outside; a single one, with inside networks, is
    both. On the mail server itself only the machine is inside, and outside may stay empty: all interfaces.
    Raises ConfigurationError where that does not tell, or where a named one is missing.
    """
    names = {interface.name for interface in found}
    for key, named in (("inside", config.inside), ("outside", config.outside)):
        for name in named:
            if name not in names:
                problem = f"no interface {name} here; there are: {_list(names)}"
                raise _about(config, f"interfaces.{key}", problem, name)
    if (config.inside and config.outside) or config.placement is Placement.HOST:
        return config
    names = {interface.name for interface in found if interface.is_up}
    ways_out = {interface.name for interface in found if interface.holds_default_route}
    if config.inside_networks:
        # With two interfaces this may be a one-armed router that is managed by the other: not to be guessed.
        both = config.inside or config.outside or (tuple(names) if len(names) == 1 else ())
        if both and len(names) == 1:
            return replace(config, inside=both, outside=both)
    elif len(names) == 2:
        outside = set(config.outside) or (names - set(config.inside) if config.inside else ways_out)
        inside = set(config.inside) or names - outside
        if len(outside) == len(inside) == 1 and inside != outside:
            return replace(config, inside=tuple(inside), outside=tuple(outside))
    problem = f"name them; found {_list(names)}, default route by {_list(ways_out)}"
    if len(names) == 1 and not config.inside_networks:
        problem += '; on a mail server itself: placement = "host"'
    raise _about(config, "interfaces.inside, interfaces.outside", problem)


def _about(config: Config, key: str, problem: str, entry: object = None) -> ConfigurationError:
    """Of a configuration that was read without complaint: what is wrong with it on this machine."""
    return located(config.written or Written(DEFAULT_PATH), key, problem, entry)


# --- Values: each check answers the value for the field, or raises ValueError(what is allowed). --------


def _version(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < VERSION:
        raise ValueError(str(VERSION))
    if value > VERSION:
        raise ValueError(f"{VERSION}; a later version of Nightmail wrote this file")
    return value


def _marks(value: object) -> Marks:
    return Marks(mask=values.mark_mask(value))


def _placement(value: object) -> Placement:
    try:
        return Placement(value)
    except ValueError:
        raise ValueError(", ".join(placement.value for placement in Placement)) from None


def _log_file(value: object) -> Path | None:
    return None if value == "" else values.folder(value)


def _log_level(value: object) -> str:
    if value not in LOG_LEVELS:
        raise ValueError(", ".join(LOG_LEVELS))
    return str(value)


_NOT_A_FIELD: Final = ""

KEYS: Final[Mapping[str, tuple[str, Callable[[object], object]]]] = {
    "version": (_NOT_A_FIELD, _version),
    "placement": ("placement", _placement),
    "interfaces.inside": ("inside", values.interface_names),
    "interfaces.outside": ("outside", values.interface_names),
    "interfaces.inside_networks": ("inside_networks", addresses.networks),
    "mail.ports": ("ports", values.ports),
    "exceptions.always": ("always", addresses.with_names),
    "exceptions.never": ("never", addresses.with_ipsets),
    "exceptions.never_offer": ("never_offer", addresses.with_names),
    "sets.name": (_NOT_A_FIELD, addresses.networks),
    "nat.addresses": ("nat_addresses", addresses.networks),
    "marks.mask": ("marks", _marks),
    "kernel.table": ("table", values.whole_number(1, 0x7FFFFFFF, besides=(253, 254, 255))),
    "kernel.zone": ("zone", values.whole_number(1, 65535)),
    "kernel.first_queue": ("first_queue", values.whole_number(0, limits.LAST_FIRST_QUEUE)),
    "kernel.first_listen_port": (
        "first_listen_port",
        values.whole_number(1024, limits.LAST_FIRST_LISTEN_PORT),
    ),
    "bridge.name": ("bridge", values.interface_name),
    "bridge.port": ("bridge_port", values.interface_name),
    "bridge.interface": ("bridge_interface", values.interface_name),
    "bridge.table": ("bridge_table", values.whole_number(1, 0x7FFFFFFF, besides=(253, 254, 255))),
    "daemon.workers": ("workers", values.whole_number(1, limits.WORKERS)),
    "daemon.state_dir": ("state_dir", values.own_folder),
    "daemon.run_dir": ("run_dir", outlets.run_dir),
    "daemon.user": ("user", values.user),
    "log.level": ("log_level", _log_level),
    "log.file": ("log_file", _log_file),
    "log.to": ("log_to", outlets.log_place),
    "dead_ends.minutes": ("dead_end_minutes", values.whole_number(0, 1440)),
    "offers.rest": ("offers_rest", values.yes_or_no),
    "channel.tickets": ("tickets", values.yes_or_no),
    "limits.sessions": ("sessions", values.whole_number(1, 1_000_000)),
    "limits.sessions_per_source": ("sessions_per_source", values.whole_number(1, 1_000_000)),
    "limits.handshakes_per_second": ("handshakes_per_second", values.whole_number(1, 100_000)),
    "limits.handshakes_per_source": ("handshakes_per_source", values.whole_number(1, 100_000)),
    "limits.held_megabytes": ("held_megabytes", values.whole_number(1, 100_000)),
    "alarms.again_after_hours": ("alarm_again_hours", values.whole_number(1, 168)),
    "alarms.command": ("alarm_command", outlets.command),
    "alarms.mail_to": ("alarm_mail_to", outlets.mail_to),
    "alarms.sendmail": ("alarm_sendmail", outlets.program),
    "alarms.server": ("alarm_server", outlets.mail_server),
    "metrics.listen": ("metrics_listen", outlets.listen),
}
"""Key as it is spelled in the file (sets.name: any name) -> field of `Config`, check of its value."""
_SETS: Final = "sets."

SECTIONS: Final = frozenset(key.partition(".")[0] for key in KEYS if "." in key)


# --- Reading -----------------------------------------------------------------------------------------


def _merged(written: Written, document: dict[str, Any]) -> Config:
    fields: dict[str, Any] = {}
    sets: dict[str, tuple[Network, ...]] = {}
    lists: dict[str, Listed] = {}
    for key, value in _flat(written, document):
        name, check = KEYS[f"{_SETS}name" if key.startswith(_SETS) else key]
        try:
            checked: Any = check(value)
        except ValueError as error:
            raise _not_allowed(written, key, value, error) from None
        if key.startswith(_SETS):
            sets[key.removeprefix(_SETS)] = checked
        elif isinstance(checked, Listed):
            lists[key] = checked
        elif name != _NOT_A_FIELD:
            fields[name] = checked
    for key, listed in lists.items():
        name = KEYS[key][0]
        try:
            fields[name] = listed.looked_up(sets)
        except EntryError as error:
            raise located(written, key, str(error), error.entry) from None
        if listed.ipsets:
            fields[f"{name}_ipsets"] = listed.ipsets
    return _consistent(written, Config(**fields, written=written))


def _flat(written: Written, document: dict[str, Any]) -> list[tuple[str, object]]:
    """Every key of the file with its section; the version first, since all else depends on it."""
    pairs: list[tuple[str, object]] = []
    for name, value in document.items():
        if name in SECTIONS:
            if not isinstance(value, dict):
                raise located(written, name, f"is a section; allowed: [{name}] and keys below it")
            pairs += [(f"{name}.{inner}", item) for inner, item in value.items()]
        else:
            pairs.append((name, value))
    pairs.sort(key=lambda pair: pair[0] != "version")
    for key, value in pairs:
        if key == "version":
            _check_version(written, value)
        elif key.startswith(_SETS):
            _check_set_name(written, key)
        elif key not in KEYS:
            raise located(written, key, f"unknown key; allowed: {_siblings(key)}")
    return pairs


def _check_version(written: Written, value: object) -> None:
    """Before unknown keys are complained of: a later version has keys of its own."""
    try:
        _version(value)
    except ValueError as error:
        raise _not_allowed(written, "version", value, error) from None


def _not_allowed(written: Written, key: str, value: object, error: ValueError) -> ConfigurationError:
    """A check's word on the value of a key; or on one entry of it, in the line where that stands."""
    wrong = error if isinstance(error, EntryError) else EntryError(str(error), value)
    why = f" ({one_line(wrong.why)})" if wrong.why else ""
    problem = f"{shown(wrong.entry)} is not allowed{why}; allowed: {one_line(str(wrong))}"
    return located(written, key, problem, wrong.entry)


def _check_set_name(written: Written, key: str) -> None:
    try:
        addresses.set_name(key.removeprefix(_SETS))
    except ValueError as error:
        raise located(written, key, f"no name of a list; allowed: {error}") from None


def _siblings(key: str) -> str:
    section, dot, _ = key.partition(".")
    if dot and section in SECTIONS:
        return ", ".join(known for known in KEYS if known.startswith(section + "."))
    alone = [known for known in KEYS if "." not in known]
    return ", ".join([*alone, *(f"[{name}]" for name in sorted(SECTIONS))])


def _consistent(written: Written, config: Config) -> Config:
    if config.placement is Placement.HOST:
        for key, given in (("inside", config.inside), ("inside_networks", config.inside_networks)):
            if given:
                problem = "not on the mail server itself (placement host): inside is this machine alone"
                raise located(written, f"interfaces.{key}", problem)
    if config.placement is Placement.BRIDGE:
        _consistent_bridge(written, config)
    both = set(config.inside) & set(config.outside)
    if both and not config.inside_networks:
        problem = f"{_list(both)} is outside as well; allowed only with interfaces.inside_networks"
        raise located(written, "interfaces.inside", problem)
    if config.log_file is not None and config.log_to != "stderr":
        raise located(written, "log.to", "log.file is set as well; allowed: one of the two")
    _consistent_ports(written, config)
    if config.metrics_listen in (config.control_socket, config.rules_lock):
        problem = f"{config.metrics_listen} is the daemon's own; allowed: another path"
        raise located(written, "metrics.listen", problem)
    return config


def _consistent_ports(written: Written, config: Config) -> None:
    """The row is the workers' alone: those of a reload listen further up in it."""
    row = range(config.first_listen_port, config.first_listen_port + limits.NUMBERS_IN_A_ROW)
    ours = f"{row[0]} to {row[-1]}"
    another = f"is ours ({ours}); allowed: another one, or another kernel.first_listen_port"
    taken = [port for port in config.ports if port in row]
    if taken and line_of(written.text, "kernel.first_listen_port") is None:
        raise located(written, "mail.ports", f"port {taken[0]} {another}")
    if taken:
        problem = f"{ours} are ours; allowed: a row without mail port {taken[0]}"
        raise located(written, "kernel.first_listen_port", problem)
    if isinstance(config.metrics_listen, tuple) and config.metrics_listen[1] in row:
        raise located(written, "metrics.listen", f"port {config.metrics_listen[1]} {another}")


def _consistent_bridge(written: Written, config: Config) -> None:
    """Its ports are never guessed: a wrong guess would be a loop, or a way past a firewall."""
    for key, names in (("inside", config.inside), ("outside", config.outside)):
        if not names:
            raise located(written, f"interfaces.{key}", "to be named where placement is bridge")
    both = set(config.inside) & set(config.outside)
    if both:
        problem = f"{_list(both)} is outside as well; allowed: a port on one side of the bridge"
        raise located(written, "interfaces.inside", problem)
    taken = {*config.inside, *config.outside}
    keys = (("name", config.bridge), ("port", config.bridge_port), ("interface", config.bridge_interface))
    for key, name in keys:
        if name in taken:
            problem = f"{name} is named twice; allowed: a name of its own"
            raise located(written, f"bridge.{key}", problem)
        taken.add(name)
    if config.bridge_table == config.table:
        problem = f"{config.table} is kernel.table; allowed: another one"
        raise located(written, "bridge.table", problem)


def _list(names: Sequence[str] | set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
