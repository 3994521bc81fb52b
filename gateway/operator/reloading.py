"""`nightmail reload`: ask the daemon, and see the new generation of workers take over.

Counterpart: `runtime.supervisor`, which executes itself anew; who asks meanwhile is answered by the next one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.operator import status
from gateway.policy import limits

_QUESTION: Final = b"reload\n"


@dataclass(frozen=True, slots=True)
class Reloaded:
    """`older`: sessions that go on in workers of older generations."""

    version: str
    generation: int
    workers: int
    older: int

    @property
    def told(self) -> str:
        finish = "1 session finishes" if self.older == 1 else f"{self.older} sessions finish"
        rest = f"; {finish} with the older ones" if self.older else ""
        return f"reloaded: version {self.version}, {self.workers} new workers serve{rest}"


def reload(config: Config) -> Reloaded:
    """Raises EnvironmentFailureError: no daemon, not fit to be loaded, or the new workers do not come up."""
    before = status.required(config.control_socket)
    answer = status.ask(config.control_socket, _QUESTION, limits.CONTROL_SECONDS + limits.RELOAD_SECONDS)
    if answer is None or "reloads" not in answer:
        raise EnvironmentFailureError("the running daemon knows no reload: restart it")
    if not answer["reloads"]:
        raise EnvironmentFailureError(f"not reloaded, nothing has changed: {answer['trouble']}")
    return _seen_through(config, _generation(before) + 1)


def _seen_through(config: Config, wanted: int) -> Reloaded:
    there = time.monotonic()
    deadline = there + limits.START_SECONDS
    while (moment := time.monotonic()) < deadline:
        now = _now(config)
        if now and (done := _done(now, wanted)):
            return done
        if now is not None:
            there = moment
        elif moment - there > limits.CONTROL_SECONDS:
            raise EnvironmentFailureError(
                "the daemon has ended as it was reloaded: its log says why, `nightmail doctor` how to go on"
            )
        time.sleep(limits.RELOAD_LOOK_SECONDS)
    raise EnvironmentFailureError(
        "the new workers have not taken over; the older ones go on serving (the log says why)"
    )


def _now(config: Config) -> dict[str, Any] | None:
    """None: nobody is there. Empty: there is no answer, for it may become the next one while it answers."""
    try:
        return status.ask(config.control_socket)
    except EnvironmentFailureError:
        return {}


def _generation(facts: dict[str, Any]) -> int:
    return max((worker.get("generation", 0) for worker in facts["workers"]), default=0)


def _done(facts: dict[str, Any], wanted: int) -> Reloaded | None:
    newest = _generation(facts)  # a later one than `wanted` where somebody else has asked for a reload, too
    new = [worker for worker in facts["workers"] if worker["generation"] == newest >= wanted]
    leads = {worker["queue"] for worker in new} <= set(facts["rules"]["queues"]) or facts["wanted"] == "down"
    if not new or not leads or any(worker["state"] != "serving" for worker in new):
        return None
    older = sum(worker["sessions"] for worker in facts["workers"] if worker["generation"] < newest)
    return Reloaded(facts["version"], newest, len(new), older)
