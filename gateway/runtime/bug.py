"""An exception that nobody has foreseen, in words: a bug of ours, told to the log and to the supervisor.

Whoever meets one ends what it was about (a session, a SYN) and nothing else. Counterparts: `connection`,
`intake` and `turns`, which meet them; `hearing`, which rings.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from gateway.errors import Reason
from gateway.runtime.link import Message


@dataclass(frozen=True, slots=True)
class Bug:
    """`where` is the function that raised: the subject of the alarm, so that one bug rings once."""

    where: str
    detail: str

    @classmethod
    def of(cls, error: Exception) -> Bug:
        frames = traceback.extract_tb(error.__traceback__)
        where = frames[-1].name if frames else "nowhere"
        return cls(where, f"{type(error).__name__} in {where}: {error}")

    def alarm(self) -> Message:
        """For the supervisor."""
        return {"alarm": {"reason": Reason.INTERNAL.value, "subject": self.where, "detail": self.detail}}
