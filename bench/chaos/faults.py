"""The faults, each in a few lines: what it does up to `yield`, and behind it how it is undone.

A fault gets one world and acts on it; where there are no gateways, those that strike a daemon do nothing, and
what is measured is the load without any fault. `breaks_tcp` says why sessions break whatever a gateway does.
Counterpart: `ground`, whose worlds these are.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.chaos.ground import World
from bench.chaos.service import Service
from gateway.config import Placement
from gateway.errors import EnvironmentFailureError
from gateway.lab import gateways, wan
from gateway.lab.topology import MAIL_INTERFACE

DAY: Final = 86_400.0
TOOLS: Final = ("iptables", "ip6tables")
BLOCKED_SECONDS: Final = 5.0
PUT_BACK_SECONDS: Final = 10.0


EVERYWHERE: Final = frozenset(Placement)
BETWEEN: Final = frozenset({Placement.ROUTER, Placement.BRIDGE})
"""Where the gateway is no mail server."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the table. `seconds`: how long it lasts before it is undone."""

    name: str
    what: str
    undone: str
    act: Callable[[World], Iterator[None]]
    seconds: float = 2.0
    breaks_tcp: str = ""
    """Why it breaks sessions by itself; empty if it does not."""
    quick: bool = False
    """In the short selection."""
    placements: frozenset[Placement] = EVERYWHERE
    """Where it can happen."""
    breaks_on_host: str = ""
    """Why it does where the gateway is on the mail server, and only there."""

    def breaks(self, placement: Placement) -> str:
        return self.breaks_tcp or (self.breaks_on_host if placement is Placement.HOST else "")


FAULTS: Final[dict[str, Fault]] = {}


def fault(
    name: str,
    what: str,
    undone: str,
    *,
    seconds: float = 2.0,
    breaks_tcp: str = "",
    quick: bool = False,
    placements: frozenset[Placement] = EVERYWHERE,
    breaks_on_host: str = "",
) -> Callable[[Callable[[World], Iterator[None]]], Callable[[World], Iterator[None]]]:
    def add(act: Callable[[World], Iterator[None]]) -> Callable[[World], Iterator[None]]:
        FAULTS[name] = Fault(name, what, undone, act, seconds, breaks_tcp, quick, placements, breaks_on_host)
        return act

    return add


# --- Processes ----------------------------------------------------------------------------------------

ITS_SESSIONS: Final = "the process that holds the sessions' sockets is gone"
SYSTEMD: Final = "systemd starts it again after a second"


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _one(service: Service) -> list[int]:
    return service.workers()[:1]


def _all(service: Service) -> list[int]:
    return service.workers()


def _supervisor(service: Service) -> list[int]:
    return [service.supervisor()]


def _everything(service: Service) -> list[int]:
    return [process.pid for process in service.everything()]


def _struck(
    letter: str, whom: Callable[[Service], list[int]], number: signal.Signals
) -> Callable[[World], Iterator[None]]:
    def act(world: World) -> Iterator[None]:
        service = world.services.get(letter)
        if service is not None:
            _signal(whom(service), number)
        yield

    return act


def _stopped(letter: str, whom: Callable[[Service], list[int]]) -> Callable[[World], Iterator[None]]:
    def act(world: World) -> Iterator[None]:
        service = world.services.get(letter)
        pids = whom(service) if service is not None else []
        _signal(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(pids, signal.SIGCONT)

    return act


for _letter, _side in (("a", ""), ("b", "-b")):
    _at = f"at gateway {_letter}"
    for _name, _who, _whom, _undone in (
        ("worker", "one worker", _one, "the supervisor starts another"),
        ("workers", "all workers", _all, "the supervisor starts others"),
        ("supervisor", "the supervisor", _supervisor, SYSTEMD),
        ("everything", "every process of the daemon", _everything, SYSTEMD),
    ):
        fault(
            f"{_name}-killed{_side}",
            f"SIGKILL to {_who} {_at}",
            _undone,
            seconds=3.0,
            breaks_tcp="" if _name == "supervisor" else ITS_SESSIONS,
            quick=_name in ("worker", "everything") and not _side,
        )(_struck(_letter, _whom, signal.SIGKILL))
    for _name, _who, _whom in (
        ("worker", "one worker", _one),
        ("workers", "all workers", _all),
        ("supervisor", "the supervisor", _supervisor),
        ("everything", "every process of the daemon, at once,", _everything),
    ):
        fault(
            f"{_name}-stopped{_side}",
            f"SIGSTOP to {_who} {_at}",
            "SIGCONT",
            seconds=3.0,
            quick=_name in ("workers", "everything") and not _side,
        )(_stopped(_letter, _whom))
for _name, _who, _whom in (("worker", "one worker", _one), ("workers", "all workers", _all)):
    fault(
        f"{_name}-terminated",
        f"SIGTERM to {_who}",
        "the supervisor starts another, and it ends with its sessions",
        seconds=3.0,
    )(_struck("a", _whom, signal.SIGTERM))


@fault(
    "everything-frozen",
    "a control group with every process of the daemon in it is frozen",
    "it is thawed",
    seconds=3.0,
)
def _frozen(world: World) -> Iterator[None]:
    service = world.services.get("a")
    if service is None:
        yield
        return
    first, second = Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup")
    root = first if first.is_dir() else second
    switch, off, on = ("freezer.state", "THAWED", "FROZEN") if first.is_dir() else ("cgroup.freeze", "0", "1")
    group = root / f"nightmail-chaos-frozen-{os.getpid()}"
    group.mkdir()
    try:
        for pid in _everything(service):
            (group / "cgroup.procs").write_text(str(pid))
        (group / switch).write_text(on)
        yield
    finally:
        (group / switch).write_text(off)
        _leave_group(group, root)


def _leave_group(group: Path, root: Path) -> None:
    """What is in the group moves back, and the group goes."""
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(OSError):
            (root / "cgroup.procs").write_text(pid)
    group.rmdir()


@fault(
    "supervisor-terminated",
    "SIGTERM to the supervisor, as `systemctl restart` does",
    "it ends once the sessions have, at most 20 s later; systemd starts it again",
    seconds=24.0,
    breaks_tcp="a stopping daemon resets what has not ended after 20 s",
)
def _terminated(world: World) -> Iterator[None]:
    yield from _struck("a", _supervisor, signal.SIGTERM)(world)


@fault(
    "loop-blocked", "the event loop of one worker stands still for 5 s", "it goes on", seconds=5.5, quick=True
)
def _blocked(world: World) -> Iterator[None]:
    service = world.services.get("a")
    if service is not None:
        _signal(_one(service), signal.SIGUSR2)
    yield


@fault(
    "memory-limit",
    "a control group with no memory left for one worker: the kernel kills it",
    "the supervisor starts another, outside the group",
    seconds=4.0,
    breaks_tcp=ITS_SESSIONS,
)
def _memory(world: World) -> Iterator[None]:
    service = world.services.get("a")
    if service is None:
        yield
        return
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    root, limit = (first, "memory.limit_in_bytes") if first.is_dir() else (second, "memory.max")
    group = root / f"nightmail-chaos-{os.getpid()}"
    group.mkdir()
    try:
        (group / limit).write_text("65536")
        (group / "cgroup.procs").write_text(str(_one(service)[0]))
        yield
    finally:
        _leave_group(group, root)


def _descriptors_of(pid: int) -> int:
    found = re.search(r"^Max open files +(\d+)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def _allow_descriptors(pid: int, count: int) -> None:
    """As the process's own user: without CAP_SYS_RESOURCE, as in a container, root may not."""
    status = Path(f"/proc/{pid}/status").read_text()
    user, group = (re.findall(rf"^{kind}:\t(\d+)", status, re.MULTILINE)[0] for kind in ("Uid", "Gid"))
    as_user = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups"]
    subprocess.run([*as_user, "prlimit", "--pid", str(pid), f"--nofile={count}:"], check=True, timeout=10)


def _descriptors(letter: str) -> Callable[[World], Iterator[None]]:
    def act(world: World) -> Iterator[None]:
        service = world.services.get(letter)
        before = {}
        for pid in _all(service) if service is not None else []:
            before[pid] = _descriptors_of(pid)
            # A new descriptor gets the lowest free number, which must be below the limit.
            taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
            lowest = next(number for number in range(len(taken) + 1) if number not in taken)
            _allow_descriptors(pid, lowest)
        try:
            yield
        finally:
            for pid, count in before.items():
                if Path(f"/proc/{pid}").exists():
                    _allow_descriptors(pid, count)

    return act


for _letter, _side in (("a", ""), ("b", "-b")):
    fault(
        f"descriptors{_side}",
        f"no descriptor left for any worker of gateway {_letter} (prlimit)",
        "the limit as it was",
        quick=_letter == "b",
    )(_descriptors(_letter))


# --- The disk and the memory of peers ------------------------------------------------------------------


@fault("disk-full", "not an octet left in the state directory", "room again", quick=True)
def _disk_full(world: World) -> Iterator[None]:
    service = world.services.get("a")
    if service is None:
        yield
        return
    filler = service.state / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    world.meet_a_stranger()
    try:
        yield
    finally:
        filler.unlink()


@fault("pins-locked", "another process holds the memory of peers locked", "it lets go", seconds=3.0)
def _locked(world: World) -> Iterator[None]:
    service = world.services.get("a")
    if service is None:
        yield
        return
    with service.holding_pins():
        world.meet_a_stranger()
        yield


@fault(
    "pins-corrupt",
    "the memory of peers is overwritten with noise while it is in use",
    "the daemon moves it aside",
)
def _corrupt(world: World) -> Iterator[None]:
    service = world.services.get("a")
    if service is not None:
        with (service.state / "peers.db").open("r+b") as file:
            file.write(os.urandom(64 * 1024))
        (service.state / "peers.db-wal").unlink(missing_ok=True)
        world.meet_a_stranger()
    yield


@fault("pins-deleted", "the memory of peers is deleted while it is in use", "the daemon makes another")
def _deleted(world: World) -> Iterator[None]:
    service = world.services.get("a")
    if service is not None:
        for path in service.state.glob("peers.db*"):
            path.unlink()
        world.meet_a_stranger()
    yield


@fault(
    "pins-read-only",
    "the daemon dies, and starts on a state directory that is read-only",
    "writable, and started again",
    seconds=5.0,
    breaks_tcp=ITS_SESSIONS,
)
def _read_only(world: World) -> Iterator[None]:
    service = world.services.get("a")
    if service is None:
        yield
        return
    state = str(service.gateway.folder / "state")
    service.switch_off()
    service.in_mounts("mount", "-o", "remount,ro", state)
    service.switch_on()
    try:
        yield
    finally:
        service.switch_off()
        service.in_mounts("mount", "-o", "remount,rw", state)
        service.switch_on()


@fault(
    "power-loss",
    "the daemon dies, and starts on copies of the memory's files that were made in mid-write",
    "nothing to undo",
    seconds=3.0,
    breaks_tcp=ITS_SESSIONS,
)
def _power_loss(world: World) -> Iterator[None]:
    service = world.services.get("a")
    if service is None:
        yield
        return
    torn = world.lab.place.folder / "torn"
    shutil.rmtree(torn, ignore_errors=True)
    torn.mkdir()
    service.tear_pins(torn)
    service.switch_off()
    for path in service.state.glob("peers.db*"):
        path.unlink()
    for path in torn.iterdir():
        shutil.copy(path, service.state / path.name)
    service.switch_on()
    yield


def _clock(seconds: float) -> Callable[[World], Iterator[None]]:
    def act(world: World) -> Iterator[None]:
        service = world.services.get("a")
        if service is not None:
            service.set_clock_ahead(seconds)
        try:
            yield
        finally:
            if service is not None:
                service.set_clock_ahead(0.0)

    return act


for _name, _words, _days in (
    ("clock-day-forth", "a day forth", 1),
    ("clock-day-back", "a day back", -1),
    ("clock-30-days", "30 days forth", 30),
):
    fault(_name, f"gateway a's clock jumps {_words}", "and back again", seconds=3.0, quick=_days == 30)(
        _clock(_days * DAY)
    )


# --- Rules --------------------------------------------------------------------------------------------

PUT_BACK: Final = "the daemon puts back what is missing"
NOT_TURNED: Final = "what the mail server sends is not turned back, and the far end resets it"
FOREIGN: Final = """\
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


def _rules(*commands: str, stdin: str = "") -> Callable[[World], Iterator[None]]:
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
    _rules(
        *(
            f"{tool} -w -t {table} {what}"
            for tool in TOOLS
            for table in ("raw", "mangle", "nat", "filter")
            for what in ("-F", "-X")
        ),
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


@fault("rules-down-and-up", "`nightmail down`, and `nightmail up`", "the operator's own hand", seconds=2.0)
def _down_and_up(world: World) -> Iterator[None]:
    service = world.services.get("a")
    if service is None:
        yield
        return
    command = gateways.nightmail_command("--config", str(service.gateway.configuration))
    service.in_mounts(*command, "down")
    try:
        yield
    finally:
        service.in_mounts(*command, "up")
        service.wait_ready()
        world.clear_from = time.monotonic() + 0.5


# --- Connection tracking and the queue -----------------------------------------------------------------


@fault(
    "conntrack-flushed",
    "the connection tracking table of both gateways' machines is emptied",
    "nothing to undo",
    quick=True,
)
def _conntrack_flushed(world: World) -> Iterator[None]:
    for node in map(world.home, "ab"):
        # Without entries to delete the tool says so by its status.
        world.sh(node, "sh -c conntrack${IFS}-F;conntrack${IFS}-F${IFS}-f${IFS}ipv6;true")
    yield


FULL: Final = """\
table inet chaos_full
delete table inet chaos_full
table inet chaos_full {
    chain arriving { type filter hook prerouting priority -199; ct state new drop; }
    chain leaving { type filter hook output priority -199; ct state new drop; }
}
"""


@fault(
    "conntrack-full",
    "no new entry in the connection tracking table of gateway a (injected: the limit is the machine's)",
    "room again",
)
def _conntrack_full(world: World) -> Iterator[None]:
    world.feed(world.home("a"), "nft -f -", FULL)
    try:
        yield
    finally:
        world.sh(world.home("a"), "nft delete table inet chaos_full")


OVERRUN_SYNS: Final = 20_000
OVERRUN_STOP_SECONDS: Final = 0.25


@fault(
    "queue-overrun",
    f"{OVERRUN_SYNS:,} SYNs from one source while the workers stand still for {OVERRUN_STOP_SECONDS} s",
    "nothing to undo",
    seconds=3.0,
    quick=True,
)
def _overrun(world: World) -> Iterator[None]:
    service = world.services.get("a")
    pids = _all(service) if service is not None else []
    _signal(pids, signal.SIGSTOP)
    try:
        until = time.monotonic() + OVERRUN_STOP_SECONDS
        world.inside("mta-a", lambda: _syns(OVERRUN_SYNS, until))
    finally:
        _signal(pids, signal.SIGCONT)
    yield


def _syns(count: int, until: float) -> None:
    """Towards an address of site b that nobody has; each from another port."""
    source, target = socket.inet_aton("10.11.0.77"), socket.inet_aton("10.12.0.200")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for number in range(count):
            if time.monotonic() > until:
                return
            raw.sendto(_syn(source, 1024 + number, target), ("10.12.0.200", 0))


def _syn(source: bytes, port: int, target: bytes) -> bytes:
    tcp = struct.pack("!HHIIBBHHH", port, 25, 1, 0, 5 << 4, 2, 64240, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp))
    total = sum(struct.unpack(f"!{len(pseudo + tcp) // 2}H", pseudo + tcp))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    outer = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0x4000, 64, socket.IPPROTO_TCP, 0)
    return outer + source + target + tcp[:16] + struct.pack("!H", total) + tcp[18:]


# --- Interfaces and the line ---------------------------------------------------------------------------


def _routes(world: World, node: str, interface: str) -> list[str]:
    """Commands that put this interface's routes back: the kernel drops them when it goes down."""
    lines = []
    for family in ("-4", "-6"):
        for line in world.sh(node, f"ip {family} route show dev {interface}").splitlines():
            if "proto kernel" not in line and "fe80" not in line:
                lines.append((family, line.replace("linkdown", "").replace("pref medium", "").strip()))
    lines.sort(key=lambda each: " via " in each[1])
    return [f"ip {family} route replace {line} dev {interface}" for family, line in lines]


def _interface_down(place: str) -> Callable[[World], Iterator[None]]:
    def act(world: World) -> Iterator[None]:
        node = world.home("a")
        interface = MAIL_INTERFACE if world.placement is Placement.HOST else place
        back = _routes(world, node, interface)
        world.sh(node, f"ip link set {interface} down")
        time.sleep(0.5)  # the fault itself: so long it is down
        world.sh(node, f"ip link set {interface} up")
        for command in back:
            world.sh(node, command)
        yield

    return act


for _interface in ("outside", "inside"):
    fault(
        f"interface-{_interface}-down",
        f"gateway a's interface {_interface} is down for half a second",
        "up, with its routes",
        seconds=3.0,
        quick=_interface == "outside",
        # The mail server itself has one interface, and that is outside.
        placements=EVERYWHERE if _interface == "outside" else BETWEEN,
    )(_interface_down(_interface))


@fault(
    "address-changed",
    "router a gets another address on the wire, and loses the one it had",
    "the old one again",
    placements=frozenset({Placement.ROUTER}),
)
def _address(world: World) -> Iterator[None]:
    changes = (
        ("198.51.100.11", "198.51.100.13", "32", "10.11.0.0/24"),
        ("2001:db8:100::11", "2001:db8:100::13", "128", "2001:db8:11::/64"),
    )

    def change(old: str, new: str, bits: str, network: str) -> None:
        world.sh("gw-a", f"ip addr add {new}/{bits} dev outside")
        world.sh("wire", f"ip route replace {new}/{bits} dev gw-a")
        world.sh("wire", f"ip route replace {network} via {new} dev gw-a")
        world.sh("gw-a", f"ip addr del {old}/{bits} dev outside")

    for old, new, bits, network in changes:
        change(old, new, bits, network)
    try:
        yield
    finally:
        for old, new, bits, network in changes:
            change(new, old, bits, network)


@fault(
    "mtu-black-hole",
    "the wire to site b takes 1,280 octets, and the ICMP errors that say so are dropped",
    "1,500 again",
    seconds=3.0,
)
def _black_hole(world: World) -> Iterator[None]:
    drops = (
        "iptables -w {} OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP",
        "ip6tables -w {} OUTPUT -p icmpv6 --icmpv6-type packet-too-big -j DROP",
    )
    for rule in drops:
        world.sh("wire", rule.format("-A"))
    world.sh("wire", "ip link set gw-b mtu 1280")
    try:
        yield
    finally:
        world.sh("wire", "ip link set gw-b mtu 1500")
        for rule in drops:
            world.sh("wire", rule.format("-D"))


@fault(
    "loss-and-reordering",
    "the wire loses 5 % of all packets and lets 5 % overtake",
    "a good line again",
    seconds=5.0,
)
def _loss(world: World) -> Iterator[None]:
    wan.set_to(world.lab.line, wan.Wan(rtt_seconds=0.002, loss=0.05, overtaken=0.05))
    try:
        yield
    finally:
        wan.set_to(world.lab.line, wan.Wan())


# --- The other side, and ourselves ---------------------------------------------------------------------


@fault(
    "far-gateway-off-and-on",
    "every process of gateway b is killed and stays away",
    "started again",
    seconds=3.0,
    breaks_tcp=ITS_SESSIONS,
    quick=True,
)
def _far_off(world: World) -> Iterator[None]:
    service = world.services.get("b")
    if service is None:
        yield
        return
    service.switch_off()
    world.clear_from = float("inf")
    try:
        yield
    finally:
        service.switch_on()
        world.clear_from = time.monotonic() + 0.5


@fault(
    "upgrade",
    "`nightmail reload` at both gateways, twice: the program is loaded anew",
    "nothing to undo",
    seconds=3.0,
    quick=True,
)
def _upgrade(world: World) -> Iterator[None]:
    for _ in range(2):
        for service in world.services.values():
            command = gateways.nightmail_command("--config", str(service.gateway.configuration), "reload")
            service.in_mounts(*command)
    yield
