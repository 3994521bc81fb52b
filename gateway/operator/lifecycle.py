"""Up, down, and what either would change: the operator's hand on the machine.

What the operator wants is written down first and done second, so that a running daemon, which puts back rules
that others removed, and the next boot both know. Counterparts: `intercept.kernel` does the work on the rules,
`service` that on systemd's service, `intercept.wanted` keeps the word, `runtime.supervisor` obeys it.
"""

from __future__ import annotations

import contextlib
import pwd
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from gateway.config import Config, FoundInterface, with_interfaces
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel, ruleset
from gateway.intercept.wanted import (
    ENABLED,
    STARTED,
    Wanted,
    Word,
    read_word,
    record_octets,
    record_word,
)
from gateway.operator import service as systemd
from gateway.operator.service import Service
from gateway.operator.status import ask, is_running
from gateway.policy import limits
from gateway.runtime.confinements import SIGNER

_DAEMON_CHECKS: Final = 8
"""So many of its looks at the rules a running daemon is given to put them in."""
_LOOPBACK: Final = "lo"
_MAIN_TABLE: Final = 254  # <linux/rtnetlink.h>
_IFF_UP: Final = 1  # <linux/if.h>
_AF_INET, _AF_INET6 = 2, 10
STAYS: Final = "(stays)"
"""Behind a line of a plan: `down` leaves this where it is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One line for each thing that `up` would change; `remarks`: what stands in mail's way."""

    rules: list[str] = field(default_factory=list)
    """Rules, routes, interfaces and switches of the kernel."""
    files: list[str] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def changes(self) -> list[str]:
        return [*self.rules, *self.files, *self.services]


def discover() -> list[FoundInterface]:
    """The interfaces of this machine. Raises EnvironmentFailureError."""
    found: list[FoundInterface] = kernel.with_routes(_found_interfaces)
    return found


def resolved(config: Config) -> Config:
    """`config` with both sides named. Raises ConfigurationError where they cannot be told."""
    named = with_interfaces(config, discover())
    return replace(named, unfiltered=kernel.unfiltered(named))


# --- Plan --------------------------------------------------------------------------------------------


def plan(config: Config, service: Service | None = None, *, until_reboot: bool = False) -> Plan:
    """What `up` would change now; changes nothing. Takes a resolved configuration.

    `service`: the one that runs by this configuration, where there is one.
    """
    rules = ruleset.render(config, ruleset.slots_to_render(config, ()))
    starts, enables = _to_do(config, service, until_reboot)
    return Plan(
        kernel.plan(config, rules, _queues_of_daemon(config) or _queues(config)),
        [*_word_files(config, until_reboot), *(_daemon_files(config) if starts else ())],
        [f"{word:8}service {systemd.UNIT}" for word, so in (("start", starts), ("enable", enables)) if so],
        [*kernel.remarks(config), *kernel.notes(), *_users(config)],
    )


def _to_do(config: Config, service: Service | None, until_reboot: bool) -> tuple[bool, bool]:
    """Whether the service is to be started, and enabled. A daemon that somebody else runs is theirs."""
    if service is None or (not service.is_active and is_running(config.control_socket)):
        return False, False
    return not service.is_active, not (service.is_enabled or until_reboot)


def _users(config: Config) -> Iterator[str]:
    """The package makes them; `up` makes none."""
    for number, name in enumerate((config.user, config.user + SIGNER)):
        try:
            pwd.getpwnam(name)
        except KeyError:
            yield f"there is no user {name}; the process takes the number {limits.SPARE_USER + number}"


def _word_files(config: Config, until_reboot: bool) -> list[str]:
    lines = [f"add     folder {folder} {STAYS}" for folder in reversed(_missing_folders(config))]
    word = _said(config)
    if not config.wanted_file.exists() or _up_word(word, until_reboot) != word:
        told = "up, until the next boot" if until_reboot else "up"
        lines.append(f"write   file {config.wanted_file}: {told} {STAYS}")
    return lines


def _daemon_files(config: Config) -> list[str]:
    """What a daemon makes at its start; its sockets go when it ends."""
    memory = config.pins_file
    locks = [path.with_name(f"{path.name}.lock") for path in (config.identity_file, memory)]
    kept = [config.identity_file, memory, *locks, *([config.log_file] if config.log_file else [])]
    besides = [memory.with_name(memory.name + ending) for ending in ("-wal", "-shm")]
    sockets = [config.control_socket]
    if isinstance(config.metrics_listen, Path):
        sockets.append(config.metrics_listen)
    return [
        *(f"add     file {path} {STAYS}" for path in kept if not path.exists()),
        *(f"add     file {path}" for path in besides if not path.exists()),
        *([] if config.run_dir.exists() else [f"add     folder {config.run_dir}"]),
        *(f"add     socket {path}" for path in sockets),
    ]


# --- Up and down -------------------------------------------------------------------------------------


def up(
    config: Config,
    service: Service | None = None,
    *,
    until_reboot: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Put the rules in and keep them; answers one line for the operator. Takes a resolved configuration.

    Whole or not at all: what fails or is interrupted (SIGINT) in between leaves things as they were. Raises
    EnvironmentFailureError.
    """
    try:
        with contextlib.ExitStack() as undo:
            told = _up(config, service, until_reboot, pause, undo)
            undo.pop_all()
    except KeyboardInterrupt:
        raise EnvironmentFailureError("interrupted; everything is as it was before") from None
    return f"{told}; after the next boot it is as it was before" if until_reboot else told


def _up(
    config: Config,
    service: Service | None,
    until_reboot: bool,
    pause: Callable[[float], None],
    undo: contextlib.ExitStack,
) -> str:
    stood = bool(kernel.gate_counts())
    starts, enables = _to_do(config, service, until_reboot)
    word = _up_word(_said(config), until_reboot)
    undo.callback(_give_back, config, _octets(config.wanted_file), _missing_folders(config))
    done = [name for name, so in ((STARTED, starts), (ENABLED, enables)) if so]
    record_word(config.wanted_file, replace(word, service=tuple(dict.fromkeys([*word.service, *done]))))
    if not stood:
        undo.callback(_take_out, config)
    if starts:
        undo.callback(_quietly, systemd.take_back, STARTED)
        systemd.start()
    if starts or is_running(config.control_socket):
        told = _await_rules(pause)
    else:
        # Nobody listens on the queues, and --queue-bypass lets mail pass as if there were no rule.
        rules = ruleset.render(config, ruleset.slots_to_render(config, ()))
        kernel.KernelRules(config).apply(rules, _queues(config))
        told = "rules are in place; no daemon is running, so mail passes in clear until one is"
    if enables:
        undo.callback(_quietly, systemd.take_back, ENABLED)
        systemd.enable()
    return told


def _await_rules(pause: Callable[[float], None]) -> str:
    for _ in range(_DAEMON_CHECKS):
        if kernel.gate_counts():
            return "rules are in place, and the daemon keeps them"
        pause(limits.RULES_CHECK_SECONDS)
    raise EnvironmentFailureError("the daemon has not put the rules in place; its log says why")


def down(config: Config, *, until_reboot: bool = False, pause: Callable[[float], None] = time.sleep) -> str:
    """Take the rules out and leave them out; answers one line for the operator.

    A service that `up` has started or enabled is stopped or disabled, unless the next boot is to find it.
    """
    word = _said(config)
    if until_reboot:
        record_word(config.wanted_file, replace(word, this_boot=Wanted.DOWN))
    else:
        # What `up` did to the service is forgotten only when it is taken back.
        record_word(config.wanted_file, Word(Wanted.DOWN, service=word.service))
    rules = kernel.KernelRules(config)
    if is_running(config.control_socket):
        # The daemon takes them out at the same moment: one of the two may find gone what it has just seen.
        with contextlib.suppress(EnvironmentFailureError):
            rules.remove()
        # A repair that had begun before the word was written may still have put them back.
        pause(2 * limits.RULES_CHECK_SECONDS)
    rules.remove()
    if until_reboot:
        return "rules are out until the next boot, or `nightmail up`; mail passes in clear"
    for done in reversed(word.service):
        systemd.take_back(done)
    if word.service:
        record_word(config.wanted_file, Word(Wanted.DOWN))
    return "rules are out and stay out; mail passes in clear until `nightmail up`"


# --- The word ----------------------------------------------------------------------------------------


def _said(config: Config) -> Word:
    try:
        return read_word(config.wanted_file)
    except EnvironmentFailureError:
        return Word()


def _up_word(word: Word, until_reboot: bool) -> Word:
    if until_reboot:
        return replace(word, this_boot=Wanted.UP)
    return Word(Wanted.UP, service=word.service)


def _octets(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _missing_folders(config: Config) -> list[Path]:
    """Those that are made with the word, the innermost first."""
    here = config.state_dir
    return [folder for folder in (here, *here.parents) if not folder.exists()]


# --- The way back ------------------------------------------------------------------------------------
# As far as it goes: what has made `up` fail may be in the way of this, too. Left-over rules do no harm.


def _quietly(work: Callable[..., None], *arguments: object) -> None:
    with contextlib.suppress(EnvironmentFailureError):
        work(*arguments)


def _give_back(config: Config, octets: bytes | None, folders: list[Path]) -> None:
    if octets is not None:
        _quietly(record_octets, config.wanted_file, octets)
        return
    with contextlib.suppress(OSError):
        config.wanted_file.unlink(missing_ok=True)
        # One that holds an identity by now stays.
        for folder in folders:
            folder.rmdir()


def _take_out(config: Config) -> None:
    """Rules that stood before `up` are left to serve: taking them out would be no undoing."""
    _quietly(kernel.KernelRules(config).remove)


def _queues_of_daemon(config: Config) -> list[int]:
    """Those that a running daemon sends SYNs to, or will; empty where there is none, or none that answers."""
    with contextlib.suppress(EnvironmentFailureError, KeyError):
        answer = ask(config.control_socket)
        if answer is not None:
            workers = answer["workers"]
            newest = max((worker["generation"] for worker in workers), default=0)
            queues: list[int] = answer["rules"]["queues"]
            return queues or [one["queue"] for one in workers if one["generation"] == newest]
    return []


def _queues(config: Config) -> list[int]:
    return [slot.queue for slot in ruleset.slots_of(config)]


# --- Interfaces --------------------------------------------------------------------------------------


def _found_interfaces(ip: Any) -> list[FoundInterface]:
    ways_out = {
        hop
        for family in (_AF_INET, _AF_INET6)
        for route in ip.get_routes(family=family, table=_MAIN_TABLE)
        if route["dst_len"] == 0
        for hop in _outgoing(route)
    }
    return [
        FoundInterface(link.get_attr("IFLA_IFNAME"), link["index"] in ways_out, bool(link["flags"] & _IFF_UP))
        for link in ip.get_links()
        if link.get_attr("IFLA_IFNAME") != _LOOPBACK
    ]


def _outgoing(route: Any) -> list[int]:
    hops = route.get_attr("RTA_MULTIPATH") or []
    return [index for index in (route.get_attr("RTA_OIF"), *(hop["oif"] for hop in hops)) if index]
