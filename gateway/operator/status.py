"""Asks the running daemon how it is, and says it for a person: first of all whether mail is protected now.

The daemon's answer is one JSON object (docs/operations.md); a key that is missing, from an older daemon, is
left out of the text and never an error. Counterpart: the control socket of `runtime.supervisor`.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from gateway.errors import EnvironmentFailureError
from gateway.policy import limits

Status = dict[str, Any]
_ASK: Final = b"status\n"
_IN_WORDS: Final = {"out": "sent by this site", "in": "received by this site"}


def ask(control: Path, question: bytes = _ASK, seconds: float = limits.CONTROL_SECONDS) -> Status | None:
    """The daemon's answer; None if none is running. Raises EnvironmentFailureError for a bad one or none."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(seconds)
            asking.connect(str(control))
            asking.sendall(question)
            octets = _read_all(asking, seconds)
    except (FileNotFoundError, ConnectionRefusedError):
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


def is_protecting(status: Mapping[str, Any]) -> bool:
    """Whether new connections go through the gateway now: rules wanted and in place, and a worker serves."""
    return not _troubles(status)


def told(status: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a person; the first answers "is mail protected now?"."""
    troubles = list(_troubles(status))
    if troubles:
        yield f"NO, mail passes in clear: {'; '.join(troubles)}"
    else:
        yield "YES, mail to and from sites with a gateway is protected now"
    yield from _shares(status)
    yield from _peers_and_bypassed(status)
    yield from _workers(status)
    yield from _alarms(status)


def _troubles(status: Mapping[str, Any]) -> list[str]:
    troubles: list[str] = []
    rules = _mapping(status, "rules")
    if status.get("wanted") == "down":
        troubles.append("rules were taken down by `nightmail down`")
    elif missing := rules.get("missing"):
        troubles.append(f"{len(missing)} of our rules are missing")
    workers = status.get("workers")
    if not isinstance(workers, list) or not any(_serves(worker) for worker in workers):
        troubles.append("no worker serves")
    elif not troubles and status.get("inside_networks") == []:
        troubles.append("the inside interfaces have no network yet, so no mail server is known")
    elif not troubles and rules.get("queues") == []:
        troubles.append("the rules send no connection to a worker")
    return troubles


def _serves(worker: object) -> bool:
    return isinstance(worker, dict) and worker.get("state") == "serving"


def _shares(status: Mapping[str, Any]) -> Iterator[str]:
    decided = _mapping(_mapping(status, "counters"), "decided")
    for direction, words in _IN_WORDS.items():
        kinds = _mapping(decided, direction)
        upgraded, clear = _mapping(kinds, "upgraded"), _mapping(kinds, "clear")
        protected, all_of_them = _total(upgraded), _total(upgraded) + _total(clear)
        if not all_of_them:
            yield f"{words}: no session yet"
            continue
        share = 100 * protected / all_of_them
        yield f"{words}: {protected} of {all_of_them} sessions protected ({share:.1f} %)"
        for kind, counts in (("protected", upgraded), ("in clear", clear)):
            for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
                yield f"  {count:>8}  {kind}, {reason}"


def _peers_and_bypassed(status: Mapping[str, Any]) -> Iterator[str]:
    if "peers" in status:
        yield f"peers: {status['peers']} remembered"
    sources = _mapping(status, "sources")
    if sources:
        resting = sources.get("resting")
        more = f"; {resting} that dropped our offers get none for a day" if resting else ""
        yield f"clients: {sources.get('upgraded', 0)} remembered to have a gateway{more}"
    if status.get("bypassed") is not None:
        yield f"bypassed: {status['bypassed']} connections passed by the gateway while it could not take them"


def _workers(status: Mapping[str, Any]) -> Iterator[str]:
    workers = status.get("workers")
    for worker in workers if isinstance(workers, list) else []:
        if isinstance(worker, dict):
            facts = " ".join(
                f"{key}={value}" for key, value in worker.items() if key not in ("slot", "state")
            )
            yield f"worker {worker.get('slot', '?')}: {worker.get('state', 'unknown')} {facts}".rstrip()


def _alarms(status: Mapping[str, Any]) -> Iterator[str]:
    alarms = status.get("alarms")
    if not isinstance(alarms, list):
        return
    if not alarms:
        yield "alarms: none within the last day"
    for alarm in alarms:
        if isinstance(alarm, dict):
            at = when(alarm.get("at", 0))
            again = alarm.get("suppressed", 0)
            more = f" (and {again} times since)" if again else ""
            more = f", likely {likely}{more}" if (likely := alarm.get("likely")) else more
            yield (
                f"alarm: {at} {alarm.get('reason')} {alarm.get('subject')} {alarm.get('detail', '')}".rstrip()
                + more
            )


def when(seconds: object) -> str:
    """A moment for a person, UTC as in the log."""
    if not isinstance(seconds, int | float):
        return "unknown time"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _mapping(within: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = within.get(key)
    return value if isinstance(value, dict) else {}


def _total(counts: Mapping[str, Any]) -> int:
    return sum(count for count in counts.values() if isinstance(count, int))
