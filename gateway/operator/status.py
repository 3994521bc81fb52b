"""Asks the running daemon how it is, and says it for a person: first of all whether mail is protected now.

The daemon's answer is one JSON object (docs/json.md); a key that is missing, from an older daemon, is
left out of the text and never an error. Counterpart: the control socket of `runtime.supervisor`.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from gateway import __version__
from gateway.errors import EnvironmentFailureError
from gateway.observe.protection import troubles
from gateway.peers.database import Database
from gateway.peers.day_store import DayStore
from gateway.policy import limits
from gateway.runtime.hardening import LAYERS
from gateway.runtime.supervisor import days, sole

Status = dict[str, Any]
_ASK: Final = b"status\n"
_PASSED_BY: Final = "connections passed by the gateway while it could not take them"
_IN_WORDS: Final = {"out": "sent by this site", "in": "received by this site"}


def without_daemon(starting: str) -> str:
    """The answer where none runs."""
    return f"NO, mail passes in clear: no daemon is running ({starting})"


def without_answer(why: str) -> str:
    """The answer where one runs and gives none."""
    return f"NO ANSWER, so nobody knows: {why}"


def unheard(control: Path) -> str:
    """What there is to say of a daemon that runs here and whose socket was removed; empty without one."""
    pid = sole.holder_without(control)
    if pid is None:
        return ""
    process = f" (process {pid})" if pid else ""
    return f"a daemon runs{process}, but its socket {control} was removed: it makes another, or restart it"


def ask(control: Path, question: bytes = _ASK, seconds: float = limits.CONTROL_SECONDS) -> Status | None:
    """The daemon's answer; None if none is running. Raises EnvironmentFailureError for a bad one or none."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(seconds)
            asking.connect(str(control))
            asking.sendall(question)
            octets = _read_all(asking, seconds)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except TimeoutError:
        raise EnvironmentFailureError(
            f"{control}: the daemon has not answered within {seconds:g} s"
        ) from None
    except OSError as error:
        raise EnvironmentFailureError(f"{control}: {error.strerror or error}") from None
    try:
        answer = json.loads(octets)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise EnvironmentFailureError(f"{control}: the daemon's answer is no JSON object")
    return answer


def required(control: Path, question: bytes = _ASK, seconds: float = limits.CONTROL_SECONDS) -> Status:
    """As `ask`, where without a daemon there is nothing to be done. Raises EnvironmentFailureError."""
    answer = ask(control, question, seconds)
    if answer is None:
        none = "no daemon is running (`nightmail status` says how to start one)"
        raise EnvironmentFailureError(unheard(control) or none)
    return answer


def is_running(control: Path) -> bool:
    """Whether somebody listens there; does not wait for an answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(limits.CONTROL_SECONDS)
            asking.connect(str(control))
    except OSError:
        return False
    return True


def _read_all(asking: socket.socket, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    pieces: list[bytes] = []
    room = limits.CONTROL_REPLY_OCTETS
    while piece := asking.recv(min(limits.READ_OCTETS, room + 1)):
        pieces.append(piece)
        room -= len(piece)
        if room < 0:
            raise EnvironmentFailureError("the daemon's answer is too long")
        # A drip of octets must not outlive the timeout of a single read.
        asking.settimeout(max(0.001, deadline - time.monotonic()))
    return b"".join(pieces)


def told(status: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a person; the first answers "is mail protected now?"."""
    yield answer(status)
    yield from facts(status)


def answer(status: Mapping[str, Any]) -> str:
    """Is mail protected now?"""
    found = troubles(status)
    if found:
        return f"NO, mail passes in clear: {'; '.join(found)}"
    return "YES, mail to and from sites with a gateway is protected now"


def facts(status: Mapping[str, Any]) -> Iterator[str]:
    """All lines but the first; what is missing, from an older daemon or without one, is left out."""
    yield from shares(status)
    yield from rest(status)


def rest(status: Mapping[str, Any], *, with_alarms: bool = True) -> Iterator[str]:
    """Of `facts` what is not sessions."""
    if status.get("wanted") == "up" and status.get("wanted_until_reboot"):
        yield "note: rules are up until the next boot (`nightmail up` keeps them)"
    yield from _peers_and_bypassed(status)
    if status.get("placement") == "bridge":
        yield "note: frames with a VLAN tag are not looked at on the bridge; mail in them passes in clear"
    yield from _workers(status)
    yield from _confinement(status)
    if with_alarms:
        yield from alarms(status)
    yield from _versions(status)


def kept(pins_file: Path, now: int) -> Status:
    """What is kept of today and this week, where no daemon runs; empty where there is nothing to read."""
    today = now // limits.DAY_SECONDS
    try:
        if not pins_file.exists():
            return {}
        database = Database.read_only(pins_file)
        try:
            return days.told(DayStore(database).since(today - limits.DAYS_IN_WEEK + 1), today)
        finally:
            database.close()
    except (EnvironmentFailureError, PermissionError):
        return {}  # the first line says what matters; the daemon's next start tells of the file


def shares(status: Mapping[str, Any]) -> Iterator[str]:
    """Sessions protected, today and this week (or, of an older daemon, since its start), by reason."""
    if "today" in status and "week" in status:
        periods = {"today": mapping(status, "today"), "week": mapping(status, "week")}
    else:
        periods = {"": mapping(mapping(status, "counters"), "decided")}
    for direction, words in _IN_WORDS.items():
        kinds = [mapping(period, direction) for period in periods.values()]
        told = [_share(name, kind) for name, kind in zip(periods, kinds, strict=True)]
        yield f"{words}: {'; '.join(told)}"
        rows = list(_reasons(kinds))
        if rows and len(kinds) > 1:
            yield "".join(f"  {name:>8}" for name in periods)
        yield from rows


def _share(period: str, kinds: Mapping[str, Any]) -> str:
    protected = _total(mapping(kinds, "upgraded"))
    all_of_them = protected + _total(mapping(kinds, "clear"))
    when = {"": "", "today": "today ", "week": "this week "}[period]
    if not all_of_them:
        return f"{when}no session{'' if when else ' yet'}"
    return f"{when}{protected} of {all_of_them} sessions protected ({100 * protected / all_of_them:.1f} %)"


def _reasons(periods: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each reason, a column for each period; the commonest of the longest period first."""
    for kind, words in (("upgraded", "protected"), ("clear", "in clear")):
        columns = [mapping(period, kind) for period in periods]
        reasons = {reason for column in columns for reason, count in column.items() if isinstance(count, int)}
        for reason in sorted(reasons, key=lambda reason: (-_count(columns[-1], reason), reason)):
            counts = "".join(f"  {_count(column, reason):>8}" for column in columns)
            yield f"{counts}  {words}, {reason}"


def _count(counts: Mapping[str, Any], reason: str) -> int:
    count = counts.get(reason)
    return count if isinstance(count, int) else 0


def _peers_and_bypassed(status: Mapping[str, Any]) -> Iterator[str]:
    if "peers" in status:
        yield f"peers: {status['peers']} remembered"
    sources = mapping(status, "sources")
    if sources:
        resting = sources.get("resting")
        more = f"; {resting} that dropped our offers get none for a day" if resting else ""
        yield f"clients: {sources.get('upgraded', 0)} remembered to have a gateway{more}"
    if status.get("bypassed") is not None:
        one = status["bypassed"] == 1
        words = "connection passed by the gateway while it could not take it" if one else _PASSED_BY
        yield f"bypassed: {status['bypassed']} {words}"


def _workers(status: Mapping[str, Any]) -> Iterator[str]:
    workers = status.get("workers")
    for worker in workers if isinstance(workers, list) else []:
        if isinstance(worker, dict):
            facts = " ".join(
                f"{key}={value}" for key, value in worker.items() if key not in ("slot", "state", "confined")
            )
            yield f"worker {worker.get('slot', '?')}: {worker.get('state', 'unknown')} {facts}".rstrip()


def _confinement(status: Mapping[str, Any]) -> Iterator[str]:
    """What stands between a worker that its peers have taken over and the rest of the machine."""
    workers = status.get("workers")
    every = workers if isinstance(workers, list) else []
    # What an older daemon does not tell is left out.
    dicts = [worker for worker in every if isinstance(worker, dict)]
    serving = [worker for worker in dicts if worker.get("state") == "serving" and "confined" in worker]
    if serving:
        in_force = [layer for layer in LAYERS if all(layer in _list(one, "confined") for one in serving)]
        missing = [layer for layer in LAYERS if layer not in in_force]
        but = f"; NOT by {', '.join(missing)}" if missing else ""
        yield f"workers: confined by {', '.join(in_force) or 'nothing'}{but}"
    signer = mapping(status, "signer")
    if signer:
        facts = " ".join(f"{key}={signer.get(key)}" for key in ("pid", "signed", "refused", "restarts"))
        yield f"signer: {facts}"


def _list(within: Mapping[str, Any], key: str) -> list[Any]:
    value = within.get(key)
    return value if isinstance(value, list) else []


def alarms(status: Mapping[str, Any]) -> Iterator[str]:
    rung = status.get("alarms")
    if not isinstance(rung, list):
        return
    if not rung:
        yield f"alarms: none {_quiet_for(status)}"
    for alarm in rung:
        if isinstance(alarm, dict):
            at = when(alarm.get("at", 0))
            again = alarm.get("unheard", 0)
            times = f"{again} {'time' if again == 1 else 'times'}"
            more = f" (and {times} since; this is the last)" if again else ""
            more = f", likely {likely}{more}" if (likely := alarm.get("likely")) else more
            yield (
                f"alarm: {at} {alarm.get('reason')} {alarm.get('subject')} {alarm.get('detail', '')}".rstrip()
                + more
            )


def _quiet_for(status: Mapping[str, Any]) -> str:
    """A daemon that has just started knows nothing of what rang before it."""
    since = status.get("since")
    if isinstance(since, int | float) and 0 <= time.time() - since < limits.DAY_SECONDS:
        return f"since the daemon's start, {when(since)}"
    return "within the last day"


def _versions(status: Mapping[str, Any]) -> Iterator[str]:
    versions = mapping(status, "versions")
    if versions:
        yield "versions: " + ", ".join(f"{name} {version}" for name, version in versions.items())
    running = status.get("version")
    if running is not None and running != __version__:
        yield f"note: {__version__} is installed, {running} runs: `nightmail reload` changes over"


def mapping(within: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What stands there, if it is an object; else an empty one."""
    value = within.get(key)
    return value if isinstance(value, dict) else {}


def when(seconds: object) -> str:
    """A moment for a person, UTC as in the log."""
    if not isinstance(seconds, int | float):
        return "unknown time"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _total(counts: Mapping[str, Any]) -> int:
    return sum(count for count in counts.values() if isinstance(count, int))
