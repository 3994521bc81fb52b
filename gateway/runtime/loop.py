"""What anything asks of the event loop that it runs in, whichever that is.

A worker's loop is its own (`worker.turns`), the supervisor's is of asyncio's kind; a `link` has an end in
each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Cancellable(Protocol):
    """What is to be called later, and can still be called off."""

    def cancel(self) -> None: ...


class Loop(Protocol):
    """The moment, what is to be called when, and who is told of a readable descriptor."""

    def time(self) -> float: ...
    def call_soon(self, callback: Callable[..., object], *args: Any) -> object: ...
    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Cancellable: ...
    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Cancellable: ...
    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> object: ...
    def remove_reader(self, fd: int) -> object: ...
