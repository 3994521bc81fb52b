"""Up and down: the operator's hand on the machine.

What the operator wants is written down first and done second, so that a running daemon, which puts back rules
that others removed, and the next boot both know. Counterparts: `intercept.kernel` does the work on the rules,
`service` that on systemd's service, `intercept.wanted` keeps the word, `runtime.supervisor` obeys it;
`planning` tells all of it before.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gateway.config import Config, FoundInterface, with_interfaces
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel, rules_lock, ruleset
from gateway.intercept.wanted import (
    ENABLED,
    STARTED,
    Wanted,
    Word,
    read_word,
    record_octets,
    record_word,
)
from gateway.operator import obeying, orphans, turn
from gateway.operator import service as systemd
from gateway.operator.service import Service
from gateway.operator.status import ask, is_running
from gateway.policy import limits
from gateway.runtime.supervisor import sole

_LOOPBACK: Final = "lo"
_MAIN_TABLE: Final = 254  # <linux/rtnetlink.h>
_IFF_UP: Final = 1  # <linux/if.h>
_AF_INET, _AF_INET6 = 2, 10
_OTHERS: Final = "another daemon keeps the rules of this network namespace ({}),"
_BY_ITS: Final = "say it with its configuration (`nightmail --config FILE`)"
_INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def discover() -> list[FoundInterface]:
    """The interfaces of this machine. Raises EnvironmentFailureError."""
    found: list[FoundInterface] = kernel.with_routes(_found_interfaces)
    return found


def resolved(config: Config) -> Config:
    """`config` with both sides named. Raises ConfigurationError where they cannot be told."""
    named = with_interfaces(config, discover())
    return kernel.as_found(named)


# --- Up and down -------------------------------------------------------------------------------------


def to_do(config: Config, service: Service | None, until_reboot: bool) -> tuple[bool, bool]:
    """Whether the service is to be started, and enabled. A daemon that somebody else runs is theirs."""
    if service is None:
        return False, False
    if not (service.is_active or service.is_ending) and is_running(config.control_socket):
        return False, False
    return not service.is_active, not (service.is_enabled or until_reboot)


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
    folders, undo = missing_folders(config), _Undo()
    try:
        with turn.taken(config, pause), _way_back(undo):
            undo.by(_give_back, config, _octets(config.wanted_file), folders)
            told = _up(config, service, until_reboot, pause, folders, undo)
    except KeyboardInterrupt:
        left = undo.left() or "everything is as it was before"
        raise EnvironmentFailureError(f"interrupted; {left}") from None
    except EnvironmentFailureError as error:
        if left := undo.left(besides=str(error)):
            raise EnvironmentFailureError(f"{error}; {left}") from None
        raise
    return f"{told}; after the next boot it is as it was before" if until_reboot else told


def _up(
    config: Config,
    service: Service | None,
    until_reboot: bool,
    pause: Callable[[float], None],
    folders: list[Path],
    undo: _Undo,
) -> str:
    stood = bool(kernel.gate_counts())
    before = _octets(config.wanted_file)
    starts, enables = to_do(config, service, until_reboot)
    if not starts and not is_running(config.control_socket):
        _require_no_other(config)
    if not stood and (refusal := kernel.table_refusal(config)):
        raise EnvironmentFailureError(refusal)
    word = up_word(said(config), until_reboot)
    done = [name for name, so in ((STARTED, starts), (ENABLED, enables)) if so]
    record_word(config.wanted_file, replace(word, service=tuple(dict.fromkeys([*word.service, *done]))))
    if not stood:
        undo.callback(_take_out, config, before, folders, undo)
    if starts:
        _require_bridge(config)
        undo.by(systemd.take_back, STARTED)
        systemd.start()
    if not starts and _put_in(config):
        told = (
            "rules are in place; no daemon is running, so mail passes in clear until one is (`nightmail run`)"
        )
    else:
        told = _await_rules(pause)
    if enables:
        undo.by(systemd.take_back, ENABLED)
        systemd.enable()
    return told


def _require_no_other(config: Config) -> None:
    """It would take out the rules of this configuration, and these its own."""
    if other := sole.another(config.control_socket):
        raise EnvironmentFailureError(f"{_OTHERS.format(other)} not by this configuration: {_BY_ITS}")


def _put_in(config: Config) -> bool:
    """False where a daemon runs, which does it itself.

    Nobody listens on the queues, and --queue-bypass lets mail pass as if there were no rule.
    """
    with _hand(config):
        if is_running(config.control_socket):
            return False
        rules = ruleset.render(config, ruleset.slots_to_render(config, ()))
        kernel.KernelRules(config).apply(rules, queues(config))
        return True


def _require_bridge(config: Config) -> None:
    """A daemon that is refused its bridge ends, and systemd has no word of why."""
    if refusal := kernel.bridge_refusal(config):
        raise EnvironmentFailureError(refusal)


def _await_rules(pause: Callable[[float], None]) -> str:
    for _ in range(_looks(limits.RULES_CHECKS_AWAITED)):
        if kernel.gate_counts():
            return "rules are in place, and the daemon keeps them"
        pause(limits.RULES_ASKED_SECONDS)
    raise EnvironmentFailureError("the daemon has not put the rules in place; its log says why")


def down(config: Config, *, until_reboot: bool = False, pause: Callable[[float], None] = time.sleep) -> str:
    """Take the rules out and leave them out; answers one line for the operator.

    A service that `up` has started or enabled is stopped or disabled before, unless the next boot is to find
    it; any other daemon goes on. Either lets its sessions end first, and resets those that do not. Who
    interrupts it (SIGINT) waits for no session any longer; the rules go all the same. Raises
    EnvironmentFailureError where service or rules fail; the other half is done all the same.
    """
    with turn.taken(config, pause):
        return _down(config, until_reboot, pause)


def _down(config: Config, until_reboot: bool, pause: Callable[[float], None]) -> str:
    word = said(config)
    done = () if until_reboot else word.service
    lasting, here = (word.lasting, Wanted.DOWN) if until_reboot else (Wanted.DOWN, None)
    # What `up` did to the service is forgotten only when it is taken back.
    word = Word(lasting, here, word.service, word.downs + 1)
    try:
        trouble = _service_trouble(done)
        left = _take_down(config, word, pause)
    except KeyboardInterrupt:
        with _deaf():
            left = _take_down(config, word, pause, hurried=True)
        trouble = _service_trouble(done)
    if until_reboot:
        until = "the next boot, or " if word.ends_with_boot else ""
        return f"rules are out until {until}`nightmail up`; mail passes in clear{left}"
    if trouble is not None:
        raise trouble
    if word.service:
        record_word(config.wanted_file, replace(word, service=()))
    return f"rules are out and stay out; mail passes in clear until `nightmail up`{left}"


def _take_down(config: Config, word: Word, pause: Callable[[float], None], *, hurried: bool = False) -> str:
    """The word, and then the rules; answers what there is to say of the sessions, to go on with a line."""
    rules, left = kernel.KernelRules(config), ""
    orphans.end(pause, hurried=hurried)
    with _hand(config):
        try:
            record_word(config.wanted_file, word)
        except EnvironmentFailureError as error:
            raise _down_without_word(config, rules, error) from None
        runs = is_running(config.control_socket)
        is_out = not runs and _remove(config, rules)
    if runs:
        left = obeying.awaited(config.control_socket, pause, hurried=hurried)
        orphans.end(pause, hurried=hurried)  # the daemon may have been killed meanwhile
    elif other := sole.another(config.control_socket):
        _require_obeyed(other, pause)
    if not is_out:
        with _hand(config):
            rules.remove()
    return left


def _service_trouble(done: tuple[str, ...]) -> EnvironmentFailureError | None:
    """Takes back what `up` did to the service; what fails is to be told once the rules are out."""
    troubles = []
    for each in reversed(done):
        try:
            systemd.take_back(each)
        except EnvironmentFailureError as error:
            troubles.append(error)
    return troubles[0] if troubles else None


def _down_without_word(
    config: Config, rules: kernel.KernelRules, unwritten: EnvironmentFailureError
) -> EnvironmentFailureError:
    """A disk that takes nothing: the rules go all the same, where no daemon runs that would put them back."""
    if is_running(config.control_socket):
        return EnvironmentFailureError(
            f"{unwritten}; the rules stay, for the daemon would put them back: end it, and say `down` again"
        )
    try:
        rules.remove()
    except EnvironmentFailureError:
        return unwritten
    return EnvironmentFailureError(f"{unwritten}; rules are out, until a daemon is started")


def _remove(config: Config, rules: kernel.KernelRules) -> bool:
    """Whether it is done. Not where another daemon is at the rules in the same moment: one of the two finds
    gone what it has just seen, and it is tried again once that one has had the time to obey."""
    try:
        rules.remove()
    except EnvironmentFailureError:
        if not sole.another(config.control_socket):
            raise
        return False
    return True


def _require_obeyed(other: str, pause: Callable[[float], None]) -> None:
    """By a daemon with another configuration, which mostly looks for the word in another place."""
    pause(2 * limits.RULES_CHECK_SECONDS)
    if kernel.gate_counts():
        raise EnvironmentFailureError(f"{_OTHERS.format(other)} and has put them back: {_BY_ITS}")


def _looks(checks: int) -> int:
    """So many in the time in which the daemon looks at the rules `checks` times."""
    return round(checks * limits.RULES_CHECK_SECONDS / limits.RULES_ASKED_SECONDS)


# --- The word ----------------------------------------------------------------------------------------


def said(config: Config) -> Word:
    try:
        return read_word(config.wanted_file)
    except EnvironmentFailureError:
        return Word()


def up_word(word: Word, until_reboot: bool) -> Word:
    if until_reboot:
        return replace(word, this_boot=Wanted.UP)
    return replace(word, lasting=Wanted.UP, this_boot=None)


def _octets(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def missing_folders(config: Config) -> list[Path]:
    """Those that are made with the word, the innermost first."""
    here = config.state_dir
    return [folder for folder in (here, *here.parents) if not folder.exists()]


# --- The way back ------------------------------------------------------------------------------------
# As far as it goes: what has made `up` fail may be in the way of this, too. Left-over rules do no harm.


class _Undo(contextlib.ExitStack):
    """Steps back; those that fail are told, and keep none of the others from being made."""

    def __init__(self) -> None:
        super().__init__()
        self._failed: list[str] = []

    def by(self, work: Callable[..., None], *arguments: object) -> None:
        """One step, to be made when its turn comes."""
        self.callback(self.attempt, work, *arguments)

    def attempt(self, work: Callable[..., None], *arguments: object) -> None:
        """Now."""
        try:
            work(*arguments)
        except EnvironmentFailureError as error:
            self._failed.append(str(error))

    def left(self, besides: str = "") -> str:
        """What could not be undone, but for what is told already; empty where all is as it was before."""
        failed = [one for one in dict.fromkeys(self._failed) if one != besides]
        return f"not all is as it was before: {'; '.join(failed)}" if failed else ""


@contextlib.contextmanager
def _way_back(undo: _Undo) -> Iterator[None]:
    """What it is told of is done, the last one first, where that within fails, and only then."""
    try:
        yield
    except BaseException:
        with _deaf():
            undo.close()
        raise


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Who presses Ctrl-C once more would else stop the undoing half way. Programs that are started, which a
    terminal interrupts along with us, do not hear it either."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _give_back(config: Config, octets: bytes | None, folders: list[Path]) -> None:
    """Raises EnvironmentFailureError where the word of before cannot stand there again."""
    path = config.wanted_file
    if octets is not None:
        if _octets(path) != octets:
            record_octets(path, octets)
        return
    try:
        if path.exists():
            path.unlink()
    except OSError as error:
        raise EnvironmentFailureError(f"{path}: cannot be removed: {error.strerror}") from None
    with contextlib.suppress(OSError):
        # One that holds an identity by now stays.
        for folder in folders:
            folder.rmdir()


def _take_out(config: Config, octets: bytes | None, folders: list[Path], undo: _Undo) -> None:
    """Rules that stood before `up` are left to serve: taking them out would be no undoing. The word first, or
    a daemon would miss them and ring."""
    with _hand(config):
        undo.attempt(_give_back, config, octets, folders)
        undo.attempt(kernel.KernelRules(config).remove)


def _hand(config: Config) -> contextlib.AbstractContextManager[None]:
    return rules_lock.held(config, limits.RULES_HAND_OF_COMMAND_SECONDS)


def queues_of_daemon(config: Config) -> list[int]:
    """Those that a running daemon sends SYNs to, or will; empty where there is none, or none that answers."""
    with contextlib.suppress(EnvironmentFailureError, KeyError):
        answer = ask(config.control_socket)
        if answer is not None:
            workers = answer["workers"]
            newest = max((worker["generation"] for worker in workers), default=0)
            queues: list[int] = answer["rules"]["queues"]
            return queues or [one["queue"] for one in workers if one["generation"] == newest]
    return []


def queues(config: Config) -> list[int]:
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
