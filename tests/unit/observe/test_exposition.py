"""Prometheus' text: read back by the library's own parser; no label but ours, whatever comes."""

import copy
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.errors import Reason
from gateway.observe import exposition as exposing
from gateway.observe.counters import GAUGES, Direction, Tally
from gateway.observe.exposition import exposition
from tests.unit.operator.fake_daemon import STATUS

ALLOWED = {
    "direction": {direction.value for direction in Direction},
    "reason": {reason.value for reason in Reason},
    "worker": {str(slot) for slot in range(32)},
}
EVIL = 'x"} 1\nevil_total{person="a@b.test'


def samples(status: dict[str, Any]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All series as a collector would read them."""
    found = {}
    for family in text_string_to_metric_families(exposition(status).decode()):
        assert family.name.startswith("nightmail_")
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "one series, one value"
            found[key] = sample.value
            for name, value in sample.labels.items():
                assert value in ALLOWED[name], (name, value)
    return found


def value(status: dict[str, Any], name: str, **labels: str) -> float | None:
    return samples(status).get((name, frozenset(labels.items())))


def test_what_a_collector_reads() -> None:
    status = copy.deepcopy(STATUS)
    status["counters"]["tallies"] = {"sessions-begun": 7, "sessions-open": 3}
    status["sources"] = {"upgraded": 5, "resting": 1}
    decided = {"direction": "out", "reason": "upgraded"}
    assert value(status, "nightmail_sessions_protected_total", **decided) == 2
    assert value(status, "nightmail_sessions_clear_total", direction="out", reason="no-offer") == 9
    assert value(status, "nightmail_sessions_begun_total") == 7
    assert value(status, "nightmail_sessions_open") == 3
    assert value(status, "nightmail_protecting") == 1
    assert value(status, "nightmail_bypassed_connections_total") == 6
    assert value(status, "nightmail_peers") == 4
    assert value(status, "nightmail_clients") == 5
    assert value(status, "nightmail_alarms", reason="offer-missing") == 1
    assert value(status, "nightmail_worker_serving", worker="0") == 1
    assert value(status, "nightmail_worker_serving", worker="1") == 0
    assert value(status, "nightmail_worker_restarts_total", worker="1") == 2
    assert value(status, "nightmail_worker_sessions", worker="0") == 3


def test_a_slot_with_two_processes_is_one_series() -> None:
    """One that was told to end finishes its sessions beside its successor."""
    old = {"slot": 0, "state": "draining", "sessions": 3, "restarts": 1}
    new = {"slot": 0, "state": "serving", "sessions": 4, "restarts": 2}
    for workers in ([old, new], [new, old]):
        status = {**STATUS, "workers": workers}
        assert value(status, "nightmail_worker_serving", worker="0") == 1
        assert value(status, "nightmail_worker_sessions", worker="0") == 7
        assert value(status, "nightmail_worker_restarts_total", worker="0") == 2


def test_an_unprotected_gateway_says_so() -> None:
    assert value({**STATUS, "workers": []}, "nightmail_protecting") == 0
    assert value({**STATUS, "wanted": "down"}, "nightmail_protecting") == 0


def test_nothing_that_a_peer_says_makes_a_label_or_a_series() -> None:
    """As if a worker had taken a peer's words for a reason, a direction or a slot."""
    status = copy.deepcopy(STATUS)
    before = samples(status)
    counters = status["counters"]
    counters["decided"]["out"]["clear"][EVIL] = 1
    counters["decided"]["out"][EVIL] = {"upgraded": 1}
    counters["decided"][EVIL] = {"upgraded": {"upgraded": 1}}
    counters["ended"]["in"][EVIL] = 1
    counters["tallies"][EVIL] = 1
    status["alarms"].append({"reason": EVIL, "subject": EVIL, "detail": EVIL})
    status["alarms"][0]["subject"] = EVIL
    status["workers"].append({"slot": EVIL, "state": EVIL, "sessions": 1, "restarts": 1})
    status["workers"][0]["state"] = EVIL
    status[EVIL] = EVIL
    assert set(samples(status)) == set(before)
    assert b"evil" not in exposition(status)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(EVIL),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*STATUS, "out", "in", "upgraded", "clear", "slot", "missing", EVIL]), inner
        )
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*STATUS, "sources", "decided", EVIL]), json_values))
def test_any_facts_make_nothing_but_our_series(status: dict[str, Any]) -> None:
    samples(status)


def test_every_tally_that_is_shown_is_counted_by_somebody() -> None:
    code = "".join(
        path.read_text()
        for room in ("runtime", "intercept")
        for path in (Path(exposing.__file__).parent.parent / room).rglob("*.py")
    )
    for tally in Tally:
        assert f"Tally.{tally.name}" in code or tally not in exposing._TALLIES, tally
    assert GAUGES & set(exposing._TALLIES) == {Tally.SESSIONS_OPEN, Tally.SYNS_HELD}
