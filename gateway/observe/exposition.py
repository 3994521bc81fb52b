"""The daemon's status in Prometheus' text format. Pure: facts in, octets out.

Labels are `direction`, `reason` and `worker`, and their values are words of closed sets or numbers of ours:
whatever else stands in the facts is left out, so nothing that anybody says on the wire makes a series.
Counterpart: `runtime.supervisor.metrics`, which serves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeGuard, cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.errors import Reason
from gateway.observe.counters import GAUGES, Direction, Tally
from gateway.observe.protection import is_protecting, serves

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_REASONS: Final = frozenset(reason.value for reason in Reason)
# Those that somebody counts: a series that stays 0 for want of a counter would be a lie.
_TALLIES: Final[Mapping[Tally, str]] = {
    Tally.SESSIONS_OPEN: "Sessions that have not ended.",
    Tally.SYNS_HELD: "Connections held while their destination is asked.",
    Tally.SESSIONS_BEGUN: "Sessions since the start of the daemon.",
    Tally.OCTETS_PROTECTED: "Octets of protected sessions, both ways.",
    Tally.OCTETS_CLEAR: "Octets of sessions in clear, both ways.",
    Tally.CALLBACKS_FAILED: "Callbacks of a worker that a bug of ours has ended, outside of any session.",
    Tally.REDIALS: "Second dials after a failed handshake.",
    Tally.RESUMED: "Channels that were made with a ticket of an earlier one.",
    Tally.ACCEPTED_FIRST: "Connections accepted before the destination was asked.",
    Tally.VERDICTS_GIVEN: "Verdicts given on held connections.",
    Tally.PASSED_UNMARKED: "Connections let by without a session.",
    Tally.NOT_OURS: "Connections between two insiders or two outsiders, let by.",
    Tally.LOG_LINES_LOST: "Log lines that could not be written.",
}


def exposition(status: Mapping[str, Any]) -> bytes:
    """`status` as on the control socket; what is missing in it has no series."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(cast(Any, _OneTime(status)))
    text: bytes = generate_latest(registry)
    return text


class _OneTime:
    """What the library calls a collector."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        yield from _health(self._status)
        yield from _sessions(self._status)
        yield from _tallies(self._status)
        yield from _workers(self._status)


def _health(status: Mapping[str, Any]) -> Iterator[Metric]:
    yield _gauge("protecting", "1: mail with sites that have a gateway is protected.", is_protecting(status))
    since, missing = status.get("since"), _within(status, "rules").get("missing")
    if _is_number(since):
        yield _gauge("start_time_seconds", "When the daemon was started, seconds since 1970.", since)
    if isinstance(missing, list):
        yield _gauge("rules_missing", "Rules of ours that are not in the kernel.", len(missing))
    if _is_number(bypassed := status.get("bypassed")):
        yield CounterMetricFamily(
            "nightmail_bypassed_connections", "Connections that went by unprotected.", value=bypassed
        )
    if _is_number(peers := status.get("peers")):
        yield _gauge("peers", "Destinations that are remembered to have a gateway.", peers)
    sources = _within(status, "sources")
    if _is_number(upgraded := sources.get("upgraded")):
        yield _gauge("clients", "Clients that are remembered to have a gateway.", upgraded)
    if _is_number(resting := sources.get("resting")):
        yield _gauge("clients_resting", "Clients that dropped our offers and get none for a day.", resting)
    yield _alarms(status)


def _alarms(status: Mapping[str, Any]) -> Metric:
    family = GaugeMetricFamily("nightmail_alarms", "Causes that rang within the last day.", labels=["reason"])
    counts: dict[str, int] = {}
    alarms = status.get("alarms")
    for alarm in alarms if isinstance(alarms, list) else []:
        reason = alarm.get("reason") if isinstance(alarm, dict) else None
        if isinstance(reason, str) and reason in _REASONS:
            counts[reason] = counts.get(reason, 0) + 1
    for reason, count in sorted(counts.items()):
        family.add_metric([reason], count)
    return family


def _sessions(status: Mapping[str, Any]) -> Iterator[Metric]:
    counters = _within(status, "counters")
    decided, ended = _within(counters, "decided"), _within(counters, "ended")
    by_direction = {direction.value: _within(decided, direction.value) for direction in Direction}
    for kind, name, words in (
        ("upgraded", "protected", "Sessions that were protected, by reason."),
        ("clear", "clear", "Sessions that stayed in clear, by reason."),
    ):
        counts = {direction: _within(kinds, kind) for direction, kinds in by_direction.items()}
        yield _by_reason(f"nightmail_sessions_{name}", words, counts)
    counts = {direction.value: _within(ended, direction.value) for direction in Direction}
    yield _by_reason("nightmail_sessions_ended", "How sessions, and dials, ended.", counts)


def _by_reason(name: str, words: str, counts: Mapping[str, Mapping[str, Any]]) -> Metric:
    family = CounterMetricFamily(name, words, labels=["direction", "reason"])
    for direction, reasons in counts.items():
        for reason, count in reasons.items():
            if reason in _REASONS and _is_number(count):
                family.add_metric([direction, reason], count)
    return family


def _tallies(status: Mapping[str, Any]) -> Iterator[Metric]:
    counts = _within(_within(status, "counters"), "tallies")
    for tally, words in _TALLIES.items():
        count = counts.get(tally.value, 0)
        name = tally.value.replace("-", "_")
        if not _is_number(count):
            continue
        if tally in GAUGES:
            yield _gauge(name, words, count)
        else:
            yield CounterMetricFamily(f"nightmail_{name}", words, value=count)


def _workers(status: Mapping[str, Any]) -> Iterator[Metric]:
    """By slot, a small number of ours; there are at most 32."""
    serving = GaugeMetricFamily("nightmail_worker_serving", "1: takes connections.", labels=["worker"])
    sessions = GaugeMetricFamily("nightmail_worker_sessions", "Open sessions.", labels=["worker"])
    restarts = CounterMetricFamily("nightmail_worker_restarts", "Deaths and new starts.", labels=["worker"])
    workers = status.get("workers")
    found: dict[int, list[Mapping[str, Any]]] = {}
    for worker in workers if isinstance(workers, list) else []:
        slot = worker.get("slot") if isinstance(worker, dict) else None
        if isinstance(slot, int) and not isinstance(slot, bool):
            found.setdefault(slot, []).append(worker)
    for slot, processes in found.items():  # one that finishes its sessions, and its successor
        serving.add_metric([str(slot)], float(any(serves(worker) for worker in processes)))
        for family, key, together in ((sessions, "sessions", sum), (restarts, "restarts", max)):
            if counts := [count for worker in processes if _is_number(count := worker.get(key))]:
                family.add_metric([str(slot)], together(counts))
    yield from (serving, sessions, restarts)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"nightmail_{name}", words, value=float(value))


def _within(facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = facts.get(key)
    return value if isinstance(value, dict) else {}


def _is_number(value: object) -> TypeGuard[float]:
    """A count of ours, or a time: never negative, never beyond what a float tells apart."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 << 62
