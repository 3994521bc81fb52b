"""What a listener sees of a session: sizes, times and directions, as one row of numbers.

She reads what stands in clear: segments, and the headers of the frames, which tell each record's length. She
is given more than a real line would show her: the kernel's own joined segments, which end where a gateway's
write ended, and a clock without any network's noise. Counterparts: `gateway.eyes.wire` (the capture) and
`guess`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.crypto.padding import padme
from gateway.eyes import wire
from gateway.eyes.reading import FRAME_HEADER_OCTETS
from gateway.eyes.wire import WireSession
from gateway.policy.limits import FLIGHT_FLOOR_OCTETS

OPEN_AT_ONCE: Final = 4
"""A session's last segments may come behind the first ones of the next."""
FLIGHTS: Final = 16
LARGEST: Final = 4
SEGMENTS: Final = 60
FRAMES: Final = 60
TAIL: Final = 8


@dataclass(frozen=True, slots=True)
class Sight:
    """One session. `sizes` and `times` have the same number of columns for every session."""

    began: float
    sizes: list[float]
    times: list[float]
    flights: list[int]
    """Octets of each flight behind the verb, towards the server positive; verb and answer left out."""


def sights(pcap: Path) -> list[Sight]:
    """Every session of a capture that carried data in frames, in the order in which they began."""
    found = [_sight(session) for session in _sessions(pcap) if session.has_data]
    return sorted((one for one in found if one is not None), key=lambda one: one.began)


def _sessions(pcap: Path) -> Iterator[WireSession]:
    """One after the other: a whole capture in memory would be too large."""
    still: dict[frozenset[wire.Endpoint], WireSession] = {}
    for segment in wire.segments(pcap):
        ends = frozenset((segment.source, segment.destination))
        if segment.flags & wire.SYN and not segment.flags & wire.ACK and ends not in still:
            still[ends] = WireSession(segment.source, segment.destination)
        if ends in still:
            still[ends].take(segment)
        while len(still) > OPEN_AT_ONCE:
            yield still.pop(next(iter(still)))
    yield from still.values()


def _sight(session: WireSession) -> Sight | None:
    begins = {up: _first_frame(session.from_client if up else session.from_server) for up in (True, False)}
    if begins[True] is None or begins[False] is None:
        return None
    data = [(packet.time, packet.to_server, len(packet.fresh)) for packet in session.packets if packet.fresh]
    signed = [size if up else -size for _, up, size in data]
    flights, pauses = _flights(data)
    frames = {
        up: _frames(session.from_client if up else session.from_server, begins[up] or 0) for up in begins
    }
    sizes: list[float] = [sum(size for size in signed if size > 0), -sum(size for size in signed if size < 0)]
    sizes += [sum(size > 0 for size in signed), sum(size < 0 for size in signed), len(flights)]
    sizes += _row(sorted(flights), LARGEST) + _row(sorted(flights, reverse=True), LARGEST)
    sizes += _row(signed, SEGMENTS) + _row(signed[-TAIL:], TAIL) + _row(flights, FLIGHTS)
    for up in (True, False):
        sizes += [len(frames[up]), *_row(frames[up], FRAMES), *_row(frames[up][-TAIL:], TAIL)]
    gaps = [later[0] - sooner[0] for sooner, later in itertools.pairwise(data)]
    times = [
        data[-1][0] - data[0][0],
        *_row(gaps, SEGMENTS),
        *_row(gaps[-TAIL:], TAIL),
        *_row(pauses, FLIGHTS),
    ]
    return Sight(session.began, sizes, times, _padded_flights(data, begins))


def _row(values: list[int] | list[float], columns: int) -> list[float]:
    return [float(value) for value in values[:columns]] + [0.0] * (columns - len(values))


def _flights(data: list[tuple[float, bool, int]]) -> tuple[list[int], list[float]]:
    """Octets between two turns, signed by direction, and how long it took before each began."""
    flights: list[int] = []
    pauses: list[float] = []
    last = 0.0
    for when, up, size in data:
        signed = size if up else -size
        if flights and (flights[-1] > 0) == up:
            flights[-1] += signed
        else:
            flights.append(signed)
            pauses.append(when - last if last else 0.0)
        last = when
    return flights, pauses


def _padded_flights(data: list[tuple[float, bool, int]], begins: dict[bool, int | None]) -> list[int]:
    """The flights without what stands before the records."""
    left = {up: begin or 0 for up, begin in begins.items()}
    records = []
    for when, up, size in data:
        clear = min(left[up], size)
        left[up] -= clear
        if size > clear:
            records.append((when, up, size - clear))
    return _flights(records)[0]


def share_on_steps(seen: list[Sight]) -> float:
    """How many of all flights have a size that Padme allows: all if the gateways pad, few if not."""
    every = [abs(size) for one in seen for size in one.flights]
    return sum(size == padme(max(size, FLIGHT_FLOOR_OCTETS)) for size in every) / max(1, len(every))


def _first_frame(octets: bytes) -> int | None:
    """Where records begin: behind the last clear line and, towards the server, behind the answer."""
    found = wire.FIRST_FRAME.search(octets)
    if found is None:
        return None
    at = found.end() - 1
    if octets[at] == 0x81:
        at += FRAME_HEADER_OCTETS + int.from_bytes(octets[at + 1 : at + 3], "big")
    return at


def _frames(octets: bytes, at: int) -> list[int]:
    """The lengths that stand in the frames' headers."""
    lengths = []
    while at + FRAME_HEADER_OCTETS <= len(octets):
        lengths.append(FRAME_HEADER_OCTETS + int.from_bytes(octets[at + 1 : at + 3], "big"))
        at += lengths[-1]
    return lengths
