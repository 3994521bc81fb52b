"""Puts the delay line into the wire, and takes it off again.

Loss is per packet of the wire's size and per direction, each packet for itself: with 1 % about one round
trip in fifty meets it, and TCP sends again. What is lost stays in the listener's capture, which stands in
front of the line. Counterpart: `delay_line`, the process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import gateway
from gateway.errors import EnvironmentFailureError
from gateway.lab.processes import Process, read_pid_file, run_in, start_in

QUEUE: Final = 7
TABLE: Final = "mangle"
"""iptables, as not every kernel has a queue of nftables; the wire has no other rules."""
LONGEST_SECONDS: Final = 10.0
READY_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Wan:
    """What the line does now."""

    rtt_seconds: float = 0.0
    loss: float = 0.0
    overtaken: float = 0.0
    """Share of packets that those behind them overtake: they take half a round trip longer."""

    @property
    def is_off(self) -> bool:
        return self.rtt_seconds == 0 and self.loss == 0


@dataclass(frozen=True, slots=True)
class Line:
    """Where the delay line stands, and where its things are."""

    namespace: str
    folder: Path

    @property
    def process(self) -> Process | None:
        return read_pid_file(self.folder / "delay-line.pid")


def set_to(line: Line, wan: Wan) -> None:
    """Make the wire so. Packets under way are let go; connections live on."""
    if not 0 <= wan.rtt_seconds <= LONGEST_SECONDS or not 0 <= wan.loss < 1:
        raise EnvironmentFailureError(
            f"a round trip of {wan.rtt_seconds * 1000:g} ms with {wan.loss:.1%} loss is not possible; "
            f"allowed: 0 to {LONGEST_SECONDS:g} s, 0 % to under 100 %"
        )
    _take_off(line)
    if not wan.is_off:
        _put_in(line, wan)
    (line.folder / "wan.json").write_text(json.dumps(asdict(wan)) + "\n")


def now(line: Line) -> Wan:
    """What was set last, if its process still lives: without it packets pass at once."""
    try:
        said = Wan(**json.loads((line.folder / "wan.json").read_text()))
    except (OSError, ValueError, TypeError):
        return Wan()
    return said if line.process is not None else Wan()


def _put_in(line: Line, wan: Wan) -> None:
    ready, says = os.pipe2(os.O_CLOEXEC)
    try:
        process = start_in(
            line.namespace,
            [
                *("env", f"PYTHONPATH={Path(gateway.__file__).parent.parent}"),
                *(sys.executable, "-m", "gateway.lab.delay_line", "--queue", str(QUEUE)),
                *("--one-way", str(wan.rtt_seconds / 2), "--loss", str(wan.loss)),
                *("--overtaken", str(wan.overtaken)),
            ],
            log=line.folder / "delay-line.log",
            pid_file=line.folder / "delay-line.pid",
            stdout=says,
        )
        os.close(says)
        says = -1
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        if not poll.poll(READY_SECONDS * 1000) or not os.read(ready, 16):
            process.signal(signal.SIGKILL)
            raise EnvironmentFailureError(f"the delay line does not start: see {line.folder}/delay-line.log")
    finally:
        os.close(ready)
        if says >= 0:
            os.close(says)
    for program in ("iptables", "ip6tables"):
        queue = ["-j", "NFQUEUE", "--queue-num", str(QUEUE), "--queue-bypass"]
        run_in(line.namespace, [program, "-w", "-t", TABLE, "-A", "FORWARD", *queue])


def _take_off(line: Line) -> None:
    # First the rule, then the process: it lets go of what it holds, and nothing new comes.
    for program in ("iptables", "ip6tables"):
        run_in(line.namespace, [program, "-w", "-t", TABLE, "-F", "FORWARD"])
    process = line.process
    if process is not None:
        process.signal(signal.SIGTERM)
        if not process.wait_gone(STOP_SECONDS):
            process.signal(signal.SIGKILL)
            process.wait_gone(STOP_SECONDS)
