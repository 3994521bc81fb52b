"""Clients in words: one line each, and nothing that a stranger chose gets to the terminal as it is."""

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.operator.sources import as_json, in_one_line
from gateway.peers.sources import Source, after_drop, after_upgrade

NOW = 1_800_000_000
TODAY = NOW // 86400
BLANK = Source("192.0.2.1")


def test_three_kinds_of_clients() -> None:
    peer = after_upgrade(BLANK, b"mail.a.example", TODAY)
    assert in_one_line(peer, NOW) == (
        "192.0.2.1  has a gateway, greets as mail.a.example, last upgraded 2027-01-15"
    )
    once = after_drop(BLANK, NOW)
    assert in_one_line(once, NOW) == "192.0.2.1  dropped 1 of our offers, last seen 2027-01-15"
    twice = after_drop(once, NOW)
    assert in_one_line(twice, NOW) == "192.0.2.1  dropped our offers: gets none until 2027-01-16 08:00 UTC"
    assert as_json(twice, NOW)["rests_until"] == NOW + 86400
    assert as_json(peer, NOW)["rests_until"] is None


@given(st.binary(max_size=255))
def test_any_name_is_printable(name: bytes) -> None:
    source = after_upgrade(BLANK, name, TODAY)
    assert in_one_line(source, NOW).isprintable()
    assert json.loads(json.dumps(as_json(source, NOW)))["address"] == "192.0.2.1"
