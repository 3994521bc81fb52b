"""What went wrong on the way, and that both gateways name it: a man in the middle who really does it.

He sits in the wire's namespace (`tests.attackers.wire`), or is a filter of that router's or of the far
site's. First all is well, so that there is a memory; then he does one thing, and the log, `peers show` and
`status` say which.
Namespaces nmf0-...
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.attackers.attack import Act, Always, Attack, End, Kind, Piece, Say, altered, without_offer
from tests.attackers.wire import Wire
from tests.lab import probes, two_sites
from tests.lab.probes import Dialogue, MailServer, eventually, mail
from tests.lab.two_sites import Sites

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
PAST_A = "7000:7999"
"""Clients with such a port pass gateway a by: below all that the kernel chooses by itself."""
_PORTS = itertools.count(7000)
_UNDO = (
    "nft delete table ip attacker",
    "ip rule del fwmark 1 lookup 100",
    "ip route flush table 100",
)


@pytest.fixture(scope="module")
def built() -> Iterator[Sites]:
    with two_sites.built() as sites:
        sites.sh("gw-a", f"iptables -t raw -I PREROUTING -p tcp --sport {PAST_A} -j ACCEPT")
        yield sites


@pytest.fixture
def sites(built: Sites) -> Iterator[Sites]:
    """Two gateways that have never met."""
    for letter in "ab":
        built.kill(letter)
        for path in (built.gateway(letter).folder / "state").glob("peers.db*"):
            path.unlink()
    built.start("a", "b")
    yield built


@pytest.fixture
def acquainted(sites: Sites, server: MailServer) -> Sites:
    """One mail has gone well: a pin, and how the server looks, are remembered; the client likewise at b."""
    assert send(sites, server)["reason"] == "upgraded-new-peer"
    eventually(lambda: "upgraded_day" in (source_of(sites) or {}), what="the client in b's memory")
    return sites


def send(sites: Sites, server: MailServer, body: bytes = b"hello") -> dict[str, str]:
    """One mail from a to b, whole and once; what the sending gateway's log says of the decision."""
    before = len(told(sites, "a", "session decided"))
    mail(sites, "mta-a", server, sites.address("mta-b", False), body)
    found: list[dict[str, str]] = eventually(
        lambda: told(sites, "a", "session decided")[before:], what="a decision in the log"
    )
    assert len(found) == 1
    return found[0]


_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


def told(sites: Sites, letter: str, event: str) -> list[dict[str, str]]:
    """The lines of one kind in a gateway's log, each with its fields."""
    lines = [line for line in sites.log(letter).splitlines() if f" {event} " in line]
    return [{key: value.strip('"') for key, value in _FIELD.findall(line)} for line in lines]


def shown(sites: Sites) -> dict[str, Any]:
    answer = sites.command("a", "peers", "show", sites.address("mta-b", False), "--json")
    found: dict[str, Any] = json.loads(answer)
    return found


def source_of(sites: Sites, node: str = "mta-a") -> dict[str, Any] | None:
    listed = json.loads(sites.command("b", "peers", "sources", "--json"))
    return next((one for one in listed if one["address"] == sites.address(node, False)), None)


@contextlib.contextmanager
def in_the_middle(sites: Sites, attack: type[Attack]) -> Iterator[None]:
    """Every connection from a to b goes through him."""
    loop = asyncio.new_event_loop()
    wire = Wire(sites.namespace("wire"))
    wire.by_default = attack
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(wire.open(), loop).result(probes.PATIENCE)
        yield
    finally:
        for command in _UNDO:
            sites.sh("wire", command)
        asyncio.run_coroutine_threadsafe(wire.close(), loop).result(probes.PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(probes.PATIENCE)
        loop.close()


# --- What he does ----------------------------------------------------------------------------------------


class Edits(Always):
    """Changes what passes, message by message; `edited` answers what goes on."""

    def piece(self, piece: Piece) -> list[Act]:
        octets = self.edited(piece)
        return [Say(piece.origin.other, octets)] if octets else []

    def edited(self, piece: Piece) -> bytes:
        return piece.octets


class Masks(Edits):
    """As Cisco's ASA does: a keyword that it does not know is overwritten."""

    def edited(self, piece: Piece) -> bytes:
        if piece.kind is not Kind.REPLY:
            return piece.octets
        return re.sub(rb"(?m)^(250[- ])XNIGHTMAIL\b", rb"\1XXXXXXXXXX", piece.octets)


class TakesLinesOut(Edits):
    """As a mail filter does: what it does not know goes, and PIPELINING as well."""

    def edited(self, piece: Piece) -> bytes:
        if piece.kind is not Kind.REPLY:
            return piece.octets
        return without_offer(piece.octets).replace(b"250-PIPELINING\r\n", b"")


class TakesOfferOut(Edits):
    """Strips our lines, and nothing else: as if the peer were switched off."""

    def edited(self, piece: Piece) -> bytes:
        return without_offer(piece.octets) if piece.kind is Kind.REPLY else piece.octets


class SaysHelo(Edits):
    """Knows old SMTP only."""

    def edited(self, piece: Piece) -> bytes:
        return piece.octets.replace(b"EHLO", b"HELO", 1) if piece.kind is Kind.EHLO else piece.octets


class RefusesEhlo(Edits):
    """The same, and says so to the sender."""

    def piece(self, piece: Piece) -> list[Act]:
        if piece.kind is Kind.EHLO:
            return [Say(End.S, b"500 5.5.1 Command unrecognized\r\n")]
        return super().piece(piece)


class RefusesVerb(Edits):
    """Knows SMTP's own commands only; answers any other one himself, and lets nothing of it pass."""

    def piece(self, piece: Piece) -> list[Act]:
        if piece.kind is Kind.VERB:
            return [Say(End.S, b"500 5.5.1 Command unrecognized\r\n")]
        return [] if piece.kind in (Kind.ANSWER, Kind.RECORD) else super().piece(piece)


class DamagesUp(Edits):
    """One octet of the answer changed, on its way to the far gateway."""

    def edited(self, piece: Piece) -> bytes:
        return altered(piece.octets, 700) if piece.kind is Kind.ANSWER else piece.octets


class DamagesDown(Edits):
    """One octet of each record from the far gateway changed."""

    def edited(self, piece: Piece) -> bytes:
        down = piece.kind is Kind.RECORD and piece.origin is End.R
        return altered(piece.octets, 12) if down else piece.octets


class DamagesOffer(Edits):
    """One character of the offer changed."""

    def edited(self, piece: Piece) -> bytes:
        if piece.kind is not Kind.REPLY or b"XNIGHTMAIL 1 1/4 " not in piece.octets:
            return piece.octets
        at = piece.octets.index(b"XNIGHTMAIL 1 1/4 ") + 40
        # Another letter of the offer's alphabet: with one that is not, it would be no offer.
        other = b"B" if piece.octets[at : at + 1] == b"A" else b"A"
        return piece.octets[:at] + other + piece.octets[at + 1 :]


class IsAnother(Edits):
    """Another server, without a gateway, at the same address."""

    def edited(self, piece: Piece) -> bytes:
        if piece.kind is Kind.GREETING:
            return b"220 elsewhere.test ESMTP\r\n"
        return without_offer(piece.octets) if piece.kind is Kind.REPLY else piece.octets


LOST = [
    (Masks, "keyword-masked"),
    (TakesLinesOut, "reply-changed"),
    (TakesOfferOut, "peer-switched-off"),
    (SaysHelo, "ehlo-turned-into-helo"),
    (RefusesEhlo, "ehlo-blocked"),
    (IsAnother, "other-machine"),
]
FAILED = [
    (RefusesVerb, "verb-refused"),
    (DamagesUp, "frames-damaged"),
    (DamagesDown, "frames-damaged"),
    (DamagesOffer, "offer-damaged"),
]


@pytest.mark.parametrize(
    ("attack", "cause", "reason"),
    [(*one, "offer-missing") for one in LOST] + [(*one, "handshake-failed") for one in FAILED],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_sending_gateway_names_what_he_does(
    acquainted: Sites, server: MailServer, attack: type[Attack], cause: str, reason: str
) -> None:
    with in_the_middle(acquainted, attack):
        decided = send(acquainted, server, b"through his hands")
    assert (decided["reason"], decided["likely"]) == (reason, cause)
    rung = eventually(lambda: told(acquainted, "a", "alarm rings"), what="an alarm")
    assert [(one["reason"], one["likely"]) for one in rung] == [(reason, cause)]
    (alarm,) = acquainted.status("a")["alarms"]
    assert alarm["likely"] == cause
    assert f"likely {cause}" in acquainted.command("a", "status")
    assert shown(acquainted)["trouble"]["likely"] == cause
    # The way is free again, and nothing of it is left but what was told.
    assert send(acquainted, server, b"as before")["reason"] == "upgraded"


def test_the_receiving_gateway_says_that_octets_came_damaged(acquainted: Sites, server: MailServer) -> None:
    with in_the_middle(acquainted, DamagesUp):
        send(acquainted, server)

    def failed() -> list[str]:
        decided = told(acquainted, "b", "session decided")
        return [one["likely"] for one in decided if one["reason"] == "handshake-failed"]

    eventually(lambda: len(failed()) == 2, what="both failures in the log of the receiving gateway")
    assert failed() == ["frames-damaged"] * 2


def test_a_gateway_that_is_off_looks_like_one(acquainted: Sites, server: MailServer) -> None:
    acquainted.kill("b")
    decided = send(acquainted, server)
    assert (decided["reason"], decided["likely"]) == ("offer-missing", "peer-switched-off")


def test_another_key_of_the_same_server(acquainted: Sites, server: MailServer) -> None:
    acquainted.kill("b")
    (acquainted.gateway("b").folder / "state" / "identity").unlink()
    acquainted.start("b")
    decided = send(acquainted, server)
    assert (decided["reason"], decided["likely"]) == ("upgraded-changed-peer", "other-key")


# --- Resets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize(
    ("node", "chain", "cause"),
    [("wire", "FORWARD", "reset-in-between"), ("gw-b", "INPUT", "reset-by-far-end")],
    ids=["by-the-router", "by-the-far-site"],
)
def test_where_a_reset_came_from(sites: Sites, v6: bool, node: str, chain: str, cause: str) -> None:
    """A packet filter resets the connection when it sees our verb: on the way, or where the server is."""
    tool = "ip6tables" if v6 else "iptables"
    rule = (
        f"{chain} -p tcp --dport 25 -m string --string XNIGHTMAIL --algo bm -j REJECT --reject-with tcp-reset"
    )
    target = sites.address("mta-b", v6)
    with MailServer(sites, "mta-b", v6) as server:
        mail(sites, "mta-a", server, target, b"well")
        sites.sh(node, f"{tool} -I {rule}")
        try:
            mail(sites, "mta-a", server, target, b"reset twice, and then in clear")
        finally:
            sites.sh(node, f"{tool} -D {rule}")
    decided = eventually(lambda: told(sites, "a", "session decided")[1:], what="the second decision")
    assert [(one["reason"], one["likely"]) for one in decided] == [("handshake-failed", "reset-unclear")]
    named = eventually(lambda: told(sites, "a", "peers cause"), what="the kernel's answer")
    assert {one["reason"] for one in named} == {cause}
    (rung,) = eventually(lambda: told(sites, "a", "alarm rings"), what="an alarm")
    assert (rung["reason"], rung["likely"]) == ("handshake-failed", cause)
    assert json.loads(sites.command("a", "peers", "show", target, "--json"))["trouble"]["likely"] == cause


# --- The receiving side's memory ---------------------------------------------------------------------------


def test_a_client_that_used_to_come_encrypted_comes_in_clear(acquainted: Sites, server: MailServer) -> None:
    """Past its own gateway: as if that were off. It rings once."""
    for _ in range(2):
        with Dialogue(past_a(acquainted)) as dialogue:
            dialogue.begin()
            dialogue.send_mail(b"in clear")
    decided = eventually(
        lambda: (found := told(acquainted, "b", "session decided"))[2:] and found[1:], what="two decisions"
    )
    assert [one["reason"] for one in decided] == ["source-in-clear"] * 2
    assert "likely=offer-unanswered" in decided[0]["detail"]
    (rung,) = eventually(lambda: told(acquainted, "b", "alarm rings"), what="an alarm")
    assert (rung["reason"], rung["subject"]) == ("source-in-clear", acquainted.address("mta-a", False))
    assert acquainted.status("b")["sources"] == {"upgraded": 1, "resting": 0}


def test_another_mailer_behind_the_same_address_rings_no_bell(acquainted: Sites, server: MailServer) -> None:
    with Dialogue(past_a(acquainted)) as dialogue:
        dialogue.reply()
        dialogue.say(b"EHLO printer.test")
        dialogue.send_mail(b"in clear")
    (decided,) = eventually(lambda: told(acquainted, "b", "session decided")[1:], what="a decision")
    assert decided["reason"] == "source-in-clear"
    assert "likely=other-machine" in decided["detail"]
    assert told(acquainted, "b", "alarm rings") == []


def test_who_comes_with_helo_in_place_of_ehlo(acquainted: Sites, server: MailServer) -> None:
    with in_the_middle(acquainted, SaysHelo):
        send(acquainted, server)
    (decided,) = eventually(lambda: told(acquainted, "b", "session decided")[1:], what="a decision")
    assert decided["reason"] == "source-in-clear"
    assert "likely=ehlo-turned-into-helo" in decided["detail"]


def test_forgotten_by_the_operator_it_may_come_in_clear(acquainted: Sites, server: MailServer) -> None:
    acquainted.command("b", "peers", "forget-source", acquainted.address("mta-a", False))
    assert source_of(acquainted) is None
    acquainted.kill("b")
    acquainted.start("b")
    with Dialogue(past_a(acquainted)) as dialogue:
        dialogue.begin()
        dialogue.send_mail(b"in clear")
    (decided,) = eventually(lambda: told(acquainted, "b", "session decided"), what="a decision")
    assert decided["reason"] == "no-verb"


def test_a_client_that_drops_two_offers_gets_none_for_a_day(sites: Sites, server: MailServer) -> None:
    """And with that its mail goes through; who reads them goes on getting them."""
    for _ in range(2):
        with Dialogue(sites.connect("mta-c", sites_b(sites))) as dialogue:
            assert b"XNIGHTMAIL" in dialogue.begin()
    (rests,) = eventually(lambda: told(sites, "b", "sources rests"), what="the second drop in the log")
    assert rests["reason"] == "source-rests"
    eventually(lambda: sites.status("b")["sources"] == {"upgraded": 0, "resting": 1}, what="status")
    assert (source_of(sites, "mta-c") or {})["rests_until"]
    with Dialogue(sites.connect("mta-c", sites_b(sites))) as dialogue:
        assert b"XNIGHTMAIL" not in dialogue.begin()
        dialogue.send_mail(b"at last")
    decided = eventually(lambda: told(sites, "b", "session decided")[2:], what="a decision")
    assert [one["reason"] for one in decided] == ["source-rests"]


def test_a_client_that_goes_on_behind_an_offer_is_not_harmed(sites: Sites, server: MailServer) -> None:
    for _ in range(3):
        with Dialogue(sites.connect("mta-c", sites_b(sites))) as dialogue:
            assert b"XNIGHTMAIL" in dialogue.begin()
        mail(sites, "mta-c", server, sites_b(sites), b"fine")
    assert told(sites, "b", "sources rests") == []


def past_a(sites: Sites) -> socket.socket:
    """A connection of site a's mail server that its gateway does not see."""
    made: socket.socket = sites.connect("mta-a", sites_b(sites), port=next(_PORTS))
    return made


def sites_b(sites: Sites) -> str:
    return sites.address("mta-b", False)
