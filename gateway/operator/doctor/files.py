"""Checks: permissions, disk, and the files that the gateway keeps."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import Final

from gateway.operator.doctor.configfile import setting
from gateway.operator.doctor.snapshot import Snapshot
from gateway.operator.doctor.trouble import Trouble, shell
from gateway.policy import limits

_OTHERS: Final = 0o077
_OTHERS_BUT_WORKERS_PASS: Final = 0o067
_OTHERS_BUT_WORKERS_READ: Final = 0o037
"""The daemon gives the workers' group these: the folder to pass through, the memory of peers to read."""
_MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})


def privileges(seen: Snapshot) -> Iterator[Trouble]:
    if not seen.root:
        yield Trouble(
            "this is not root: rules, identity and daemon cannot be looked at",
            "what is not looked at may be wrong",
            shell("sudo", *seen.ours("doctor")),
        )


def tools(seen: Snapshot) -> Iterator[Trouble]:
    if seen.missing_tools:
        yield Trouble(
            f"not installed: {', '.join(seen.missing_tools)}",
            "the daemon puts its rules into the kernel by them",
            "apt-get install -y iptables nftables iproute2",
        )


def state_directory(seen: Snapshot) -> Iterator[Trouble]:
    path, state, disk = seen.config.state_dir, seen.state, seen.disk
    if state.kind not in ("", "directory"):
        yield Trouble(
            f"{path}: no directory",
            "identity and memory of peers have no place",
            f"{shell('mv', path, f'{path}.aside')} && {shell('install', '-d', '-m', '700', path)}",
        )
        return
    if state.kind and state.mode & _OTHERS_BUT_WORKERS_PASS:
        yield Trouble(
            f"{path}: mode {state.mode:04o}, so others may look into it or change it",
            "the site's key and its memory of peers lie there",
            shell("chmod", "710", path),
        )
    if disk is None:
        return
    if disk.read_only:
        yield Trouble(
            f"{path}: the file system is read-only",
            "new peers are not remembered, and a rotation cannot be written: downgrades go unnoticed",
            shell("mount", "-o", "remount,rw", disk.path),
        )
    elif disk.free_octets < limits.STATE_FREE_OCTETS:
        size = (disk.used_octets + 4 * limits.STATE_FREE_OCTETS) >> 10
        larger = shell("mount", "-o", f"remount,size={size}k", disk.path)
        yield Trouble(
            f"{path}: the disk is full ({disk.free_octets >> 10} KiB are free)",
            "new peers are not remembered, and a rotation cannot be written: downgrades go unnoticed",
            larger if disk.kind in _MEMORY_FILE_SYSTEMS else "journalctl --vacuum-size=100M; apt-get clean",
        )


def identity(seen: Snapshot) -> Iterator[Trouble]:
    """One thing wrong at a time: what is behind it cannot be seen before it is mended."""
    found, path = seen.identity, seen.identity.file.path
    if found.of_another_machine:
        yield Trouble(
            f"{path}: this identity was made on another machine",
            "the next start sets it aside and makes a new one, and other sites ring; so take it on purpose,"
            " if this is the same site",
            shell(*seen.ours("identity", "import", "--replace"), path),
        )
    if not found.unreadable or not found.file.kind:
        return
    if found.file.kind == "file" and found.file.mode & _OTHERS:
        yield Trouble(
            f"{path}: mode {found.file.mode:04o}, so others may have read the site's key",
            "the daemon does not start with it; if somebody may have read it, rotate it too",
            shell("chmod", "600", path),
        )
    elif found.file.kind == "file" and found.file.owner not in (os.geteuid(), found.file.parents_owner):
        yield Trouble(
            f"{path}: it belongs to user {found.file.owner}",
            "a key that somebody else owns may have been copied; the daemon does not start with it",
            shell("chown", f"--reference={path.parent}", path),
        )
    else:
        yield Trouble(
            f"{path}: {found.unreadable.removeprefix(f'{path}: ')}",
            "the daemon does not start with it. Restore it from a backup, or an export (`nightmail identity"
            " import`); without either, set it aside: the site gets a new name, and other sites ring",
            shell("mv", path, f"{path}.damaged"),
        )


def memory(seen: Snapshot) -> Iterator[Trouble]:
    found, path = seen.memory, seen.memory.file.path
    if found.unreadable:
        yield Trouble(
            f"{path}: {found.unreadable.removeprefix(f'{path}: ')}",
            "peers are not recognised: mail is encrypted, but downgrades go unnoticed. If there is no backup,"
            " set it aside: the daemon begins a new one",
            shell("mv", path, f"{path}.unreadable"),
        )
    elif found.file.kind == "file" and found.file.mode & _OTHERS_BUT_WORKERS_READ:
        yield Trouble(
            f"{path}: mode {found.file.mode:04o}, so others may read or change what is remembered of peers",
            "it says who writes to whom, and decides whether a changed key rings",
            shell("chmod", "640", path),
        )
    if found.set_aside:
        names = ", ".join(one.name for one in found.set_aside)
        folder = path.parent / "set-aside"
        pattern = f"{shlex.quote(str(path))}.corrupt-*"
        yield Trouble(
            f"the memory of peers was damaged, and set aside: {names}",
            "all peers were met anew since. Restore a backup, or have the damaged file out of the way",
            f"{shell('mkdir', '-p', '-m', '700', folder)} && mv {pattern} {shell(folder)}",
        )


def log_file(seen: Snapshot) -> Iterator[Trouble]:
    path = seen.config.log_file
    if path is None or not seen.log_trouble:
        return
    if not path.parent.is_dir():
        mend = shell("install", "-d", "-m", "750", path.parent)
    elif seen.log_trouble.endswith("no regular file"):
        mend = shell("mv", path, f"{path}.aside")
    else:
        # Root is stopped by a read-only file system only.
        mend = setting(seen, "log.file", '""')
    yield Trouble(f"log.file: {seen.log_trouble}", "the daemon does not start, or says nothing", mend)


def alarm_programs(seen: Snapshot) -> Iterator[Trouble]:
    """Before the first alarm: when it rings, who should look is not told."""
    if seen.alarms_unheard:
        key, _, rest = seen.alarms_unheard.partition(": ")
        yield Trouble(
            seen.alarms_unheard,
            "an alarm stands in the log and in `status` alone, and nobody is told",
            f"# put {rest.removesuffix(' is no program here')} there (mode 755), or change {key}",
        )
