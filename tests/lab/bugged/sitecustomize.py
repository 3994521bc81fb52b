"""Callbacks of a worker that raise, once each, for the client at a port of their own.

Python reads this at its start where this folder is on its path, which `test_bugs` sees to: the product knows
nothing of it. BUGS_FROM is the port of the first of `BUGS`; the others' follow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final

BUGS: Final = ("handle", "timer", "readable", "syn", "dial", "accept")


def install(first: int) -> None:
    from gateway.runtime.worker.connection import Connection
    from gateway.runtime.worker.endpoint import Endpoint
    from gateway.runtime.worker.intake import Intake
    from gateway.session.events import DeadlineReached, OctetsReceived
    from gateway.session.receiving import ReceivingSession
    from gateway.session.sending import SendingSession

    armed = {name: first + number for number, name in enumerate(BUGS)}
    ports: dict[int, int] = {}
    begin = Connection.__init__

    def begun(self: Any, loop: Any, poller: Any, worker: Any, machine: Any, flow: Any, *rest: Any) -> None:
        ports[id(machine)] = flow.source_port
        begin(self, loop, poller, worker, machine, flow, *rest)

    Connection.__init__ = begun  # type: ignore[method-assign, assignment]

    def breaks(bug: str, owner: Any, name: str, port_of: Callable[..., int | None]) -> None:
        whole = getattr(owner, name)

        def broken(*args: Any) -> Any:
            if bug in armed and port_of(*args) == armed[bug]:
                del armed[bug]
                raise RuntimeError(f"injected: {bug}")
            return whole(*args)

        setattr(owner, name, broken)

    def at(kind: type) -> Callable[..., int | None]:
        return lambda machine, event, now: ports.get(id(machine)) if isinstance(event, kind) else None

    for machine in (SendingSession, ReceivingSession):
        breaks("handle", machine, "handle", at(OctetsReceived))
        breaks("timer", machine, "handle", at(DeadlineReached))
    breaks("readable", Endpoint, "_readable", lambda endpoint: endpoint._owner.flow.source_port)
    breaks("syn", Intake, "_judge", lambda intake, token, flow, *rest: flow and flow.source_port)
    breaks("dial", Intake, "_gate_dial_done", lambda intake, flow, *rest: flow.source_port)
    breaks("dial", Intake, "_dialled_after", lambda intake, role, accepted, flow, *rest: flow.source_port)
    breaks("accept", Intake, "_claim", lambda intake, flow, accepted: flow.source_port)


if "gateway.runtime.worker" in sys.orig_argv:
    install(int(os.environ["BUGS_FROM"]))
