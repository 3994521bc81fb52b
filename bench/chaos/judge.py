"""Facts of one fault -> its figures. Pure: knows no clock, no file and no lab.

A gap is the longest time, for one pair of addresses, in which whoever tried to connect did not get through,
were it then or with a later connection: for each moment at which one tried, how long until a connection that
began then or later was greeted. Pairs are judged one by one, for a pair is one worker's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from bench.chaos.facts import Fact

SAME_SESSION_SECONDS = 30.0
"""A source port is used again after longer than this, and a lasting session speaks more often."""


@dataclass(frozen=True, slots=True)
class Window:
    """What counts: connections and mails that began in it."""

    begin: float
    end: float

    def holds(self, moment: float) -> bool:
        return self.begin <= moment < self.end


@dataclass(slots=True)
class Posted:
    """What became of the mails that Postfix sent to Postfix."""

    sent: int = 0
    lost: int = 0
    doubled: int = 0
    in_doubt: int = 0
    altered: int = 0


@dataclass(slots=True)
class Seen:
    """What one world saw of a fault."""

    gap: float = 0.0
    slowest: float = 0.0
    """The longest wait of a single connection for its greeting."""
    failed: int = 0
    """Connections that never were greeted."""
    broken: int = 0
    mails: int = 0
    lost: int = 0
    doubled: int = 0
    altered: int = 0
    in_doubt: int = 0
    clear: int = 0
    dark: int = 0
    notes: dict[str, float] = field(default_factory=dict)


def gap(probes: Iterable[tuple[float, float | None]], end: float) -> float:
    """Of one pair of addresses: (began, greeted or None) -> seconds; to `end` if none came through after."""
    longest, soonest = 0.0, end
    for began, greeted in sorted(probes, key=lambda probe: probe[0], reverse=True):
        soonest = min(soonest, greeted if greeted is not None else inf)
        longest = max(longest, soonest - began)
    return longest


def judge(
    facts: Sequence[Fact], window: Window, posted: Posted, died_with: frozenset[int], clear_from: float
) -> Seen:
    """`died_with`: source ports of sessions whose process died. `clear_from`: when a channel was possible
    again, before which nothing in clear is held against anybody."""
    seen = Seen()
    probes = [fact for fact in facts if fact["kind"] == "probe" and window.holds(fact["began"])]
    _judge_probes(seen, probes, window.end)
    seen.broken = sum(fact["kind"] == "broken" and window.holds(fact["at"]) for fact in facts)
    _judge_mails(seen, facts, window, died_with)
    seen.mails += posted.sent
    seen.lost += posted.lost
    seen.doubled += posted.doubled
    seen.altered += posted.altered
    seen.in_doubt += posted.in_doubt
    seen.clear = _begun_so("clear", facts, clear_from, window.end)
    seen.dark = _begun_so("dark", facts, window.begin, window.end)
    return seen


def _begun_so(kind: str, facts: Sequence[Fact], since: float, end: float) -> int:
    """Connections first seen like this between the two moments; a session that lasts is seen often."""
    before: set[tuple[str, int]] = set()
    within: set[tuple[str, int]] = set()
    for fact in facts:
        if fact["kind"] == kind and since - SAME_SESSION_SECONDS <= fact["at"] < end:
            (within if fact["at"] >= since else before).add((fact["source"], fact["port"]))
    return len(within - before)


def _judge_probes(seen: Seen, probes: list[Fact], end: float) -> None:
    lanes = defaultdict(list)
    for probe in probes:
        lanes[probe["target"]].append((probe["began"], probe["greeted"]))
    seen.gap = max((gap(lane, end) for lane in lanes.values()), default=end)
    waits = [probe["greeted"] - probe["began"] for probe in probes if probe["greeted"] is not None]
    seen.slowest = max(waits, default=0.0)
    seen.failed = len(probes) - len(waits)


def _judge_mails(seen: Seen, facts: Sequence[Fact], window: Window, died_with: frozenset[int]) -> None:
    copies: dict[str, list[bool]] = defaultdict(list)
    for fact in facts:
        if fact["kind"] == "taken":
            copies[fact["name"]].append(fact["whole"])
    for mail in facts:
        if mail["kind"] != "mail" or not window.holds(mail["ended"]):
            continue
        seen.mails += 1
        came = copies[mail["name"]]
        seen.lost += not came
        seen.altered += came.count(False)
        # Each copy beyond the first needs a doubt, and each doubt a process that died with the final reply.
        excused = min(max(0, len(came) - 1), sum(port in died_with for port in mail["doubts"]))
        seen.in_doubt += excused
        seen.doubled += max(0, len(came) - 1 - excused)


def figures(name: str, with_gateways: Seen, without: Seen, *, alarmed: bool) -> dict[str, object]:
    """One row of the table: what the gateways added to the fault."""
    return {
        "name": name,
        "gap_s": round(max(0.0, with_gateways.gap - without.gap), 3),
        "broken": max(0, with_gateways.broken - without.broken),
        "lost": with_gateways.lost,
        "doubled": with_gateways.doubled,
        "altered": with_gateways.altered,
        "in_doubt": with_gateways.in_doubt,
        "clear": with_gateways.clear,
        "alarmed": alarmed,
        "broken_without": without.broken,
        "gap_without_s": round(without.gap, 3),
        "slowest_s": round(with_gateways.slowest, 3),
        "failed": with_gateways.failed,
        "mails": with_gateways.mails,
        "connections_dark": with_gateways.dark,
        **with_gateways.notes,
    }
