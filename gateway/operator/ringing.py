"""`nightmail ring`: ask the daemon to try each way by which its alarms reach people.

The daemon does it, not the command: what is closed to a service is open to the shell of whoever asks.
Counterpart: `runtime.supervisor.alarms_out`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.operator import status
from gateway.policy import limits

_QUESTION: Final = b"ring\n"
_SECONDS: Final = limits.CONTROL_SECONDS + limits.ANSWER_SECONDS


@dataclass(frozen=True, slots=True)
class Tried:
    """One way. `trouble`: why it failed, or nothing."""

    by: str
    went: bool
    trouble: str

    @property
    def told(self) -> str:
        return f"{self.by}: {'went' if self.went else f'FAILED, {self.trouble}'}"


def ring(config: Config) -> list[Tried]:
    """Raises EnvironmentFailureError: no daemon, one that does not know how, or no way that it knows."""
    answer = status.required(config.control_socket, _QUESTION, _SECONDS)
    if "ways" not in answer:
        raise EnvironmentFailureError("the running daemon is of an older version: `nightmail reload` first")
    if not answer["ways"]:
        raise EnvironmentFailureError(
            "the running daemon knows no way to people:"
            " set `alarms.mail_to` or `alarms.command`, then `nightmail reload`"
        )
    return [Tried(by, not trouble, trouble) for by, trouble in answer["ways"].items()]
