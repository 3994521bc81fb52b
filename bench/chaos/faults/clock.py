"""The clock of a gateway's machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bench.chaos.faults.fault import Act, Subject, on_daemon
from bench.chaos.ground import World
from bench.chaos.service import Service

SUBJECT: Final = Subject()
fault: Final = SUBJECT.fault

DAY: Final = 86_400.0


def _clock(seconds: float) -> Act:
    @on_daemon("a")
    def act(_: World, service: Service) -> Iterator[None]:
        service.set_clock_ahead(seconds)
        try:
            yield
        finally:
            service.set_clock_ahead(0.0)

    return act


for _name, _words, _days in (
    ("clock-day-forth", "a day forth", 1),
    ("clock-day-back", "a day back", -1),
    ("clock-30-days", "30 days forth", 30),
):
    fault(_name, f"gateway a's clock jumps {_words}", "and back again", seconds=3.0, quick=_days == 30)(
        _clock(_days * DAY)
    )
