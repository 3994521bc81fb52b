"""The lab's two gateways: the real daemon, one in each gateway namespace, or on each mail server itself.

Counterpart: `nightmail run`, which knows nothing of any lab: it gets a configuration file like every other.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gateway
from gateway.config import Placement
from gateway.errors import EnvironmentFailureError
from gateway.lab.inotify import CREATED, MODIFIED, Inotify
from gateway.lab.processes import Process, children_of, read_pid_file, run_in, start_in
from gateway.lab.topology import BRIDGE, INSIDE, OUTSIDE, Node

READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 30.0
ASK_SECONDS: Final = 5.0
LOOK_AGAIN_SECONDS: Final = 0.1

CONFIGURATION: Final = """\
# Written by the lab; gone with it.
version = 1
placement = "{placement}"
{interfaces}
[daemon]
state_dir = "{state}"
run_dir = "{run}"

[dead_ends]
# A lab is there to show each session.
minutes = 0

[offers]
rest = false
"""

INTERFACES: Final = {
    Placement.ROUTER: f"""
[interfaces]
inside = ["{INSIDE}"]
outside = ["{OUTSIDE}"]
""",
    Placement.HOST: "",
    Placement.BRIDGE: f"""
[interfaces]
inside = ["{INSIDE}"]
outside = ["{OUTSIDE}"]

[bridge]
name = "{BRIDGE}"
""",
}


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway of the lab, and where its things are. On a mail server, `namespace` is that server's."""

    node: Node
    namespace: str
    folder: Path
    source: Path | None = None
    """Another source tree to run the daemon from: for a comparison of two versions."""
    placement: Placement = Placement.ROUTER

    @property
    def configuration(self) -> Path:
        return self.folder / "nightmail.toml"

    @property
    def control_socket(self) -> Path:
        return self.folder / "run" / "control.sock"

    @property
    def log(self) -> Path:
        return self.folder / "gateway.log"

    @property
    def pid_file(self) -> Path:
        return self.folder / "gateway.pid"

    @property
    def process(self) -> Process | None:
        """The supervisor, if it runs."""
        return read_pid_file(self.pid_file)


def nightmail_command(*words: str, source: Path | None = None) -> list[str]:
    """The command line of this very version of Nightmail, wherever it was started from (or of `source`)."""
    root = source or Path(gateway.__file__).parent.parent
    # -P: or else a tree in the working directory would come before the one that is meant.
    return ["env", f"PYTHONPATH={root}", sys.executable, "-P", "-m", "gateway", *words]


def prepare(one: Gateway) -> None:
    """Write its configuration and make its folders."""
    for folder in (one.folder / "state", one.folder / "run"):
        folder.mkdir(parents=True, exist_ok=True)
    text = CONFIGURATION.format(
        placement=one.placement.value,
        interfaces=INTERFACES[one.placement],
        state=one.folder / "state",
        run=one.folder / "run",
    )
    one.configuration.write_text(text)
    one.log.touch()


def start(one: Gateway) -> None:
    """Start the daemon, without waiting for it."""
    if one.process is not None:
        raise EnvironmentFailureError(f"{one.node.name}: a gateway runs already")
    # A socket of a killed daemon must not be taken for the new one's.
    one.control_socket.unlink(missing_ok=True)
    command = nightmail_command("--config", str(one.configuration), "run", source=one.source)
    start_in(one.namespace, command, log=one.log, pid_file=one.pid_file)


def wait_ready(one: Gateway) -> dict[str, Any]:
    """Wait until the daemon says that it serves; its status. Raises EnvironmentFailureError."""
    deadline = time.monotonic() + READY_SECONDS
    # It makes its socket and writes its log as it gets ready: either is a reason to ask again.
    watches = [Inotify(one.control_socket.parent, CREATED), Inotify(one.log, MODIFIED)]
    try:
        while time.monotonic() < deadline:
            status = ask(one)
            if status is not None and serves(status):
                return status
            if one.process is None:
                raise EnvironmentFailureError(f"{one.node.name}: the gateway has ended: {last_words(one)}")
            for watch in watches:
                watch.wait(LOOK_AGAIN_SECONDS / len(watches))
    finally:
        for watch in watches:
            watch.close()
    raise EnvironmentFailureError(
        f"{one.node.name}: the gateway does not serve within {READY_SECONDS:.0f} s: {last_words(one)}"
    )


def ask(one: Gateway) -> dict[str, Any] | None:
    """The daemon's status; None if nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(ASK_SECONDS)
            asking.connect(str(one.control_socket))
            asking.sendall(b"status\n")
            pieces = []
            while piece := asking.recv(65536):
                pieces.append(piece)
        answer = json.loads(b"".join(pieces))
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def serves(status: dict[str, Any]) -> bool:
    """Whether connections go through this gateway now: rules in place, workers at work and in the gate.

    Those that only finish their sessions do not count.
    """
    every = status.get("workers") or []
    newest = max((worker.get("generation", 0) for worker in every), default=0)
    workers = [
        worker
        for worker in every
        if worker.get("generation", 0) == newest and worker.get("state") != "draining"
    ]
    rules = status.get("rules") or {}
    at_work = all(worker.get("state") == "serving" for worker in workers)
    in_gate = {worker.get("queue") for worker in workers} <= set(rules.get("queues") or [])
    return (
        bool(workers) and not rules.get("missing") and at_work and (in_gate or status.get("wanted") == "down")
    )


def kill(one: Gateway) -> int:
    """SIGKILL the supervisor and every worker at once, as a crash would; how many processes there were."""
    found = processes(one)
    for process in found:
        process.signal(signal.SIGKILL)
    for process in found:
        process.wait_gone(STOP_SECONDS)
    return len(found)


def stop(one: Gateway, *, take_rules_down: bool = False) -> None:
    """End the daemon as an operator does; its rules stay (they are harmless) unless asked otherwise."""
    if take_rules_down:
        run_in(one.namespace, nightmail_command("--config", str(one.configuration), "down"))
    process = one.process
    if process is not None:
        process.signal(signal.SIGTERM)
        if not process.wait_gone(STOP_SECONDS):
            raise EnvironmentFailureError(f"{one.node.name}: the gateway does not end on SIGTERM")


def processes(one: Gateway) -> list[Process]:
    """The supervisor and its workers."""
    supervisor = one.process
    return [] if supervisor is None else [supervisor, *children_of(supervisor)]


def last_words(one: Gateway) -> str:
    """The end of its log, for an error message of one line: what a process of it died of, if one did."""
    lines = one.log.read_text(errors="replace").strip().splitlines() if one.log.exists() else []
    if not lines:
        return f"it said nothing; see {one.log}"
    # Above the last line of a traceback are others, indented; below it the log goes on.
    died = [line for line, above in zip(lines[1:], lines, strict=False) if above[:1] == " " != line[:1]]
    return died[-1] if died else lines[-1]
