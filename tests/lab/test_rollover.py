"""A site changes its identity while real mail flows: nobody notices; without a statement the alarm rings.

Postfix at site a sends to Postfix at site b through both gateways; every rotation is done as an operator does
it, on gateway b. Namespaces nmq0-...
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Reason
from gateway.lab import gateways
from gateway.lab.lab import Lab
from gateway.lab.processes import run_in
from tests.lab.conftest import slot
from tests.lab.gateway_log import GatewayLog, Session
from tests.lab.probes import eventually

pytestmark = pytest.mark.timeout(240)
DELIVERY_SECONDS = 60.0
PHRASE = "a phrase of many letters\n"


@dataclass(frozen=True)
class Post:
    """Two sites that have never met; `log` is gateway a's."""

    lab: Lab
    log: GatewayLog

    def send(self) -> list[Session]:
        """One mail from a to b, delivered; what gateway a logged of its session."""
        before = len(self.lab.wire_sessions())
        mails = self.lab.compose("a", "b")
        (found,) = self.lab.deliver("a", "b", mails, DELIVERY_SECONDS)
        assert mails[0].octets().replace(b"\r\n", b"\n") in found.delivery.path.read_bytes() + b"\n"
        sessions = [one for one in self.lab.wire_sessions()[before:] if one.has_data]
        return [
            self.log.ended(
                (one.client.address, one.client.port), (one.server.address, one.server.port), DELIVERY_SECONDS
            )
            for one in sessions
        ]

    def decided(self) -> set[Reason | None]:
        sessions = self.send()
        assert sessions
        assert all(session.protected for session in sessions), sessions
        return {session.decided for session in sessions}

    def operator(self, letter: str, *words: str) -> str:
        one = self.lab.gateway(letter)
        command = gateways.nightmail_command("--config", str(one.configuration), *words)
        return run_in(one.namespace, command).stdout.decode()

    @property
    def shown(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.operator("b", "identity", "show", "--json"))
        return found

    @property
    def identity_in_use(self) -> str:
        """Once all workers serve: new ones come for another identity."""

        def told() -> dict[str, Any] | None:
            answer = gateways.ask(self.lab.gateway("b")) or {"workers": [{"state": "none"}]}
            return answer if all(worker["state"] == "serving" for worker in answer["workers"]) else None

        return str(eventually(told, what="workers that all serve")["identity"])

    def rung(self) -> list[str]:
        """Reasons for which the bell of gateway a has rung, as that itself says."""
        answer = gateways.ask(self.lab.gateway("a"))
        assert answer is not None
        return [alarm["reason"] for alarm in answer["alarms"]]

    @property
    def pinned(self) -> list[dict[str, object]]:
        pins = json.loads(self.operator("a", "peers", "list", "--json"))
        return [identity for pin in pins for identity in pin["identities"]]

    @property
    def state(self) -> Path:
        return self.lab.gateway("b").folder / "state"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with slot() as lab:
        lab.up(with_gateways=False, temporary=True)
        yield lab


@pytest.fixture
def post(lab: Lab) -> Iterator[Post]:
    """Gateways without any memory, not even of themselves."""
    for letter in "ab":
        lab.kill_gateway(letter)
        one = lab.gateway(letter)
        for path in (one.folder / "state").iterdir():
            path.unlink()
        one.log.write_text("")
    lab.start_gateways()
    with contextlib.closing(GatewayLog(lab.gateway("a").log)) as log:
        yield Post(lab, log)


def test_announced_then_used_while_mail_flows(post: Post) -> None:
    assert post.decided() == {Reason.UPGRADED_NEW_PEER}
    old = post.identity_in_use
    post.operator("b", "identity", "rotate", "--announce-days", "14")
    upcoming = post.shown["next"]
    assert upcoming != old
    eventually(lambda: _rotation(post)["statements"] == 1, what="gateway b announces")
    # The announcement is learnt in the first session after the workers have it, and changes nothing of it.
    eventually(lambda: post.decided() == {Reason.UPGRADED} and len(post.pinned) == 2, DELIVERY_SECONDS)
    announced = next(one for one in post.pinned if one["fingerprint"] == upcoming)
    assert (announced["acceptance"], announced["days_seen"]) == ("statement", 0)
    assert post.identity_in_use == old
    post.operator("b", "identity", "rotate", "--now")
    eventually(lambda: post.identity_in_use == upcoming, what="gateway b uses the new identity")
    for _ in range(3):
        assert post.decided() == {Reason.UPGRADED}
    used = next(one for one in post.pinned if one["fingerprint"] == upcoming)
    assert used["days_seen"] == 1
    assert post.rung() == []
    history = post.operator("a", "peers", "history", post.lab.mail_server("b").node.home.v4)
    assert "its next identity announced" in history
    assert "rolled over" in history


def test_at_once_without_any_announcement(post: Post) -> None:
    assert post.decided() == {Reason.UPGRADED_NEW_PEER}
    old = post.identity_in_use
    post.operator("b", "identity", "rotate", "--now")
    eventually(lambda: post.identity_in_use != old, what="gateway b uses the new identity")
    eventually(lambda: post.decided() != {Reason.UPGRADED}, DELIVERY_SECONDS)
    assert post.decided() == {Reason.UPGRADED}
    reasons = [line.rsplit("reason=", 1)[1].split()[0] for line in _decisions(post)]
    assert reasons.count("upgraded-by-statement") == 1
    assert set(reasons) <= {"upgraded-new-peer", "upgraded", "upgraded-by-statement"}
    assert post.rung() == []


def test_a_restart_in_the_middle_changes_nothing(post: Post) -> None:
    assert post.decided() == {Reason.UPGRADED_NEW_PEER}
    post.operator("b", "identity", "rotate", "--now")
    post.lab.kill_gateway("b")
    post.lab.start_gateway("b")
    assert post.decided() == {Reason.UPGRADED_BY_STATEMENT}
    assert post.rung() == []


def test_an_identity_without_a_statement_rings_and_mail_is_still_protected(post: Post) -> None:
    assert post.decided() == {Reason.UPGRADED_NEW_PEER}
    post.lab.kill_gateway("b")
    (post.state / "identity").unlink()
    post.lab.start_gateway("b")
    assert post.decided() == {Reason.UPGRADED_CHANGED_PEER}
    eventually(post.rung, what="an alarm")
    assert post.decided() == {Reason.UPGRADED_CHANGED_PEER}
    assert post.rung() == ["upgraded-changed-peer"]


def test_a_broken_gateway_is_replaced_from_an_export(post: Post, tmp_path: Path) -> None:
    """Export, lose everything, import on the new machine: the same site again, its announcement too."""
    assert post.decided() == {Reason.UPGRADED_NEW_PEER}
    phrase, exported = tmp_path / "phrase", tmp_path / "export"
    phrase.write_text(PHRASE)
    post.operator("b", "identity", "rotate")
    upcoming = post.shown["next"]
    post.operator("b", "identity", "export", str(exported), "--passphrase-file", str(phrase))
    old = post.identity_in_use
    post.lab.kill_gateway("b")
    for path in post.state.iterdir():
        path.unlink()
    post.operator("b", "identity", "import", str(exported), "--passphrase-file", str(phrase))
    post.lab.start_gateway("b")
    assert post.identity_in_use == old
    assert post.shown["next"] == upcoming
    assert post.decided() == {Reason.UPGRADED}
    assert post.rung() == []


def _rotation(post: Post) -> dict[str, object]:
    answer = gateways.ask(post.lab.gateway("b"))
    assert answer is not None
    found: dict[str, object] = answer["rotation"]
    return found


def _decisions(post: Post) -> list[str]:
    lines = post.lab.gateway("a").log.read_text().splitlines()
    return [line for line in lines if " session decided " in line]
