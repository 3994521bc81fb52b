"""A control socket that answers one question as it is told to."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "since": 1_800_000_000,
    "identity": "abcd-efgh",
    "wanted": "up",
    "rules": {"missing": []},
    "workers": [
        {"slot": 0, "state": "serving", "pid": 17, "queue": 2500, "sessions": 3, "restarts": 0},
        {"slot": 1, "state": "hung", "pid": 18, "queue": 2501, "sessions": 0, "restarts": 2},
    ],
    "counters": {
        "decided": {
            "out": {"upgraded": {"upgraded": 2, "upgraded-new-peer": 1}, "clear": {"no-offer": 9}},
            "in": {"upgraded": {}, "clear": {}},
        },
        "ended": {"out": {}, "in": {}},
        "tallies": {},
    },
    "peers": 4,
    "bypassed": 6,
    "alarms": [
        {
            "reason": "offer-missing",
            "subject": "192.0.2.7:25",
            "at": 1_800_000_000,
            "detail": "",
            "unheard": 2,
        }
    ],
}


@contextmanager
def daemon(
    path: Path, answer: bytes | dict[str, Any] = STATUS, *, questions: int = 1
) -> Iterator[list[bytes]]:
    """Serves so many connections, then closes; yields what it was asked. 0: as many as come."""
    octets = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    asked: list[bytes] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        for _ in range(questions) if questions else count():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                question = lines.readline()
                if question:
                    asked.append(question)
                    connection.sendall(octets)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        if not questions:
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
        path.unlink()
