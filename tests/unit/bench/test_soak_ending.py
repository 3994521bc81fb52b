"""A soak tells processes that were told to end from what grows, and holds them to their end."""

from __future__ import annotations

from typing import Any

import pytest

from bench.soak.ending import told
from bench.soak.verdict import result
from tests.unit.bench.soak_record import MB, RUN_SECONDS, gateway, process, record


def draining(records: list[dict[str, Any]], begin: float, end: float) -> list[dict[str, Any]]:
    """At gateway a, two workers and their signer that carry their last sessions meanwhile."""
    for one in records:
        if one["kind"] == "sample" and begin <= one["at"] <= end:
            for pid, role in ((11, "worker"), (12, "worker"), (13, "signer")):
                one["gateways"]["a"]["processes"].append(process(role, pid, 30 * MB, draining=True))
    return records


def grown(found: dict[str, Any]) -> set[str]:
    return {each["measure"] for each in found["slopes"] if each["verdict"] == "grows"}


@pytest.mark.parametrize("end", [4830.0, 5700.0])
def test_workers_that_carry_their_last_sessions_are_no_growth(end: float) -> None:
    """In the second round, and nothing like it in the first."""
    found = result(draining(record(), 4200.0, end))
    assert found["holds"], grown(found)
    assert found["ending"] == {"most": 3, "longest_seconds": end - 4200.0, "endless": []}


def test_what_draws_out_its_end_is_told() -> None:
    found = result(draining(record(), 4200.0, 5730.0))
    assert (found["flat"], found["holds"]) == (True, False)
    assert found["ending"]["endless"] == [
        "a: worker 11 has not ended 1530 s on",
        "a: worker 12 has not ended 1530 s on",
        "a: signer 13 has not ended 1530 s on",
    ]


@pytest.mark.parametrize("holds", [True, False])
def test_when_no_session_is_left_nobody_has_one_to_carry(holds: bool) -> None:
    records = draining(record(), 7000.0, 7200.0)
    last = {"kind": "last", "at": 7260.0, "gateways": {"a": gateway(7260.0), "b": gateway(7260.0)}}
    if not holds:
        last["gateways"]["b"]["processes"].append(process("worker", 17, MB, draining=True))  # type: ignore[index]
    found = result([*records, last])
    assert found["holds"] == holds
    assert found["ending"]["endless"] == ([] if holds else ["b: worker 17 has not ended 0 s on"])


@pytest.mark.parametrize(
    ("measure", "value"), [("descriptors", 100), ("threads", 3), ("pss_own", 20 * MB), ("pss", 20 * MB)]
)
def test_who_serves_must_not_grow_whoever_ends_beside(measure: str, value: float) -> None:
    records = draining(record(), 1200.0, 2400.0)
    for one in records:
        if one["kind"] == "sample":
            one["gateways"]["a"]["processes"][3][measure] += value * one["at"] / RUN_SECONDS
    found = result(records)
    assert not found["holds"]
    assert measure in grown(found)


def test_processes_that_nobody_has_told_to_end_grow() -> None:
    records = record()
    for one in records:
        if one["kind"] == "sample":
            more = [process("other", 100 + n, MB) for n in range(int(one["at"] / 1200))]
            one["gateways"]["b"]["processes"] += more
    assert "processes" in grown(result(records))


def test_one_that_is_taken_for_ending_for_a_moment_has_not_been_ending_since() -> None:
    """A worker that the daemon's answer did not yet name."""
    records = draining(draining(record(), 1200.0, 1200.0), 4200.0, 4800.0)
    for one in records:
        if one["kind"] == "sample" and one["at"] not in (1200.0, *(4200.0 + 30 * n for n in range(21))):
            one["gateways"]["a"]["processes"].append(process("worker", 11, MB))
    assert result(records)["ending"]["longest_seconds"] == 600.0


def test_who_was_told_to_end() -> None:
    """By what the daemon says of its workers; the signer of those that end is the older one."""
    found = [process("supervisor", 1, MB), *(process("worker", pid, MB) for pid in (2, 3, 4, 5)),
             process("signer", 6, MB) | {"started": 5}, process("signer", 7, MB) | {"started": 9},
             process("other", 8, MB)]  # fmt: skip
    states = {2: "serving", 3: "draining", 4: "hung"}
    assert [one["pid"] for one in told(found, states) if one["draining"]] == [3, 5, 6]
    assert [one["pid"] for one in told(found, {}) if one["draining"]] == [6], "it has not answered"


def test_a_record_of_before_is_judged_by_all_its_processes() -> None:
    records = draining(record(), 3660.0, 7200.0)
    for one in records:
        for each in one.get("gateways", {}).get("a", {}).get("processes", []):
            del each["draining"]
    assert "processes" in grown(result(records))
