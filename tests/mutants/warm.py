"""A process that has loaded all but the code: for each question it forks, and the child runs these tests.

Started by path in a copy of the tree, whose code it must never load itself: a child would have that as it was
before the change. To start pytest takes longer than most tests that see a mutant. Counterpart: `runner`.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import sys
import tempfile
from typing import IO, Final

import pytest

_LIBRARIES: Final = (
    *("asyncio", "click", "hypothesis.stateful", "logging.handlers", "multiprocessing", "sqlite3", "uvloop"),
    *("cryptography.hazmat.primitives.asymmetric.x25519", "nacl.bindings"),
)


class _LoadsLibraries:
    """As a plugin: what is loaded while pytest runs is loaded its way, and another run is content with it."""

    @staticmethod
    def pytest_sessionstart() -> None:
        for name in _LIBRARIES:
            importlib.import_module(name)


def main() -> None:
    """A line for each question: where to write what pytest says, and its words. Two lines for an answer: the
    child, when it has begun, and its exit status."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    questions, answers = (os.fdopen(os.dup(number), mode) for number, mode in ((0, "r"), (1, "w")))
    for number in (0, 1):
        os.dup2(nowhere, number)
    with tempfile.TemporaryDirectory() as nothing:
        pytest.main(["--collect-only", "-p", "no:cacheprovider", nothing], [_LoadsLibraries()])
    assert not [name for name in sys.modules if name.split(".")[0] == "gateway"]
    for question in questions:
        said, *words = json.loads(question)
        answer(answers, said, words)


def answer(answers: IO[str], said: str, words: list[str]) -> None:
    child = os.fork()
    if child == 0:
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        status = pytest.main(words)
        # As at the end of every process, which this one leaves without its parent's.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(status)
    print(child, file=answers, flush=True)
    _, ended = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(ended), file=answers, flush=True)


if __name__ == "__main__":
    main()
