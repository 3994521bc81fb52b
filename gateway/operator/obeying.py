"""`nightmail down` beside a running daemon: waits until that one has obeyed; says what became of sessions.

A daemon that reads the word lets its sessions end, resets those that do not, and takes the rules out itself:
without rules they would stand still, and what mail servers still send in them would leave in clear.
Counterparts: `lifecycle`, which writes the word before and sees behind it that all rules are gone;
`runtime.supervisor.rulekeeper`, which obeys.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.intercept.wanted import Wanted
from gateway.operator.status import Status, ask, is_running
from gateway.policy import limits

_HURRY: Final = b"hurry\n"
_STAND: Final = "stand"
_CANNOT_GO_ON: Final = (
    "{} cannot go on, and what mail servers still send in them leaves in clear: end the daemon"
)


def awaited(control: Path, pause: Callable[[float], None], *, hurried: bool) -> str:
    """Until the daemon has obeyed or ended, hangs, or has had the time for all of that.

    What there is to say of its sessions, to go on with a line; mostly nothing. `hurried`: those that are open
    are not waited for.
    """
    seconds = limits.HURRIED_DOWN_SECONDS if hurried else limits.DOWN_SECONDS
    answer: Status | None = {}
    try:
        if hurried:
            ask(control, _HURRY, limits.OBEYING_SECONDS)
        for _ in range(round(seconds / limits.RULES_ASKED_SECONDS)):
            pause(limits.RULES_ASKED_SECONDS)
            answer = ask(control, seconds=limits.OBEYING_SECONDS)
            if answer is None or _has_obeyed(answer):
                break
    except EnvironmentFailureError as error:
        if not is_running(control):  # it was killed while it was asked
            return ""
        return f"; {error}: {_CANNOT_GO_ON.format('sessions that are open')}"
    return _of_sessions(answer or {})


def _has_obeyed(answer: Status) -> bool:
    rules = answer.get("rules", {})
    is_out = not (rules.get("queues") or rules.get(_STAND))
    return answer.get("wanted") == Wanted.DOWN.value and is_out


def _of_sessions(answer: Status) -> str:
    rules = answer.get("rules", {})
    if rules.get(_STAND) is False:
        reset = rules.get("reset", 0)
        were = "was" if reset == 1 else "were"
        return f"; {_so_many(reset)} had not ended and {were} reset" if reset else ""
    # It has not had the time, or is of a version that does not see to them.
    left = sum(worker.get("sessions", 0) for worker in answer.get("workers", ()))
    return f"; {_CANNOT_GO_ON.format(f'{_so_many(left)} that are open')}" if left else ""


def _so_many(sessions: int) -> str:
    return "1 session" if sessions == 1 else f"{sessions} sessions"
