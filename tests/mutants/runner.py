"""Takes each check out in a copy of the tree and looks whether a test goes red. The tree itself stays.

Two copies, one mutant at a time in each. Before any mutant the same tests must be green in an untouched copy:
a test that is red anyway would show nothing. Tests run in children of a process that has loaded pytest
(`warm`).
"""

from __future__ import annotations

import enum
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.catalogue import EVERYTHING, TESTS
from tests.mutants.mutant import Edit, Mutant

ROOT: Final = Path(__file__).resolve().parents[2]
COPIES: Final = 2
_WARM: Final = Path(__file__).with_name("warm.py")
_LEFT_OUT: Final = shutil.ignore_patterns(".*", "__pycache__", "corpus", "build")
_NOT_ASKED: Final = ("tests/unit/test_mutants.py", "tests/unit/test_docs.py", "tests/unit/test_security.py")
"""They look at the text of the code or of the documents, and would see any change."""
_PASSED: Final = 0
_FAILED: Final = 1
_MOST_SECONDS: Final = 1800
"""All tests of a stage have so long. One that waits for ever is ended by the suite's own limit for one test,
and is red; where the machine is too slow for all of them, nothing has been shown."""

_LINES_SHOWN: Final = 60
"""Of what tests say that fail without any mutant."""


class Outcome(enum.Enum):
    RED = "red"
    SURVIVED = "survived"
    STALE = "text not found"
    """What the mutant replaces does not stand in the code once: the list must be mended."""
    BROKEN = "tests did not run"


@dataclass(frozen=True, slots=True)
class Result:
    """`test` is the first one that failed."""

    mutant: Mutant
    outcome: Outcome
    test: str = ""


class Copy:
    """Of the tree, with a process that runs tests there. Use `with`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._said = folder.with_name(f"{folder.name}.said")
        self._warm = subprocess.Popen(
            [sys.executable, "-P", str(_WARM)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "NIGHTMAIL_TESTS": "mutants"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Copy:
        return self

    def __exit__(self, *_: object) -> None:
        self._warm.communicate()

    def pytest(self, tests: Sequence[str]) -> tuple[int | None, str]:
        """Exit status, and the first test that failed; None where they did not come to their end."""
        assert self._warm.stdin is not None and self._warm.stdout is not None
        words = [
            *("-x", "-q", "--tb=short", "-m", "not long and not kernel", "-p", "no:cacheprovider", *tests),
            *(f"--ignore={file}" for file in _NOT_ASKED),
        ]
        print(json.dumps([str(self._said), *words]), file=self._warm.stdin, flush=True)
        child = int(self._warm.stdout.readline())
        limit = threading.Timer(_MOST_SECONDS, os.kill, (child, signal.SIGKILL))
        limit.start()
        status = int(self._warm.stdout.readline())
        limit.cancel()
        if status == -signal.SIGKILL:
            return None, "no end"
        found = re.search(r"^(?:FAILED|ERROR) (\S+\.py\S*)", self.said(), re.MULTILINE)
        return status, found[1] if found else ""

    def said(self) -> str:
        """What the last tests said."""
        return self._said.read_text(errors="replace")


class NotGreenError(Exception):
    """The tests fail without any mutant."""


def stale(mutant: Mutant, root: Path = ROOT) -> bool:
    return not all(_applies(edit, root) for edit in mutant.edits)


def first_tests(mutant: Mutant) -> tuple[str, ...]:
    files = dict.fromkeys(test for edit in mutant.edits for test in TESTS[edit.file])
    return tuple(files)


def run(mutants: Sequence[Mutant], tell: Callable[[Result], None]) -> list[Result]:
    """All of them, `tell` as each is done; answers in their order. Raises `NotGreenError`."""
    if not mutants:
        return []
    with _copies() as copies:
        _must_be_green(copies, mutants)
        lock = threading.Lock()

        def one(mutant: Mutant) -> Result:
            copy = copies.get()
            try:
                result = run_one(mutant, copy)
            finally:
                copies.put(copy)
            with lock:
                tell(result)
            return result

        with ThreadPoolExecutor(COPIES) as pool:
            return list(pool.map(one, mutants))


def run_one(mutant: Mutant, copy: Copy) -> Result:
    root = copy.folder
    if stale(mutant, root):
        return Result(mutant, Outcome.STALE)
    files = {edit.file: (root / edit.file).read_text() for edit in mutant.edits}
    try:
        for edit in mutant.edits:
            _write(root / edit.file, (root / edit.file).read_text().replace(edit.old, edit.new))
        for tests in filter(None, (first_tests(mutant), _room(mutant), EVERYTHING)):
            status, test = copy.pytest(tests)
            if status != _PASSED:
                return Result(mutant, Outcome.RED if status == _FAILED else Outcome.BROKEN, test)
        return Result(mutant, Outcome.SURVIVED)
    finally:
        for file, text in files.items():
            _write(root / file, text)


@contextmanager
def _copies() -> Iterator[queue.Queue[Copy]]:
    with tempfile.TemporaryDirectory(prefix="nightmail-mutants-") as folder, ExitStack() as stack:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(COPIES):
            copy = Path(folder) / str(number)
            shutil.copytree(ROOT, copy, ignore=_LEFT_OUT)
            copies.put(stack.enter_context(Copy(copy)))
        yield copies


def _must_be_green(copies: queue.Queue[Copy], mutants: Sequence[Mutant]) -> None:
    wanted = tuple(dict.fromkeys(test for mutant in mutants for test in first_tests(mutant)))
    copy = copies.get()
    status, test = copy.pytest(wanted)
    said = copy.said()
    copies.put(copy)
    if status != _PASSED:
        lines = said.splitlines()[-_LINES_SHOWN:]
        raise NotGreenError("\n".join([test or f"pytest ended with {status}", *lines]))


def _room(mutant: Mutant) -> tuple[str, ...]:
    """The unit tests' folders of the packages that it changes; some modules are in none."""
    parts = [Path(edit.file).parts for edit in mutant.edits]
    return tuple(dict.fromkeys(f"tests/unit/{rest[0]}" for _, *rest in parts if len(rest) > 1))


def _applies(edit: Edit, root: Path) -> bool:
    path = root / edit.file
    return path.exists() and path.read_text().count(edit.old) == 1


def _write(path: Path, text: str) -> None:
    """Compiled files are told from the source by its time and size: none may stay that is older."""
    path.write_text(text)
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
