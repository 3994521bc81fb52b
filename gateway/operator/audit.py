"""`nightmail audit`: what a listener learnt, from a capture file or by listening on an interface.

Knows no key and asks no daemon: it sees what anybody on the line sees. People's addresses are masked unless
asked for, since the report may be shown to others. Counterparts: the room `eyes`.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import gateway
from gateway.errors import EnvironmentFailureError
from gateway.eyes import learnt, wire
from gateway.eyes.capture import TOO_SLOW, open_ear
from gateway.eyes.learnt import PairLearnt, SessionLearnt
from gateway.policy import limits

SESSIONS_SHOWN: Final = 40
"""In the table; `--json` has all."""
ADDRESSES_SHOWN: Final = 3
PAIR_HEADINGS: Final = ("from", "to", "sessions", "seen", "senders", "recipients", "words", "octets")
SESSION_HEADINGS: Final = ("began (UTC)", "seconds", "from", "to", "seen", "to server", "back", "words")


@dataclass(frozen=True, slots=True)
class Report:
    """All that was heard. `unplaced`: connections whose beginning was not; `missed`: what else was not."""

    sessions: list[SessionLearnt]
    unplaced: int = 0
    missed: str = ""


def read(path: Path, ports: frozenset[int]) -> Report:
    """What there is to learn from a capture file. Raises EnvironmentFailureError."""
    return _heard(wire.segments(path, ports=ports))


def listen(interface: str, ports: frozenset[int], seconds: float | None, ready: Callable[[], None]) -> Report:
    """Listen until `seconds` are over, or until SIGINT. `ready` is told once packets are heard.

    Raises EnvironmentFailureError without the right to listen, or where there is no such interface.
    """
    try:
        open_ear(interface).close()
    except PermissionError:
        raise EnvironmentFailureError("listening on an interface needs root: try sudo") from None
    except (OSError, UnicodeError):
        there = ", ".join(sorted(name for _, name in socket.if_nameindex()))
        raise EnvironmentFailureError(f"no interface {interface} here; there are: {there}") from None
    root = Path(gateway.__file__).parent.parent
    words = [sys.executable, "-m", "gateway.eyes.capture", "-", interface, *map(str, sorted(ports))]
    # Its remarks go to a file: in a pipe that nobody reads yet they would stop it, once there are many.
    with (
        tempfile.TemporaryFile() as remarks,
        subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, stderr=remarks) as ear,
    ):
        return _heard_by(ear, remarks, seconds, ready, ports)


def _heard_by(
    ear: subprocess.Popen[bytes],
    remarks: IO[bytes],
    seconds: float | None,
    ready: Callable[[], None],
    ports: frozenset[int],
) -> Report:
    """Of a listening process that ends when it is told to; then all that it has heard is in the pipe."""
    assert ear.stdout is not None
    timer = threading.Timer(seconds, ear.terminate) if seconds is not None else None
    before = signal.signal(signal.SIGINT, lambda number, frame: ear.terminate())
    try:
        # The header comes as soon as it listens.
        ear.stdout.peek(1)  # type: ignore[attr-defined]
        ready()
        if timer is not None:
            timer.start()
        report = _heard(wire.segments(ear.stdout, ports=ports))
        with contextlib.suppress(subprocess.TimeoutExpired):
            ear.wait(limits.LISTENER_END_SECONDS)
        remarks.seek(0)
        missed = _missed(remarks.read().decode(errors="replace").strip().splitlines())
        return Report(report.sessions, report.unplaced, missed)
    finally:
        signal.signal(signal.SIGINT, before)
        if timer is not None:
            timer.cancel()
        with contextlib.suppress(subprocess.TimeoutExpired):
            ear.terminate()
            ear.wait(limits.LISTENER_END_SECONDS)


def _missed(remarks: list[str]) -> str:
    """The last number of packets, and the last other remark."""
    slow = [line for line in remarks if line.endswith(TOO_SLOW)]
    others = [line for line in remarks if not line.endswith(TOO_SLOW)]
    return "; ".join([*slow[-1:], *others[-1:]])


def _heard(segments: Iterable[wire.Segment]) -> Report:
    assembler, listener = wire.Assembler(), learnt.Listener()
    for segment in segments:
        listener.take(segment, assembler.take(segment))
    listener.finish()
    return Report(listener.learnt, len(listener.unplaced))


# --- For a person --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


def tables(report: Report, *, show: bool) -> list[Table]:
    """By pair of servers and by session; none for a report without sessions."""
    if not report.sessions:
        return []
    pairs = [_pair_row(pair, show) for pair in learnt.pairs(report.sessions)]
    sessions = [_session_row(session) for session in report.sessions[:SESSIONS_SHOWN]]
    return [
        Table("What a listener learnt, by pair of servers", PAIR_HEADINGS, pairs),
        Table("By session", SESSION_HEADINGS, sessions),
    ]


def remarks(report: Report) -> Iterator[str]:
    """What the tables do not say, and at last the sentence."""
    if len(report.sessions) > SESSIONS_SHOWN:
        yield f"{len(report.sessions) - SESSIONS_SHOWN} more sessions: see --json"
    holes = sum(not session.whole for session in report.sessions)
    if holes:
        yield f"not whole in this capture: {holes} sessions; more may have been readable in them"
    if report.unplaced:
        yield f"began before this capture, nothing is claimed of them: {report.unplaced} connections"
    if report.missed:
        yield f"not all was heard: {report.missed}"
    yield learnt.sentence(report.sessions)


def _pair_row(pair: PairLearnt, show: bool) -> tuple[str, ...]:
    up, down = pair.octets
    return (
        pair.client,
        pair.server,
        str(len(pair.sessions)),
        ", ".join(f"{count} {sight.value}" for sight, count in pair.sights.most_common()),
        _addresses(pair.senders, show),
        _addresses(pair.recipients, show),
        f"{pair.words:,}" if pair.words else "none",
        f"{up:,} / {down:,}",
    )


def _addresses(addresses: list[str], show: bool) -> str:
    if not addresses:
        return "none"
    # Several may look the same behind their masks; the count is what the sentence at the end says.
    masked = Counter(learnt.masked(address) for address in addresses)
    behind = [name if count == 1 else f"{name} ({count})" for name, count in sorted(masked.items())]
    told = addresses if show else behind
    more = f" and {len(told) - ADDRESSES_SHOWN} more" if len(told) > ADDRESSES_SHOWN else ""
    return ", ".join(told[:ADDRESSES_SHOWN]) + more


def _session_row(session: SessionLearnt) -> tuple[str, ...]:
    at = datetime.fromtimestamp(session.began, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return (
        at,
        f"{session.ended - session.began:.2f}",
        f"{session.client.address}:{session.client.port}",
        f"{session.server.address}:{session.server.port}",
        session.sight.value + ("" if session.whole else " (not whole)"),
        f"{session.octets_up:,}",
        f"{session.octets_down:,}",
        f"{session.words:,}" if session.words else "none",
    )


def as_json(report: Report, *, show: bool) -> dict[str, Any]:
    return {
        "sessions": [learnt.as_json(session, show=show) for session in report.sessions],
        "unplaced": report.unplaced,
        "missed": report.missed or None,
        "sentence": learnt.sentence(report.sessions),
    }
