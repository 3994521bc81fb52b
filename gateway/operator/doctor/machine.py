"""Reads the machine into a `Snapshot`; changes nothing

Beside `network` and `filters` the only file of the doctor that asks kernel, disk and daemon. What cannot be
read stays at its default, so that one closed door does not hide all other rooms.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway import __version__
from gateway.config import Config, Placement
from gateway.config_text import ConfigurationError
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel, ruleset
from gateway.intercept.kernel import nft
from gateway.intercept.objects import NftTable
from gateway.intercept.wanted import Word, read_word
from gateway.operator import lifecycle
from gateway.operator import status as asking
from gateway.operator.doctor import filters, network
from gateway.operator.doctor.snapshot import (
    Clock,
    Daemon,
    Disk,
    File,
    Identity,
    Memory,
    Snapshot,
)
from gateway.operator.needs import alarms_unheard, missing_tools, room
from gateway.peers.store import PinStore
from gateway.policy import limits
from gateway.runtime import identity_file
from gateway.runtime.machine import this_machine
from gateway.runtime.supervisor import sole

_SYSCTLS: Final = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/lo/disable_ipv6",
    "net/ipv4/conf/all/rp_filter",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
)
_OF_AN_INTERFACE: Final = (
    "net/ipv4/conf/{}/forwarding",
    "net/ipv4/conf/{}/rp_filter",
    "net/ipv6/conf/{}/forwarding",
    "net/ipv6/conf/{}/disable_ipv6",
)
_WORKER: Final = "gateway.runtime.worker"
_STA_UNSYNC: Final = 0x0040  # <linux/timex.h>
_UCRED: Final = struct.Struct("3i")


def snapshot(config: Config, path: Path, *, is_default: bool) -> Snapshot:
    """`config` as the file says it, before the sides are found."""
    resolved, unknown = _resolved(config)
    daemon = _daemon(resolved)
    word, wanted_unreadable = _word(resolved)
    no_bridge = "" if unknown else _bridge_refusal(resolved)
    missing, refused = ("", "") if unknown or no_bridge or os.geteuid() else _rules(resolved, daemon)
    seen = Snapshot(
        config=resolved,
        config_path=path,
        config_text=_text(path),
        config_is_default=is_default,
        interfaces_unknown=unknown,
        root=os.geteuid() == 0,
        systemd=Path("/run/systemd/system").is_dir(),
        missing_tools=tuple(missing_tools()),
        missing_rules=tuple(missing) if missing else (),
        rules_refused=refused,
        absent_sets=tuple(one for one in resolved.never_ipsets if kernel.lacks_ipset(one.name)),
        bridge_refused=no_bridge,
        version=__version__,
        remarks=_remarks(resolved),
        wanted=word.counts.value,
        wanted_until_reboot=word.ends_with_boot,
        wanted_unreadable=wanted_unreadable,
        daemon=daemon,
        identity=_identity(resolved.identity_file),
        memory=_memory(resolved.pins_file),
        state=file(resolved.state_dir),
        disk=_disk(resolved.state_dir),
        log_trouble=_log_trouble(resolved.log_file),
        alarms_unheard=alarms_unheard(resolved),
        clock=_clock(resolved),
        ports_taken=() if daemon.pid else _ports_taken(resolved),
        queues_taken=() if daemon.pid else _queues_taken(resolved),
        orphans=() if daemon.pid else tuple(_orphans()),
    )
    seen = filters.seen_with(seen)
    with contextlib.suppress(EnvironmentFailureError):
        seen = kernel.with_routes(lambda ip: network.seen_with(seen, ip))
    return replace(seen, sysctls=_sysctls(seen))


def _resolved(config: Config) -> tuple[Config, str]:
    """With the interfaces of this machine, or as it is and why they are not known."""
    with contextlib.suppress(EnvironmentFailureError):
        try:
            return lifecycle.resolved(config), ""
        except ConfigurationError as error:
            return config, str(error)
    return config, ""


# --- Switches of the kernel ---------------------------------------------------------------------------


def _sysctls(seen: Snapshot) -> dict[str, str]:
    names = [*_SYSCTLS, *(name.format(side) for side in seen.sides for name in _OF_AN_INTERFACE)]
    found = ((name, _text(Path("/proc/sys", name)).strip()) for name in names)
    return {name: value for name, value in found if value}


# --- Rules -------------------------------------------------------------------------------------------


def _rules(config: Config, daemon: Daemon) -> tuple[list[str], str]:
    """What of ours does not stand, and what the kernel has against it."""
    rules = ruleset.render(config, ruleset.slots_of(config))
    standing = (daemon.status or {}).get("rules", {})
    try:
        changes = kernel.plan(config, rules, standing.get("queues", []))
        missing = [change.removeprefix("add").strip() for change in changes if change.startswith("add ")]
        # The daemon knows what its nft table should hold.
        missing += [line for line in standing.get("missing", []) if line not in missing]
        refusals = map(nft.complaint, rules.of(NftTable)) if missing else iter(())
        return missing, next((one for one in refusals if one), "")
    except EnvironmentFailureError as error:
        return [], str(error)


def _bridge_refusal(config: Config) -> str:
    try:
        return kernel.bridge_refusal(config)
    except EnvironmentFailureError as error:
        return str(error)


def _remarks(config: Config) -> tuple[str, ...]:
    if config.placement is not Placement.BRIDGE:
        return ()
    try:
        # That is another check's trouble: a bridge is to be had all the same.
        return tuple(remark for remark in kernel.remarks(config) if remark != kernel.OFF_ON_LOOPBACK)
    except EnvironmentFailureError as error:
        return (str(error),)


def _ports_taken(config: Config) -> tuple[int, ...]:
    """None where the workers find room beside them."""
    slots, taken = room(config)
    return () if slots else taken


def _queues_taken(config: Config) -> tuple[int, ...]:
    """Of those that the workers would have."""
    ours = {slot.queue for slot in room(config)[0] or ruleset.slots_of(config)}
    lines = _text(Path("/proc/thread-self/net/netfilter/nfnetlink_queue")).splitlines()
    return tuple(number for line in lines if (number := int(line.split()[0])) in ours)


# --- The daemon --------------------------------------------------------------------------------------


def _daemon(config: Config) -> Daemon:
    pid = _listener(config.control_socket)
    if pid is None:
        return Daemon(sole.holder_without(config.control_socket) or None, unheard=True)
    try:
        status = asking.ask(config.control_socket)
    except EnvironmentFailureError:
        status = None
    workers = [*((status or {}).get("workers") or []), (status or {}).get("signer") or {}]
    pids = [pid, *(worker["pid"] for worker in workers if worker.get("pid"))]
    return Daemon(pid, status, {one: _state(one) for one in pids})


def _orphans() -> Iterator[int]:
    """Workers in this network namespace whose daemon has died: others have taken them up."""
    here = Path("/proc/thread-self/ns/net").stat().st_ino
    for entry in _listing(Path("/proc")):
        if not entry.name.isdecimal() or _WORKER not in _text(entry / "cmdline").split("\0"):
            continue
        with contextlib.suppress(OSError, IndexError):  # it may end meanwhile
            parent = _text(entry / "stat").rpartition(")")[2].split()[1]
            # A daemon is the same program as its workers; who takes up orphans is not.
            theirs = (Path("/proc") / parent / "exe").resolve() == (entry / "exe").resolve()
            if (entry / "ns/net").stat().st_ino == here and not theirs:
                yield int(entry.name)


def _listener(control: Path) -> int | None:
    """Who listens on the control socket: the kernel knows, also where nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            trial.settimeout(limits.CONTROL_SECONDS)
            trial.connect(str(control))
            credentials = trial.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:
        return None
    return int(_UCRED.unpack(credentials)[0]) or None


def _state(pid: int) -> str:
    """The letter behind the name, in which a bracket may stand."""
    return _text(Path("/proc", str(pid), "stat")).rpartition(")")[2].strip()[:1]


# --- Files, disk, clock ------------------------------------------------------------------------------


def file(path: Path) -> File:
    """What stands there, links not followed."""
    try:
        found = path.lstat()
        parents_owner = path.parent.stat().st_uid
    except OSError:
        return File(path)
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link"))
    kind = next((name for is_kind, name in kinds if is_kind(found.st_mode)), "other")
    return File(path, kind, stat.S_IMODE(found.st_mode), found.st_uid, parents_owner)


def _identity(path: Path) -> Identity:
    try:
        kept = identity_file.load(path)
    except EnvironmentFailureError as error:
        return Identity(file(path), unreadable=str(error))
    if kept is None:
        return Identity(file(path))
    return Identity(file(path), born=kept.site.since, of_another_machine=kept.is_of_another(this_machine()))


def _memory(path: Path) -> Memory:
    aside = tuple(
        sorted(one for one in _listing(path.parent) if one.name.startswith(f"{path.name}.corrupt-"))
    )
    aside = tuple(one for one in aside if not one.name.endswith(("-wal", "-shm")))
    unreadable = ""
    if file(path).kind:
        try:
            with PinStore.read_only(path) as store:
                store.pins()
        except EnvironmentFailureError as error:
            unreadable = str(error)
    return Memory(file(path), unreadable, aside)


def _listing(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _word(config: Config) -> tuple[Word, str]:
    try:
        return read_word(config.wanted_file), ""
    except EnvironmentFailureError as error:
        return Word(), str(error)


def _disk(folder: Path) -> Disk | None:
    here = next((one for one in (folder, *folder.parents) if os.access(one, os.F_OK)), None)
    if here is None:
        return None
    try:
        found = os.statvfs(here)
    except OSError:
        return None
    read_only = bool(found.f_flag & os.ST_RDONLY)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    return Disk(here, found.f_bavail * found.f_frsize, used, read_only, _file_system(here))


def _file_system(path: Path) -> str:
    """Its kind, from the mount that lies deepest."""
    best, kind = -1, ""
    for line in _text(Path("/proc/self/mountinfo")).splitlines():
        words, _, more = line.partition(" - ")
        point = Path(words.split()[4])
        # The last one wins: what is mounted later lies on top.
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), more.split()[0]
    return kind


def _log_trouble(path: Path | None) -> str:
    """Why the daemon could not write there; empty where it can."""
    if path is None:
        return ""
    if not path.parent.is_dir():
        return f"{path.parent}: no such directory"
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return f"{path}: no regular file"
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return f"{path}: cannot be written"
    return ""


def _clock(config: Config) -> Clock:
    newest, newest_at = "", 0.0
    for path in (Path(__file__), *_listing(config.state_dir)):
        with contextlib.suppress(OSError):
            at = path.stat().st_mtime
            newest, newest_at = (str(path), at) if at > newest_at else (newest, newest_at)
    return Clock(time.time(), _is_synchronised(), newest, newest_at)


def _is_synchronised() -> bool:
    """As far as the kernel knows: adjtimex(2), which with no mode set only tells."""
    words = (ctypes.c_long * 64)()  # struct timex is 208 octets
    try:
        ctypes.CDLL(None).adjtimex(words)
    except (OSError, AttributeError):
        return True
    # modes, (padding,) offset, freq, maxerror, esterror, status: each in a word of its own.
    return not (ctypes.c_int.from_buffer(words, 5 * ctypes.sizeof(ctypes.c_long)).value & _STA_UNSYNC)


# --- Tools -------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
