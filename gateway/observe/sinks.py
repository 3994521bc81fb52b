"""Logs to journald or syslog: the same lines, one a datagram, with a priority made of their level.

Never holds up the mail path: a socket that takes nothing is waited for a moment, and not again before it has
taken something; what it does not take goes to standard error. The socket is made once and never connected,
so that a collector that starts anew is found again, by processes too that may make no socket any more.
"""

from __future__ import annotations

import os
import socket
import syslog
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from gateway.config import Config
from gateway.observe.log import Entry, Level, Log, LogSink, Sink, escaped, to_stderr
from gateway.policy import limits

JOURNAL_SOCKET: Final = Path("/run/systemd/journal/socket")
SYSLOG_SOCKET: Final = Path("/dev/log")
_NAME: Final = "nightmail"
_FACILITY: Final = syslog.LOG_MAIL
PRIORITIES: Final = {
    Level.DEBUG: syslog.LOG_DEBUG,
    Level.INFO: syslog.LOG_INFO,
    Level.NOTICE: syslog.LOG_NOTICE,
    Level.ALARM: syslog.LOG_ERR,
    Level.ERROR: syslog.LOG_CRIT,
}
"""`journalctl -p err` shows what somebody should look at; what is our own fault stands above it."""


def opened(config: Config, file: Path | None = None) -> Log:
    """The log of one process. Raises EnvironmentFailureError where `file` cannot be opened."""
    sink: Sink
    if file is not None:
        sink = LogSink.to_file(file)
    elif config.log_to == "journal":
        sink = DatagramSink(JOURNAL_SOCKET, for_journal)
    elif config.log_to == "syslog":
        sink = DatagramSink(SYSLOG_SOCKET, for_syslog)
    else:
        sink = to_stderr()
    # Journal and syslog add the time themselves.
    clock = None if isinstance(sink, DatagramSink) else time.time
    return Log(sink, least=Level(config.log_level), clock=clock)


def stderr_into(file: Path) -> None:
    """Standard error of this process, and of all that it starts, appends to this file from now on.

    Raises EnvironmentFailureError.
    """
    sink = LogSink.to_file(file)
    os.dup2(sink.descriptor, 2)
    sink.close()


class DatagramSink:
    """One datagram a line; `encode` makes it. `otherwise` takes what the socket does not take in time."""

    def __init__(self, path: Path, encode: Callable[[Entry], bytes], otherwise: Sink | None = None) -> None:
        self._path = str(path)
        self._encode = encode
        self._otherwise = otherwise if otherwise is not None else to_stderr()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._takes = True

    def write_entries(self, entries: Sequence[Entry]) -> None:
        """Raises OSError where neither the socket nor standard error takes them."""
        until = time.monotonic() + (limits.LOG_SEND_SECONDS if self._takes else 0)
        for number, entry in enumerate(entries):
            try:
                self._socket.settimeout(max(until - time.monotonic(), 0))
                self._socket.sendto(self._encode(entry), self._path)
                self._takes = True
            except OSError:
                self._takes = False
                self._otherwise.write_entries(entries[number:])
                return

    def close(self) -> None:
        self._socket.close()
        self._otherwise.close()


def for_journal(entry: Entry) -> bytes:
    """systemd's native protocol, KEY=value lines; the log's grammar allows no line's end in a value."""
    fields = {
        "MESSAGE": entry.text,
        "PRIORITY": str(PRIORITIES[entry.level]),
        "SYSLOG_FACILITY": str(_FACILITY >> 3),
        "SYSLOG_IDENTIFIER": _NAME,
        "SYSLOG_PID": str(os.getpid()),
        "NIGHTMAIL_SUBSYSTEM": escaped(entry.subsystem),
        "NIGHTMAIL_EVENT": escaped(entry.event),
        "NIGHTMAIL_SESSION": escaped(entry.session) if entry.session else "",
        "NIGHTMAIL_REASON": entry.reason.value if entry.reason is not None else "",
    }
    return "".join(f"{name}={value}\n" for name, value in fields.items() if value).encode("ascii")


def for_syslog(entry: Entry) -> bytes:
    """As syslog(3) sends it to /dev/log: the collector adds time and host (RFC 3164, 4.3)."""
    return f"<{_FACILITY | PRIORITIES[entry.level]}>{_NAME}[{os.getpid()}]: {entry.text}".encode("ascii")
