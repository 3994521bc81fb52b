"""What `nightmail status --watch` shows of one moment: sessions, rates, peers, reasons. Data, no drawing.

Counterparts: `status` (the daemon's answer), `cli.screen` (draws it).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.observe.protection import is_protecting
from gateway.operator import peers as showing
from gateway.operator import status as asking
from gateway.peers.pins import Pin
from gateway.peers.store import PinStore
from gateway.policy import limits

_RATES: Final = ("sessions-begun", "octets-protected", "octets-clear")


@dataclass(frozen=True, slots=True)
class Rates:
    """By the second, over the last few looks."""

    sessions: float
    octets_protected: float
    octets_clear: float


@dataclass(frozen=True, slots=True)
class Moment:
    """One look. Without a daemon, `status` holds what is kept of it, which is little."""

    wall: float
    running: bool
    status: Mapping[str, Any]
    peers: tuple[Pin, ...] = ()
    """The most recently seen ones, those in trouble first."""
    rates: Rates | None = None
    """None until there are two looks at one daemon."""
    trouble: str = ""
    """Why the daemon has not answered, where it is there."""
    without: str = asking.without_daemon("`nightmail run` starts it")
    """The answer where there is none."""

    @property
    def protects(self) -> bool:
        return self.running and is_protecting(self.status)

    @property
    def answer(self) -> str:
        """The first line: is mail protected now?"""
        if self.running:
            return asking.answer(self.status)
        return asking.without_answer(self.trouble) if self.trouble else self.without


class Watch:
    """Looks again and again. Trouble with the daemon or the memory of peers is shown, never raised."""

    def __init__(self, config: Config, starting: str) -> None:
        """`starting`: how a daemon is started here."""
        self._config = config
        self._without = asking.without_daemon(starting)
        self._store: PinStore | None = None
        self._seen: deque[tuple[float, Mapping[str, Any]]] = deque(maxlen=limits.WATCH_LOOKS)

    def look(self) -> Moment:
        wall, trouble = time.time(), ""
        try:
            status = asking.ask(self._config.control_socket)
            trouble = asking.unheard(self._config.control_socket) if status is None else ""
        except EnvironmentFailureError as error:
            status, trouble = None, str(error)
        if status is None:
            self._seen.clear()
            kept = asking.kept(self._config.pins_file, int(wall))
            return Moment(wall, False, kept, trouble=trouble, without=self._without)
        return Moment(wall, True, status, self._peers(), self._rates(time.monotonic(), status))

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _rates(self, at: float, status: Mapping[str, Any]) -> Rates | None:
        tallies = asking.mapping(asking.mapping(status, "counters"), "tallies")
        if self._seen and any(_number(tallies, name) < _number(self._seen[-1][1], name) for name in _RATES):
            self._seen.clear()  # another daemon, which has counted from nothing
        self._seen.append((at, tallies))
        first_at, first = self._seen[0]
        if at <= first_at:
            return None
        return Rates(*((_number(tallies, name) - _number(first, name)) / (at - first_at) for name in _RATES))

    def _peers(self) -> tuple[Pin, ...]:
        try:
            if self._store is None:
                self._store = PinStore.read_only(self._config.pins_file)
            pins = self._store.pins()
        except EnvironmentFailureError:
            self.close()
            return ()
        pins.sort(key=lambda pin: (not pin.in_trouble, -pin.last_seen))
        return tuple(pins[: limits.WATCH_PEERS])


def told(moment: Moment) -> Iterator[str]:
    """A plain block of lines, for a pipe or a file."""
    yield f"--- {at(moment)}"
    yield moment.answer
    if moment.running:
        yield now(moment)
    yield from asking.facts(moment.status)
    for pin in moment.peers:
        yield f"peer: {peer(pin)}"


def at(moment: Moment) -> str:
    return datetime.fromtimestamp(moment.wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def now(moment: Moment) -> str:
    """Sessions and rates of this moment, in one line."""
    tallies = asking.mapping(asking.mapping(moment.status, "counters"), "tallies")
    line = (
        f"now: {_number(tallies, 'sessions-open')} sessions open, {_number(tallies, 'syns-held')} SYNs held"
    )
    if moment.rates is None:
        return line
    rates = moment.rates
    return (
        f"{line}; {rates.sessions:.1f} new/s, {octets(rates.octets_protected)}/s protected,"
        f" {octets(rates.octets_clear)}/s in clear"
    )


def peer(pin: Pin) -> str:
    return f"{showing.in_one_line(pin)}{', IN TROUBLE' if pin.in_trouble else ''}"


def octets(count: float) -> str:
    """`812 B`, `12.3 kB`, `4.0 MB`: powers of ten, as networks count."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def as_json(moment: Moment) -> dict[str, Any]:
    rates = moment.rates
    return {
        "at": int(moment.wall),
        "running": moment.running,
        "protecting": moment.protects,
        "trouble": moment.trouble or None,
        "rates": None
        if rates is None
        else {
            "sessions": round(rates.sessions, 3),
            "octets_protected": round(rates.octets_protected),
            "octets_clear": round(rates.octets_clear),
        },
        "recent_peers": [{**showing.as_json(pin), "in_trouble": pin.in_trouble} for pin in moment.peers],
        **moment.status,
    }


def _number(counts: Mapping[str, Any], name: str) -> int:
    count = counts.get(name)
    return count if isinstance(count, int) else 0
