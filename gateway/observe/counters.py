"""Counters of one process, their merge over several, and the bell that rings at most once a day per cause.

Every key is a word of a closed set (`Direction`, `Reason`, `Tally`): nothing a peer says becomes a key.
Knows no clock: `AlarmBell` takes `now`. Counterparts: `runtime` counts, `nightmail status` shows.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from gateway.errors import IdentityHashed, Reason
from gateway.policy import limits


class Direction(IdentityHashed):
    """OUT: we are the sending gateway. IN: the receiving one."""

    OUT = "out"
    IN = "in"


class Tally(IdentityHashed):
    """What is counted beside decisions and ends. GAUGES go down as well; all others only rise."""

    SESSIONS_OPEN = "sessions-open"
    SYNS_HELD = "syns-held"
    OCTETS_HELD = "octets-held"
    SESSIONS_BEGUN = "sessions-begun"
    OCTETS_PROTECTED = "octets-protected"
    OCTETS_CLEAR = "octets-clear"
    REDIALS = "redials"
    RESUMED = "resumed"
    ACCEPTED_FIRST = "accepted-first"
    VERDICTS_GIVEN = "verdicts-given"
    PASSED_UNMARKED = "passed-unmarked"
    OVER_SESSIONS = "over-sessions"
    OVER_CONNECTS = "over-connects"
    OVER_AWAITED = "over-awaited"
    OVER_DESCRIPTORS = "over-descriptors"
    OVER_PORTS = "over-ports"
    OVER_HANDSHAKES = "over-handshakes"
    OVER_OCTETS = "over-octets"
    NOT_OURS = "not-ours"
    CALLBACKS_FAILED = "callbacks-failed"
    LOG_LINES_LOST = "log-lines-lost"


GAUGES: Final = frozenset({Tally.SESSIONS_OPEN, Tally.SYNS_HELD, Tally.OCTETS_HELD})

OF_CLIENTS: Final = frozenset({Reason.SOURCE_IN_CLEAR})
"""Alarms that anybody makes ring who upgrades from an address and comes in clear from it, for each that he
has: wherever alarms are kept they leave half of the places to others, which they would hide."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
Snapshot = dict[str, Any]
"""JSON-able: {"decided": {"out": {"upgraded": {reason: n}, "clear": {reason: n}}, "in": ...},
"ended": {"out": {reason: n}, "in": ...}, "tallies": {name: n}}."""


class Counters:
    """Counts of one process; adding one is a dictionary's increment."""

    def __init__(self) -> None:
        self._decided: Counter[tuple[Direction, bool, Reason]] = Counter()
        self._ended: Counter[tuple[Direction, Reason]] = Counter()
        self._tallies: Counter[Tally] = Counter()

    def decided(self, direction: Direction, upgraded: bool, reason: Reason, sessions: int = 1) -> None:
        self._decided[direction, upgraded, reason] += sessions

    def ended(self, direction: Direction, reason: Reason) -> None:
        self._ended[direction, reason] += 1

    def add(self, tally: Tally, count: int = 1) -> None:
        self._tallies[tally] += count

    def set(self, tally: Tally, value: int) -> None:
        """For gauges."""
        self._tallies[tally] = value

    def value(self, tally: Tally) -> int:
        return self._tallies[tally]

    def snapshot(self) -> Snapshot:
        found: Snapshot = empty_snapshot()
        for (direction, upgraded, reason), count in self._decided.items():
            found["decided"][direction.value]["upgraded" if upgraded else "clear"][reason.value] = count
        for (direction, reason), count in self._ended.items():
            found["ended"][direction.value][reason.value] = count
        found["tallies"].update({tally.value: count for tally, count in self._tallies.items()})
        return found


def empty_snapshot() -> Snapshot:
    return {
        "decided": {direction.value: {"upgraded": {}, "clear": {}} for direction in Direction},
        "ended": {direction.value: {} for direction in Direction},
        "tallies": {},
    }


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Sums at every leaf; what one snapshot lacks counts as nothing there."""
    total = empty_snapshot()
    for snapshot in snapshots:
        _add_into(total, snapshot)
    return total


def require_snapshot(told: Any) -> Snapshot:
    """The same, if it is one: from a worker, of whom others may have taken hold. Its names become labels of
    metrics. Raises ValueError."""
    _require_parts(told, empty_snapshot())
    snapshot: Snapshot = told
    return snapshot


def _require_parts(told: Any, parts: Snapshot) -> None:
    """Of this form in all its depth: of a count here and a table there no sum can be made."""
    if not isinstance(told, dict):
        raise ValueError("no counters")
    if not parts:
        _require_counts(told)
        return
    if not told.keys() <= parts.keys():
        raise ValueError("counters of something else")
    for name, part in told.items():
        _require_parts(part, parts[name])


def _require_counts(told: dict[Any, Any]) -> None:
    if len(told) > limits.COUNTER_NAMES:
        raise ValueError("too many counters")
    for name, value in told.items():
        if not _NAME.fullmatch(name):
            raise ValueError("a counter's name is no word of ours")
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise ValueError(f"{name} counts nothing")


def without_gauges(snapshot: Snapshot) -> Snapshot:
    """What a dead process leaves behind: its counts stay true, its open sessions are gone."""
    gauges = {tally.value for tally in GAUGES}
    tallies = {name: count for name, count in snapshot.get("tallies", {}).items() if name not in gauges}
    return merged([{**snapshot, "tallies": tallies}])


def _add_into(total: Snapshot, more: Snapshot) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            _add_into(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value


@dataclass(frozen=True, slots=True)
class Alarm:
    """One ring. `subject`: whom it is about, in words of ours (a destination, an interface)."""

    reason: Reason
    subject: str
    at: int
    detail: str = ""
    unheard: int = 0
    """So many rings of the same cause were told to nobody since the last one that was."""
    likely: str = ""
    """What it likely was, in a word of ours: the last time, heard or not."""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "reason": self.reason.value}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Alarm:
        """As another process told it. Raises ValueError for a reason that this version does not know."""
        earlier = {"unheard": told["suppressed"]} if "suppressed" in told else {}
        known = {one.name: told[one.name] for one in fields(cls) if one.name in told}
        return cls(**{**known, **earlier, "reason": Reason(told["reason"])})


@dataclass(slots=True)
class _Cause:
    rang: int
    unheard: int = 0
    likely: str = ""
    detail: str = ""
    """Of the last time, heard or not."""


class AlarmBell:
    """Rings at most once a day per cause, a cause being a reason and a subject.

    Bounded: who rang longest ago is forgotten, of those about clients where they are more than half.
    """

    def __init__(self, again_seconds: int = limits.ALARM_AGAIN_SECONDS) -> None:
        self._again_seconds = again_seconds
        self._causes: OrderedDict[tuple[Reason, str], _Cause] = OrderedDict()
        self._of_clients: OrderedDict[tuple[Reason, str], _Cause] = OrderedDict()

    def ring(
        self, reason: Reason, subject: str, now: int, detail: str = "", likely: str = ""
    ) -> Alarm | None:
        """The alarm to tell, or None: this cause rang within the last day."""
        key, kept = (reason, subject), detail[: limits.ALARM_DETAIL_CHARACTERS]
        causes = self._alike(reason)
        cause = causes.get(key)
        # A clock set back must not silence the bell for longer than it was meant to be.
        if cause is not None and 0 <= now - cause.rang < self._again_seconds:
            cause.unheard += 1
            cause.likely = likely or cause.likely
            cause.detail = kept or cause.detail
            return None
        unheard = cause.unheard if cause is not None else 0
        causes[key] = _Cause(now, likely=likely, detail=kept)
        causes.move_to_end(key)
        while len(self._causes) + len(self._of_clients) > limits.ALARM_CAUSES:
            are_half = 2 * len(self._of_clients) > limits.ALARM_CAUSES
            (self._of_clients if are_half else self._causes).popitem(last=False)
        return Alarm(reason, subject, now, detail, unheard, likely)

    def _alike(self, reason: Reason) -> OrderedDict[tuple[Reason, str], _Cause]:
        return self._of_clients if reason in OF_CLIENTS else self._causes

    def _all(self) -> list[tuple[tuple[Reason, str], _Cause]]:
        return [*self._causes.items(), *self._of_clients.items()]

    def remembered(self) -> list[dict[str, Any]]:
        """For another process's bell, by `recall`."""
        return [
            {
                "reason": reason.value,
                "subject": subject,
                "rang": cause.rang,
                "unheard": cause.unheard,
                "likely": cause.likely,
                "detail": cause.detail,
            }
            for (reason, subject), cause in self._all()
        ]

    def recall(self, remembered: list[dict[str, Any]]) -> None:
        """What has rung already need not ring again. A reason that this version does not know is left out."""
        for told in remembered:
            with contextlib.suppress(ValueError):
                key = (Reason(told["reason"]), told["subject"])
                detail = told.get("detail", "")  # which an earlier version did not keep
                self._alike(key[0])[key] = _Cause(told["rang"], told["unheard"], told["likely"], detail)

    def known(self, now: int) -> list[Alarm]:
        """What rang within the last day, newest first: for `status`, which has room for some details."""
        fresh = sorted(
            (
                Alarm(reason, subject, cause.rang, cause.detail, cause.unheard, cause.likely)
                for (reason, subject), cause in self._all()
                # Of later, where the clock was set back: not to be hidden until that moment comes again.
                if abs(now - cause.rang) < limits.ALARM_AGAIN_SECONDS
            ),
            key=lambda alarm: alarm.at,
            reverse=True,
        )
        newest, older = fresh[: limits.ALARMS_IN_DETAIL], fresh[limits.ALARMS_IN_DETAIL :]
        return [*newest, *(replace(alarm, detail="") for alarm in older)]
