"""Checks: the daemon, its workers, what the operator wants of them, and the clock they go by."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from gateway.config import Placement
from gateway.operator.doctor.configfile import setting
from gateway.operator.doctor.snapshot import Snapshot
from gateway.operator.doctor.trouble import Trouble, shell
from gateway.policy import limits

_STOPPED: Final = "T"
_LET_RUN: Final = "somebody has stopped it (SIGSTOP)"
_NO_ROOM: Final = "beside that there is no room for any worker, and the daemon does not start"
_NO_QUEUE: Final = "a worker does not start without it"


def wanted_up(seen: Snapshot) -> Iterator[Trouble]:
    if seen.wanted_unreadable:
        yield Trouble(
            seen.wanted_unreadable.partition(";")[0],
            "the daemon does not know whether the rules are wanted",
            shell(*seen.ours("up")),
        )
    elif seen.wanted != "up":
        yield Trouble(
            "the rules were taken down by `nightmail down`, and stay down"
            + (" until the next boot" if seen.wanted_until_reboot else ""),
            "mail passes in clear, as the operator has asked for",
            shell(*seen.ours("up")),
        )


def ports_free(seen: Snapshot) -> Iterator[Trouble]:
    """While no daemon of ours runs: what it will need."""
    if seen.orphans:
        return  # it is they; `daemon_runs` tells
    for key, names, taken, first, why in (
        ("kernel.first_listen_port", "port", seen.ports_taken, seen.config.first_listen_port, _NO_ROOM),
        ("kernel.first_queue", "packet queue", seen.queues_taken, seen.config.first_queue, _NO_QUEUE),
    ):
        if taken:
            row = first + limits.NUMBERS_IN_A_ROW
            other = row if row + limits.NUMBERS_IN_A_ROW <= 65536 else first - limits.NUMBERS_IN_A_ROW
            yield Trouble(
                f"{key}: another program has {names} {', '.join(map(str, taken))}",
                why,
                setting(seen, key, str(other)),
            )


def daemon_runs(seen: Snapshot) -> Iterator[Trouble]:
    pid = seen.daemon.pid
    if pid is None and seen.orphans:
        words = ", ".join(map(str, seen.orphans))
        yield Trouble(
            f"no daemon is running, and workers of one that has died ({words}) finish their sessions",
            "new connections pass in clear; these end with their last session, and a new daemon starts beside"
            " them",
            _start(seen),
        )
    elif pid is None:
        yield Trouble(
            "no daemon is running",
            "connections pass by the gateway: mail passes in clear",
            # Not only for now: one that nobody has enabled would be gone with the next boot.
            shell(*seen.ours("up")) if seen.systemd else _start(seen),
        )
    elif seen.daemon.unheard:
        yield Trouble(
            f"the daemon's (process {pid}) socket {seen.config.control_socket} was removed",
            "mail goes on, but nobody can ask how, or reload",
            _start(seen) if seen.systemd else f"{shell('kill', pid)}; sleep 1; {_start(seen)}",
        )
    elif not seen.runs:
        stopped = seen.daemon.states.get(pid) == _STOPPED
        yield Trouble(
            f"the daemon (process {pid}) does not answer{f': {_LET_RUN}' if stopped else ''}",
            "nobody watches workers and rules: what falls now stays down",
            shell("kill", "-CONT", pid)
            if stopped
            else f"{shell('kill', '-KILL', pid)}; sleep 1; {_start(seen)}",
        )


def _start(seen: Snapshot) -> str:
    if seen.systemd:
        return "systemctl restart nightmail"
    return f"setsid -f {shell(*seen.ours('run'))} </dev/null >/dev/null 2>&1"


def workers_serve(seen: Snapshot) -> Iterator[Trouble]:
    workers = (seen.daemon.status or {}).get("workers") or []
    newest = max((worker.get("generation", 0) for worker in workers), default=0)
    for worker in workers:
        state, pid, slot = worker.get("state"), worker.get("pid"), worker.get("slot")
        stopped = seen.daemon.states.get(pid) == _STOPPED
        if pid and (state == "hung" or stopped):
            yield Trouble(
                f"worker {slot} (process {pid}) hangs{f': {_LET_RUN}' if stopped else ''}",
                "its share of the mail passes in clear, and its sessions stand still",
                shell("kill", "-CONT" if stopped else "-KILL", pid),
            )
        elif state == "dead" and worker.get("generation", 0) == newest:
            yield Trouble(
                f"worker {slot} does not stay up ({worker.get('restarts', 0)} restarts)",
                "its share of the mail passes in clear; the log says why it ended",
                "systemctl restart nightmail" if seen.systemd else shell(*seen.ours("reload")),
            )


def signer_serves(seen: Snapshot) -> Iterator[Trouble]:
    """The process that holds the identity: without it nothing is offered to senders."""
    signer = (seen.daemon.status or {}).get("signer")
    if not signer:
        return
    pid, why = signer.get("pid"), "mail that comes in is offered no encryption, and passes in clear"
    if not pid:
        yield Trouble(
            f"the process that holds the identity does not stay up ({signer.get('restarts', 0)} restarts)",
            why,
            "systemctl restart nightmail" if seen.systemd else shell(*seen.ours("reload")),
        )
        return
    stopped = seen.daemon.states.get(pid) == _STOPPED
    if stopped or signer.get("hangs"):
        yield Trouble(
            f"the process that holds the identity ({pid}) hangs{f': {_LET_RUN}' if stopped else ''}",
            why,
            shell("kill", "-CONT" if stopped else "-KILL", pid),
        )


def inside_known(seen: Snapshot) -> Iterator[Trouble]:
    networks = (seen.daemon.status or {}).get("inside_networks")
    if seen.config.placement is Placement.HOST:
        if networks == []:
            yield Trouble(
                "this machine has no address but those of lo",
                "no mail is known to be its own: what comes, and what it sends, passes in clear",
                "ip -brief address  # and see why its interfaces have none",
            )
    elif seen.config.inside and (networks == [] or (networks and not _leads_inside(seen))):
        yield Trouble(
            f"no network is known to lie inside: {', '.join(seen.config.inside)} has no address and no route",
            "mail that comes in is not recognised as such, and passes in clear",
            f"# give {seen.config.inside[0]} its address, or set interfaces.inside_networks",
        )


def _leads_inside(seen: Snapshot) -> bool:
    """Any route now: the daemon keeps a network whose routes have gone, which come back after most faults."""
    inside = set(seen.config.inside)
    return any(inside & set(one.interfaces) and not one.destination.is_link_local for one in seen.routes)


def same_version(seen: Snapshot) -> Iterator[Trouble]:
    runs = (seen.daemon.status or {}).get("version")
    if runs and seen.version and runs != seen.version:
        yield Trouble(
            f"the daemon runs version {runs}, and {seen.version} is installed",
            "what the newer one mends is not mended yet",
            shell(*seen.ours("reload")),
        )


# --- Time --------------------------------------------------------------------------------------------


def clock_right(seen: Snapshot) -> Iterator[Trouble]:
    """Far behind: before what was certainly made earlier than now."""
    clock, born = seen.clock, seen.identity.born
    for what, at in (
        ("the site's identity was made", born),
        (f"{clock.newest} was written", clock.newest_at),
    ):
        if at > clock.now + limits.CLOCK_BEHIND_SECONDS:
            yield Trouble(
                f"the clock is wrong: it says {_when(clock.now)}, and {what} at {_when(at)}",
                "keys are used by days: peers see an old one and ring, and endorsements are refused",
                "timedatectl set-ntp true" if seen.systemd else "chronyd -q 'pool pool.ntp.org iburst'",
            )
            return


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
