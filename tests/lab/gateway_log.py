"""What a gateway of the lab has logged about one session, found by the addresses that both mail servers see.

Counterpart: `gateway.observe.log` writes these lines and `runtime.worker.sessions` their facts.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from gateway.errors import Reason
from gateway.lab.inotify import MODIFIED, Inotify
from gateway.peers.pins import Destination

_SESSION = re.compile(r" session=(\w+) session ([a-z-]+)(.*)")
_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')

Ends = tuple[str, str]
LOG_SECONDS = 10.0
"""Logs go out every 0.1 s; sessions are over when both of their connections are."""


@dataclass(slots=True)
class Session:
    """One session as its gateway tells it."""

    lines: list[str] = field(default_factory=list)
    decided: Reason | None = None
    protected: bool | None = None
    ended: Reason | None = None
    detail: str = ""

    def __str__(self) -> str:
        return "\n".join(self.lines) or "nothing logged"


class GatewayLog:
    """Follows one log. End with `close`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._watch = Inotify(path, MODIFIED)
        self._offset = 0
        self._by_id: dict[str, Session] = {}
        self._by_ends: dict[Ends, Session] = {}
        self.errors: list[str] = []
        """Lines of level error or alarm about our own code."""

    def close(self) -> None:
        self._watch.close()

    def ended(
        self, source: tuple[str, int], destination: tuple[str, int], seconds: float = LOG_SECONDS
    ) -> Session:
        """The session between these two, once it is over; what there is of it if that takes longer."""
        ends = (str(Destination(*source)), str(Destination(*destination)))
        deadline = time.monotonic() + seconds
        while True:
            self._read()
            session = self._by_ends.get(ends)
            if session is not None and session.ended is not None:
                return session
            if not self._watch.wait(deadline - time.monotonic()):
                self._read()
                return self._by_ends.get(ends, Session())

    def _read(self) -> None:
        with self._path.open("rb") as log:
            log.seek(self._offset)
            fresh = log.read()
        whole = fresh.rfind(b"\n") + 1
        self._offset += whole
        for line in fresh[:whole].decode(errors="replace").splitlines():
            self._take(line)

    def _take(self, line: str) -> None:
        if " error " in line or "reason=internal" in line or "Traceback" in line:
            self.errors.append(line)
        found = _SESSION.search(line)
        if found is None:
            return
        session_id, event, rest = found.groups()
        fields = {key: value.strip('"') for key, value in _FIELD.findall(rest)}
        session = self._by_id.setdefault(session_id, Session())
        session.lines.append(line)
        if event == "begun":
            self._by_ends[fields["source"], fields["to"]] = session
        elif event == "decided":
            session.decided = Reason(fields["reason"])
            session.protected = fields["protected"] == "yes"
            session.detail = fields.get("detail", "")
        elif event == "ended":
            session.ended = Reason(fields["reason"])
