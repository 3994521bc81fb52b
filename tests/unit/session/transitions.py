"""Which transitions the session machines have taken. Counterpart: `conftest`, which records every one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.session.events import Event
from gateway.session.receiving import ReceivingSession
from gateway.session.sending import SendingSession

MACHINES: tuple[type[Any], ...] = (SendingSession, ReceivingSession)
TAKEN: set[tuple[str, str, str]] = set()
"""Machine, handler, state afterwards."""


def declared(machine: type[Any]) -> set[tuple[str, str, str]]:
    """All that `_TABLE` and `_NEXT` allow."""
    return {
        (machine.__name__, handler.__name__, after.value)
        for (state, _, _), handler in machine._TABLE.items()
        for after in machine._NEXT.get(handler, {state})
    }


def recording(handle: Callable[..., Any]) -> Callable[..., Any]:
    """`handle` of a machine, which fails where a transition is not declared."""

    def handle_and_record(self: Any, event: Event, now: float) -> Any:
        before = self.state
        commands = handle(self, event, now)
        handler = self._TABLE.get((before, type(event), getattr(event, "side", None)))
        if handler is not None:
            after = self.state
            assert after in self._NEXT.get(handler, {before}), f"{handler.__name__}: {before} to {after}"
            # A test's own kind of a machine is that machine.
            named = next((one for one in MACHINES if isinstance(self, one)), type(self))
            TAKEN.add((named.__name__, handler.__name__, after.value))
        return commands

    return handle_and_record
