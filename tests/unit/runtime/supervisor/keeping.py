"""A keeper of the rules whose kernel is a fake: it fails as often as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from gateway.config import Config
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept import ruleset
from gateway.intercept.kernel import Mended
from gateway.observe.log import Log, LogSink
from gateway.runtime.supervisor.rulekeeper import RuleKeeper


class Kernel:
    """Fails as often as `fails` says; `gates` are those that it has taken."""

    def __init__(self) -> None:
        self.fails = 0
        self.gates: list[list[int]] = []
        self.standing = {"text inet": "ours"}

    def swap_gate(self, live: Iterable[int]) -> None:
        if self.fails:
            self.fails -= 1
            raise EnvironmentFailureError("iptables-restore: Resource temporarily unavailable")
        self.gates.append(list(live))

    def mend(self) -> Mended:
        """Nobody has changed a rule: the kernel's number of them is the same."""
        return Mended()


class World:
    """A keeper whose rules stand, and two workers that live."""

    def __init__(self, folder: Path) -> None:
        self.config = config = Config(inside=("lan",), outside=("wan",), state_dir=folder, run_dir=folder)
        self.kernel = Kernel()
        self.rung: list[tuple[Reason, str]] = []
        self.told: list[list[int]] = []
        self.emptied: list[list[int]] = []
        """Where the gate sent SYNs when sessions were to end."""
        self.resets = 0
        self.log = Log(LogSink.to_file(folder / "log"))
        self.keeper = RuleKeeper(
            config,
            ruleset.slots_of(config),
            lambda: [7, 8],
            lambda: 0,
            self.log,
            lambda reason, subject, detail: self.rung.append((reason, detail)),
            self.told.append,
            lambda: False,
            self._empty,
        )
        self.keeper._kernel = self.kernel  # type: ignore[assignment]
        self.keeper.stands = True

    async def _empty(self) -> int:
        self.emptied.append(self.kernel.gates[-1] if self.kernel.gates else [])
        return self.resets

    async def keep(self) -> None:
        """Until mail comes before a worker's eyes."""
        keeping = asyncio.create_task(self.keeper.keep())
        guarded = asyncio.create_task(self.keeper.guarded.wait())
        await asyncio.wait({keeping, guarded}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert guarded.done(), "the gate is never switched"
        assert not keeping.done()
        keeping.cancel()
