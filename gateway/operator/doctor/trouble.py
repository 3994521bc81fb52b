"""What the doctor finds: one trouble, why it matters, and the one command that mends it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trouble:
    """`what` and `why` are one line each; `mend` is a line for a shell.

    Where only hands or another person can mend it, `mend` is a comment of the shell (`# ...`): nothing
    happens to whoever pastes it.
    """

    what: str
    why: str
    mend: str


def shell(*words: object) -> str:
    """The words as one command for a shell, whatever is in them: names and rules are other people's text."""
    return shlex.join(map(str, words))
