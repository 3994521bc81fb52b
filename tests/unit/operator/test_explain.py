"""What would happen now, for each thing that may be known of a destination."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.addresses import Ipset
from gateway.cli.seeing import explain as command
from gateway.config import Config
from gateway.crypto.keys import IdentityKey
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept import kernel
from gateway.operator import explain
from gateway.operator.aside import Aside
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.store import PinStore
from gateway.policy import limits
from tests.unit.operator.fake_daemon import STATUS, daemon

HERE = Destination("192.0.2.7", 25)
PEER = IdentityKey.from_seed(b"o" * 32).public


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "state").mkdir(mode=0o700)
    return Config(state_dir=tmp_path / "state", run_dir=tmp_path / "run")


@pytest.fixture(autouse=True)
def nothing_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever this machine has its interfaces and routes."""
    monkeypatch.setattr(explain, "aside", lambda config, address: None)


def told(config: Config, at: Destination = HERE, ignored: object = None) -> tuple[Reason | None, str]:
    now = int(time.time())
    with daemon(config.control_socket, {**STATUS, "ignored": ignored}, questions=0) as asked:
        story = explain.story(config, at, now)
    assert [line for line in asked if line.startswith(b"ignored")] in (
        [],
        [b"ignored %b\n" % at.address.encode()],
    )
    json.dumps(explain.as_json(story, now))
    return story.verdict, "\n".join(explain.told(story, now))


def test_a_stranger(config: Config) -> None:
    verdict, text = told(config)
    assert verdict is None
    assert "encrypted if the other end offers it" in text


def test_a_peer(config: Config) -> None:
    with PinStore(config.pins_file) as store:
        store.remember(HERE, MetPeer(PEER.octets, 20_000, True), int(time.time()))
    verdict, text = told(config)
    assert verdict is None
    assert "A session there is encrypted. If it came without an offer" in text
    assert PEER.fingerprint in text


def test_one_that_rests_until_its_time_is_over(config: Config) -> None:
    with PinStore(config.pins_file) as store:
        for _ in range(limits.FAILURES_IN_A_ROW):
            store.note_failure(HERE, int(time.time()))
    assert told(config)[0] is Reason.RECENTLY_FAILED
    assert told(config, HERE._replace(address="192.0.2.8"))[0] is None


def test_lists_and_ports(config: Config) -> None:
    listed = replace(config, never=(ip_network("192.0.2.0/24"),))
    verdict, text = told(listed)
    assert verdict is Reason.NEVER
    assert "192.0.2.0/24 is in exceptions.never" in text
    offers = replace(config, never_offer=(ip_network("192.0.2.7"),))
    verdict, text = told(offers)
    assert verdict is None
    assert "gets no offer" in text
    assert told(config, Destination("192.0.2.7", 587))[0] is Reason.NOT_OURS


def test_what_is_aside_comes_before_all_else(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is remembered or listed: no gateway looks at it."""
    elsewhere = Aside(Reason.BYPASSED, "the route leads by dmz")
    monkeypatch.setattr(explain, "aside", lambda config, address: elsewhere)
    verdict, text = told(replace(config, always=(ip_network("192.0.2.7"),)))
    assert verdict is Reason.BYPASSED
    assert "passes untouched, in clear: the route leads by dmz." in text
    assert "looked at" not in text
    assert "believed" not in text
    story = explain.story(config, HERE, 0)
    assert "no daemon is running" not in "\n".join(explain.told(story, 0)), "it would change nothing"
    assert explain.as_json(story, 0)["untouched"] == "the route leads by dmz"


def test_always_comes_first(config: Config) -> None:
    with PinStore(config.pins_file) as store:
        for _ in range(limits.FAILURES_IN_A_ROW):
            store.note_failure(HERE, int(time.time()))
    listed = replace(config, never=(ip_network("192.0.2.7"),), always=(ip_network("192.0.2.0/24"),))
    verdict, text = told(listed)
    assert verdict is None
    assert "always looked at: 192.0.2.0/24 is in exceptions.always" in text
    assert "gets no offer" not in text


def test_a_set_of_the_kernels(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "is_in_ipset", lambda name, address: (name, address) == ("b", "192.0.2.7"))
    verdict, text = told(replace(config, never_ipsets=(Ipset("a", 4), Ipset("b", 6), Ipset("b", 4))))
    assert verdict is Reason.NEVER
    assert "ipset:b is in exceptions.never" in text
    assert told(replace(config, never_ipsets=(Ipset("a", 4), Ipset("b", 6))))[0] is None


def test_without_a_daemon_it_says_so(config: Config) -> None:
    story = explain.story(config, HERE, 0)
    assert story.verdict is Reason.BYPASSED
    assert "goes in clear: no daemon is running" in "\n".join(explain.told(story, 0))


def test_of_one_that_does_not_answer_is_told_what_is_remembered(config: Config) -> None:
    """Stopped, say: its workers may carry mail all the same."""
    with PinStore(config.pins_file) as store:
        store.remember(HERE, MetPeer(PEER.octets, 20_000, True), int(time.time()))
    with daemon(config.control_socket, b"", questions=0):
        story = explain.story(config, HERE, 0)
    assert story.verdict is None
    text = "\n".join(explain.told(story, 0))
    assert "A session there is encrypted." in text
    assert "That holds if a gateway carries it now: the daemon does not answer" in text
    assert PEER.fingerprint in text
    assert explain.as_json(story, 0)["daemon"] == "the daemon does not answer"


def of_worker(number: int, in_a_row: int, rests: bool) -> dict[str, object]:
    return {"worker": number, "in_a_row": in_a_row, "rests": rests}


@pytest.mark.parametrize(
    ("ignored", "line"),
    [
        ([of_worker(0, 33, True)], "one session of 4 only: it has ignored 32 in a row. That ends with"),
        ([of_worker(0, 33, True), of_worker(1, 5, False)], "one session of 4 only (by worker 0): it has"),
        ([of_worker(0, 2, False), of_worker(1, 9, False)], "ignored 9 offers in a row, and gets one in each"),
        ([of_worker(0, 40, False)], "ignored 40 offers in a row, and gets one in each session."),
    ],
)
def test_offers_that_are_ignored(config: Config, ignored: list[dict[str, object]], line: str) -> None:
    """Each worker knows its own; what keeps a client from resting (a neighbour), the worker knows."""
    verdict, text = told(config, ignored=ignored)
    assert verdict is None, "what we send there is another matter"
    assert line in text
    with daemon(config.control_socket, {**STATUS, "ignored": ignored}, questions=0):
        assert explain.as_json(explain.story(config, HERE, 0), 0)["offers_ignored"] == ignored


@pytest.mark.parametrize("ignored", [None, [], "x", [of_worker(0, 0, False)], [7]])
def test_nothing_to_say_of_offers(config: Config, ignored: object) -> None:
    """Also of a daemon that does not know the question."""
    assert "offers in a row" not in told(config, ignored=ignored)[1]


def test_exceptions_have_the_first_word_on_offers(config: Config) -> None:
    ignored = [of_worker(0, 33, True)]
    here = (ip_network("192.0.2.7"),)
    for one in (replace(config, always=here), replace(config, never=here), replace(config, never_offer=here)):
        assert "in one session of" not in told(one, ignored=ignored)[1]


def test_names() -> None:
    assert Destination("127.0.0.1", 25) in explain.destinations("localhost")
    with pytest.raises(EnvironmentFailureError, match="no address, and no name of one"):
        explain.destinations("nosuch.invalid")
    assert Destination("127.0.0.1", 2525) in explain.destinations("localhost:2525")
    for text in ("localhost:0", "192.0.2.7:70000", ""):
        with pytest.raises(ValueError, match="from 1 to 65535"):
            explain.destinations(text)


def test_the_command(config: Config) -> None:
    class Settings:
        pass

    settings = Settings()
    settings.config = config  # type: ignore[attr-defined]
    result = CliRunner().invoke(command, ["192.0.2.7", "--json"], obj=settings)
    assert (result.exit_code, json.loads(result.stdout)[0]["stays_in_clear"]) == (1, "bypassed")
