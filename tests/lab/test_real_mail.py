"""Real mail servers: what lies in a mailbox is the same with gateways as without.

All mails go first while there is no gateway, then the same mails again through gateways; the stored messages
may differ in queue ids and times alone, so also the Received field's word on where the sender came from is
compared. Counterpart: `test_equality`, which looks at each octet of the sessions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.errors import Reason
from gateway.eyes.wire import WireSession, found_words
from gateway.lab.lab import Lab
from gateway.lab.mail import Mail, without_traces
from gateway.lab.processes import run_in
from gateway.lab.topology import SMTP_PORT, Family
from tests.lab.conftest import slot
from tests.lab.gateway_log import GatewayLog

pytestmark = pytest.mark.timeout(240)

DELIVERY_SECONDS = 60.0
WAYS = [("a", "b", False), ("b", "a", False), ("a", "b", True), ("a", "c", False), ("c", "b", False)]
SIZES = (0, 300_000)
UPGRADED = {Reason.UPGRADED, Reason.UPGRADED_NEW_PEER}
SWAKS = {
    "one by one": [],
    "pipelined": ["--pipeline"],
    "helo": ["--protocol", "SMTP"],
}


@dataclass(frozen=True)
class Sent:
    """One way's mails, as they are stored without gateways."""

    sender: str
    recipient: str
    mails: list[Mail]
    stored: dict[str, bytes]


@dataclass(frozen=True)
class Post:
    """The lab, by now with gateways, and what was delivered before they came."""

    lab: Lab
    sent: list[Sent]
    swaks: dict[str, tuple[Mail, bytes]]
    logs: dict[str, GatewayLog]


def delivered(lab: Lab, sender: str, recipient: str, mails: list[Mail]) -> dict[str, bytes]:
    found = lab.deliver(sender, recipient, mails, DELIVERY_SECONDS)
    return {one.mail.name: one.delivery.path.read_bytes() for one in found}


def by_swaks(lab: Lab, mail: Mail, options: list[str], data: Path) -> bytes:
    """Hand a mail directly from mta-a's host to mta-b; what is stored there."""
    data.write_bytes(mail.octets().replace(b"\r\n", b"\n"))
    envelope = ["--from", mail.sender, "--to", mail.recipient, "--ehlo", "mta-a.a.test"]
    server = ["--server", lab.mail_server("b").node.home.of(Family.V4), "--port", str(SMTP_PORT)]
    with lab.watch("b") as watch:
        run_in(
            lab.mail_server("a").namespace,
            ["swaks", *server, *envelope, "--data", f"@{data}", "--suppress-data", *options],
        )
        return watch.wait([mail.name], DELIVERY_SECONDS)[mail.name].path.read_bytes()


@pytest.fixture(scope="module")
def post(postfix_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Post]:
    lab = postfix_lab
    data = tmp_path_factory.mktemp("swaks") / "mail"
    sent, swaks = [], {}
    for sender, recipient, six in WAYS:
        mails = [lab.compose(sender, recipient, size=size, six=six)[0] for size in SIZES]
        sent.append(Sent(sender, recipient, mails, delivered(lab, sender, recipient, mails)))
    for name, options in SWAKS.items():
        mail = lab.compose("a", "b")[0]
        swaks[name] = mail, by_swaks(lab, mail, options, data)
    lab.start_gateways()
    logs = {letter: GatewayLog(lab.gateway(letter).log) for letter in "ab"}
    yield Post(lab, sent, swaks, logs)
    for log in logs.values():
        log.close()


def wire_since(lab: Lab, before: int) -> list[WireSession]:
    return [session for session in lab.wire_sessions()[before:] if session.has_data]


def decisions(post: Post, sent: Sent, seen: list[WireSession]) -> set[Reason | None]:
    """What a gateway on the way decided about each of these sessions."""
    log = post.logs[sent.sender if sent.sender in "ab" else sent.recipient]
    return {
        log.ended(
            (session.client.address, session.client.port),
            (session.server.address, session.server.port),
            DELIVERY_SECONDS,
        ).decided
        for session in seen
    }


@pytest.mark.parametrize("way", range(len(WAYS)), ids=[f"{a}-{b}{'-ipv6' * six}" for a, b, six in WAYS])
def test_stored_mail_is_the_same(way: int, post: Post) -> None:
    sent = post.sent[way]
    before = len(post.lab.wire_sessions())
    stored = delivered(post.lab, sent.sender, sent.recipient, sent.mails)
    for mail in sent.mails:
        assert without_traces(stored[mail.name]) == without_traces(sent.stored[mail.name])
        assert mail.octets().replace(b"\r\n", b"\n") in stored[mail.name] + b"\n"
    both = {sent.sender, sent.recipient} == {"a", "b"}
    seen = wire_since(post.lab, before)
    assert seen
    for session in seen:
        assert session.complete
        words = {kind: word for mail in sent.mails for kind, word in mail.words.items()}
        assert found_words(session, words) == set() if both else found_words(session, words)
    expected = UPGRADED if both else {Reason.NO_OFFER, Reason.NO_VERB}
    assert decisions(post, sent, seen) <= expected


@pytest.mark.parametrize("name", SWAKS)
def test_mail_by_swaks_is_the_same(name: str, post: Post, tmp_path: Path) -> None:
    mail, stored = post.swaks[name]
    again = by_swaks(post.lab, mail, SWAKS[name], tmp_path / "mail")
    assert without_traces(again) == without_traces(stored)


@pytest.mark.long
def test_starttls_between_the_mail_servers_is_theirs() -> None:
    """Postfix at mta-b offers STARTTLS, Postfix at mta-a takes it: end to end, inside of our channel."""
    with slot() as lab:
        lab.up(with_gateways=False, offer_starttls=True, temporary=True)
        mails = lab.compose("a", "b", count=3, size=100_000)
        without = delivered(lab, "a", "b", mails)
        lab.start_gateways()
        log = GatewayLog(lab.gateway("a").log)
        before = len(lab.wire_sessions())
        stored = delivered(lab, "a", "b", mails)
        for mail in mails:
            assert b" with ESMTPS id " in stored[mail.name]
            assert without_traces(stored[mail.name]) == without_traces(without[mail.name])
        for session in wire_since(lab, before):
            client, server = session.client, session.server
            source, destination = (client.address, client.port), (server.address, server.port)
            logged = log.ended(source, destination, DELIVERY_SECONDS)
            assert logged.decided in UPGRADED, logged
        log.close()
