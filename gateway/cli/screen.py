"""`nightmail status --watch` at a terminal: draws a moment over the whole screen, and leaves no trace of it.

Nothing is drawn and nothing restored in a signal handler: signals only wake the one place that waits, so
the terminal is put back in order whatever ends the watch. Counterpart: `operator.watching`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway.cli.shell import shown
from gateway.operator import status as asking
from gateway.operator import watching
from gateway.operator.watching import Moment
from gateway.policy import limits

_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KEYS_THAT_END: Final = b"qQ\x03"


class FullScreen:
    """The alternate screen, without cursor and echo; `leave` puts all of it back, as often as asked."""

    def __init__(self) -> None:
        self._console = Console()
        self._live: Live | None = None
        self._drawn: RenderableType = Text("")
        self._before: list[Any] | None = None

    def enter(self) -> None:
        if sys.stdin.isatty():
            self._before = termios.tcgetattr(sys.stdin)
            quiet = termios.tcgetattr(sys.stdin)
            quiet[3] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
        # Drawn by nobody but `show`: a thread of its own could still draw when the screen is left.
        self._live = Live(self._drawn, console=self._console, screen=True, auto_refresh=False)
        self._live.start(refresh=True)

    def leave(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._before is not None:
            # What was typed meanwhile was for this screen, not for the shell behind it.
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, self._before)
            self._before = None

    def show(self, moment: Moment) -> None:
        self._drawn = drawn(moment)
        self.redraw()

    def redraw(self) -> None:
        if self._live is not None:
            self._live.update(self._drawn, refresh=True)


class Ears:
    """Hears signals and keys while nothing else is done; for its time the signals' usual effect is off."""

    def __init__(self, screen: FullScreen | None) -> None:
        self._screen = screen
        self._heard: list[int] = []
        self._before: dict[int, Any] = {}
        self._keys: int | None = None

    def __enter__(self) -> Self:
        self._wakes, self._woken = os.pipe()
        for end in (self._wakes, self._woken):
            os.set_blocking(end, False)
        self._wakeup_before = signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        heard = (*_ENDS, signal.SIGTSTP, signal.SIGWINCH) if self._screen is not None else _ENDS
        self._before = {number: signal.signal(number, self._hear) for number in heard}
        if self._screen is not None:
            self._screen.enter()
            self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen is not None:
            self._screen.leave()
        for number, before in self._before.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._wakes)
        os.close(self._woken)

    def wait(self, seconds: float) -> bool:
        """Whether the watch is to end, within so many seconds."""
        until = time.monotonic() + seconds
        while True:
            if self._is_to_end():
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            listened = [self._wakes] if self._keys is None else [self._wakes, self._keys]
            ready, _, _ = select.select(listened, [], [], left)
            if self._wakes in ready:
                os.read(self._wakes, 512)
            if self._keys in ready and self._key_ends():
                return True

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard.append(number)

    def _is_to_end(self) -> bool:
        heard, self._heard = self._heard, []
        if any(number in _ENDS for number in heard):
            return True
        if self._screen is not None and signal.SIGTSTP in heard:
            self._screen.leave()
            os.kill(os.getpid(), signal.SIGSTOP)  # comes back here with SIGCONT
            self._screen.enter()
        elif self._screen is not None and heard:
            self._screen.redraw()
        return False

    def _key_ends(self) -> bool:
        assert self._keys is not None
        typed = os.read(self._keys, 64)
        if not typed:
            self._keys = None  # the keyboard is gone; a terminal that is gone as well says so by SIGHUP
        return any(key in _KEYS_THAT_END for key in typed)


# --- Drawing ---------------------------------------------------------------------------------------------


def drawn(moment: Moment) -> RenderableType:
    """All of it, in the order of importance: a small terminal cuts the end off."""
    return Group(*_parts(moment))


def _parts(moment: Moment) -> Iterator[RenderableType]:
    head = Table.grid(expand=True)
    head.add_column(ratio=1)
    head.add_column(justify="right")
    head.add_row(Text("nightmail", style="bold"), Text(f"q ends   {watching.at(moment)}", style="dim"))
    yield head
    yield Text(shown(moment.answer), style="bold green" if moment.protects else "bold red")
    if moment.running:
        yield Text(watching.now(moment))
    rung = list(asking.alarms(moment.status))
    yield from map(_plain, rung[: limits.WATCH_ALARMS])
    if len(rung) > limits.WATCH_ALARMS:
        yield Text(f"and {len(rung) - limits.WATCH_ALARMS} alarms more: `nightmail status`", style="red")
    yield Text("")
    for line in asking.shares(moment.status):
        # The sentence before each table is the answer: it is wrapped, not cut.
        yield _plain(line) if line.startswith(" ") else Text(shown(line))
    if moment.peers:
        yield Text("")
        table = Table("peer", "identities", "last seen", "", box=None, pad_edge=False, header_style="dim")
        for pin in moment.peers:
            trouble = Text("in trouble", style="red") if pin.in_trouble else Text("")
            accepted = sum(known.accepted for known in pin.identities)
            known = f"{accepted} of {len(pin.identities)} accepted"
            table.add_row(Text(str(pin.destination)), known, asking.when(pin.last_seen), trouble)
        yield table
    yield Text("")
    yield from map(_plain, asking.rest(moment.status, with_alarms=False))


def _plain(line: str) -> Text:
    """One line, cut and never wrapped; never taken for markup."""
    style = "red" if line.startswith("alarm: ") else ""
    # rich takes out a few control characters, and lets escapes pass.
    return Text(shown(line), style=style, no_wrap=True, overflow="ellipsis")
