"""Whether mail is protected now, by what the daemon says."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.observe.protection import is_protecting, troubles

WELL: dict[str, Any] = {
    "wanted": "up",
    "rules": {"queues": [2500], "missing": []},
    "workers": [{"state": "serving"}],
    "inside_networks": ["192.0.2.0/24"],
    "signer": {"pid": 7, "serves": True, "hangs": False},
}


@pytest.mark.parametrize(
    "older",
    [WELL, {**WELL, "signer": {"pid": 7}}, {key: WELL[key] for key in WELL if key != "signer"}],
    ids=["this version", "one that does not say whether it serves", "one without a signer"],
)
def test_where_all_is_well_nothing_is_said(older: dict[str, Any]) -> None:
    assert troubles(older) == []
    assert is_protecting(older)


@pytest.mark.parametrize(
    ("signer", "told"),
    [
        ({"pid": None, "serves": False, "hangs": False}, "does not run"),
        ({"pid": 7, "serves": False, "hangs": False}, "starts"),
        ({"pid": 7, "serves": False, "hangs": True}, "hangs"),
    ],
)
def test_without_a_signer_what_comes_in_is_in_clear(signer: dict[str, Any], told: str) -> None:
    assert not is_protecting({**WELL, "signer": signer})
    (trouble,) = troubles({**WELL, "signer": signer})
    assert told in trouble
    assert "what is sent is protected" in trouble


@pytest.mark.parametrize(("queues", "led_by"), [([2500], "the older"), ([2501], "the new")])
def test_at_a_reload_the_signer_is_that_of_who_leads(queues: list[int], led_by: str) -> None:
    workers = [
        {"state": "serving", "generation": 3, "queue": 2500},
        {"state": "serving", "generation": 4, "queue": 2501},
    ]
    signer = {"pid": 7, "serves": False, "hangs": False}
    told = troubles({**WELL, "rules": {"queues": queues}, "workers": workers, "signer": signer})
    assert bool(told) == (led_by == "the new")


def test_where_nothing_is_protected_the_signer_is_no_matter() -> None:
    down = {**WELL, "wanted": "down", "signer": {"pid": None, "serves": False}}
    assert troubles(down) == ["rules were taken down by `nightmail down`"]
