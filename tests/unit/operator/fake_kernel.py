"""In the place of a namespace's rules: what was asked of them, and what was wanted at that moment."""

from __future__ import annotations

from typing import Any

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.intercept import rules_lock
from gateway.intercept.wanted import Wanted, read_wanted


class FakeKernel:
    """Notes it, and fails when it is told to."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.done: list[tuple[str, Wanted]] = []
        self.fails = False
        self.counts: dict[str, int] = {}
        self.waited: list[float] = []
        self.ends: list[bool] = []
        """Whether workers without a supervisor had to hurry, each time that they were to end."""
        self.other = self.refusal = ""

    def note(self, what: str) -> None:
        self.done.append((what, read_wanted(self.config.wanted_file)))
        if self.config.run_dir.exists():
            self.waited.clear()
            with rules_lock.held(self.config, 0.05, self.waited.append):
                assert self.waited, f"{what} while the hand of the daemon may be at the rules"
        if self.fails:
            raise EnvironmentFailureError("not permitted")

    def rules(self, config: Config) -> FakeKernel:
        return self

    def apply(self, wanted: Any, live_queues: list[int]) -> None:
        self.note(f"apply {live_queues}")

    def remove(self) -> None:
        self.note("remove")
