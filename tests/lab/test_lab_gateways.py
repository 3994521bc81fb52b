"""The gateways in the lab: what is encrypted, what stays as before, and that one comes again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.eyes import wire
from gateway.lab import network, processes
from gateway.lab.commands import lab as group
from gateway.lab.lab import Lab
from gateway.lab.place import Place
from gateway.lab.topology import Family
from tests.lab.traces import NOTHING, traces


@pytest.fixture(scope="module")
def guarded() -> Iterator[Lab]:
    """A lab with both gateways."""
    place = Place("nml7-", Path("/run/nml7-lab"), Path("/run/nml7-lab.lock"))
    lab = Lab(place)
    lab.down()
    lab.up()
    try:
        yield lab
    finally:
        lab.down()
        assert traces(place) == NOTHING


@pytest.mark.parametrize("six", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize("size", [0, 2_000_000], ids=["plain", "large"])
def test_gateway_to_gateway_nothing_can_be_read(guarded: Lab, six: bool, size: int) -> None:
    began = time.time()
    (found,) = guarded.deliver("a", "b", guarded.compose("a", "b", six=six, size=size), 60)
    (session,) = guarded.wire_sessions(began)
    assert session.complete
    assert b"\r\nXNIGHTMAIL\r\n" in session.from_client
    assert wire.found_words(session, found.mail.words) == set()
    assert wire.round_trips(session) == 3


@pytest.mark.parametrize(("sender", "recipient"), [("a", "c"), ("c", "b")])
def test_with_one_gateway_mail_is_as_before(guarded: Lab, sender: str, recipient: str) -> None:
    began = time.time()
    (found,) = guarded.deliver(sender, recipient, guarded.compose(sender, recipient), 60)
    (session,) = guarded.wire_sessions(began)
    assert wire.found_words(session, found.mail.words) == {"envelope", "subject", "body"}
    assert wire.round_trips(session) == 3


def test_a_killed_gateway_does_not_stop_mail_and_comes_again(guarded: Lab) -> None:
    assert guarded.kill_gateway("a") >= 2
    try:
        assert guarded.fresh_greeting("a", "b").startswith(b"220 ")
        assert guarded.fresh_greeting("a", "b", Family.V6).startswith(b"220 ")
        guarded.deliver("a", "b", guarded.compose("a", "b"), 60)
        assert CliRunner().invoke(group, ["gateway", "kill", "a"], obj=guarded.place).exit_code == 0
    finally:
        guarded.start_gateway("a")
    began = time.time()
    (found,) = guarded.deliver("a", "b", guarded.compose("a", "b"), 60)
    (session,) = guarded.wire_sessions(began)
    assert wire.found_words(session, found.mail.words) == set()


def test_a_stopped_gateway_with_its_rules_down(guarded: Lab) -> None:
    guarded.stop_gateway("b", take_rules_down=True)
    try:
        assert processes.living_in([guarded.namespace("gw-b")]) == []
        guarded.deliver("c", "b", guarded.compose("c", "b"), 60)
    finally:
        network.inside(guarded.namespace("gw-b"), lambda: None)
        (guarded.gateway("b").folder / "state" / "wanted.json").unlink(missing_ok=True)
        guarded.start_gateway("b")
