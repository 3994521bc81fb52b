"""What `nightmail lab` takes, prints and ends with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.errors import EnvironmentFailureError
from gateway.lab.commands import lab as group
from gateway.lab.lab import Delivered, Lab
from gateway.lab.mail import Delivery, Mail
from gateway.lab.place import Place
from gateway.lab.wan import Wan

COMMANDS = {"up", "down", "status", "mail", "listen", "wan", "exec", "gateway"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A lab that is up and writes down what it is asked for."""
    seen: dict[str, Any] = {}

    def deliver(self: Lab, sender: str, recipient: str, mails: list[Mail], seconds: float) -> list[Delivered]:
        seen["mails"] = mails
        return [Delivered(mail, Delivery(mail.name, Path("/x"), 0.0), 0.0125) for mail in mails]

    monkeypatch.setattr(Lab, "require_up", lambda self: None)
    monkeypatch.setattr(Lab, "deliver", deliver)
    monkeypatch.setattr(Lab, "set_wan", lambda self, wan: seen.update(wan=wan))
    monkeypatch.setattr(Lab, "up", lambda self, **words: seen.update(up=words))
    return seen


def run(tmp_path: Path, *words: str) -> Result:
    return CliRunner().invoke(group, words, obj=Place("nmu-", tmp_path / "lab", tmp_path / "lock"))


def test_all_commands_are_there_and_say_what_they_do(tmp_path: Path) -> None:
    assert set(group.commands) == COMMANDS
    for name in COMMANDS:
        result = run(tmp_path, name, "--help")
        assert result.exit_code == 0
        assert len(result.output.splitlines()) > 4


def test_mail(tmp_path: Path, asked: dict[str, Any]) -> None:
    result = run(tmp_path, "mail", "a", "b", "--size", "5MB", "--count", "2", "--six")
    assert result.exit_code == 0, result.output
    assert [mail.attachment_octets for mail in asked["mails"]] == [5_000_000, 5_000_000]
    assert result.output == "alice@a.test -> bob@six.b.test: in the mailbox after 12 ms\n" * 2


def test_mail_for_programs(tmp_path: Path, asked: dict[str, Any]) -> None:
    (fact,) = json.loads(run(tmp_path, "mail", "c", "b", "--json").output)
    assert (fact["from"], fact["to"], fact["seconds"]) == ("carol@c.test", "bob@b.test", 0.0125)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--rtt", "80ms"], Wan(0.08, 0.0)),
        (["--rtt", "0.2s", "--loss", "1%"], Wan(0.2, 0.01)),
        (["--rtt", "0"], Wan()),
        (["--rtt", "0", "--loss", "0.5%"], Wan(0.0, 0.005)),
    ],
)
def test_wan(tmp_path: Path, asked: dict[str, Any], words: list[str], wanted: Wan) -> None:
    assert run(tmp_path, "wan", *words).exit_code == 0
    assert asked["wan"].rtt_seconds == pytest.approx(wanted.rtt_seconds)
    assert asked["wan"].loss == pytest.approx(wanted.loss)


@pytest.mark.parametrize(
    "words",
    [
        ["mail", "a", "d"],
        ["mail", "a"],
        ["mail", "a", "b", "--size", "5 parsecs"],
        ["mail", "a", "b", "--count", "0"],
        ["wan"],
        ["wan", "--rtt", "80"],
        ["wan", "--rtt", "-1ms"],
        ["wan", "--rtt", "1ms", "--loss", "1"],
        ["gateway", "burn", "a"],
        ["exec", "mta-a"],
    ],
)
def test_wrong_words_end_with_2(tmp_path: Path, asked: dict[str, Any], words: list[str]) -> None:
    assert run(tmp_path, *words).exit_code == 2
    assert asked == {}


def test_up_takes_its_options(tmp_path: Path, asked: dict[str, Any]) -> None:
    assert run(tmp_path, "up", "--without-gateways", "--tls").exit_code == 0
    assert asked["up"]["with_gateways"] is False
    assert asked["up"]["offer_starttls"] is True


def test_a_failure_is_one_line_and_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Lab) -> None:
        raise EnvironmentFailureError("two\nlines")

    monkeypatch.setattr(Lab, "require_up", fail)
    for words in (
        ["status"],
        ["mail", "a", "b"],
        ["listen"],
        ["wan", "--rtt", "0"],
        ["exec", "wire", "--", "true"],
    ):
        result = run(tmp_path, *words)
        assert result.exit_code == 1
        assert result.stderr == "nightmail: two lines\n"


def test_without_root_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = run(tmp_path, "up")
    assert result.exit_code == 1
    assert "root" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("node", "end"),
    [
        ("gw-b", ["gateway", "--config", "{folder}/gw-b/nightmail.toml", "status", "--json"]),
        ("mta-a", ["gateway", "status", "--json"]),
    ],
)
def test_nightmail_on_a_node_is_this_one_with_that_gateway(tmp_path: Path, node: str, end: list[str]) -> None:
    one = Lab(Place("nmu-", tmp_path, tmp_path / "lock"))
    asked = one.words_on(node, ("nightmail", "status", "--json"))
    expected = [word.format(folder=tmp_path) for word in end]
    assert asked[-len(expected) :] == expected
    assert one.words_on(node, ("ip", "route")) == ["ip", "route"]
