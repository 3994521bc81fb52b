"""What went wrong on the way, and that both gateways name it: a man in the middle who really does it.

He sits in the wire's namespace (`tests.attackers.wire`), or is a filter of that router's or of the far
site's. First all is well, so that there is a memory; then he does one thing, and the log, `peers show` and
`status` say which. Each test has mail servers at addresses of its own, which neither gateway has met: the
gateways live through all of them.
Namespaces nmf0-...
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator

import pytest

from tests.attackers.attack import Act, Always, Attack, End, Kind, Piece, Say, altered, without_offer
from tests.attackers.wire import Wire
from tests.lab import probes, two_sites
from tests.lab.probes import MailServer, eventually, mail
from tests.lab.strangers import Strangers, await_known_at_b, pass_a_by
from tests.lab.two_sites import BOTH_FAMILIES, NO_TICKETS, Sites

_UNDO = (
    "nft delete table ip attacker",
    "ip rule del fwmark 1 lookup 100",
    "ip route flush table 100",
)


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    """Without tickets: the attacks here are on whole offers and answers."""
    with two_sites.built(configuration=NO_TICKETS) as sites:
        pass_a_by(sites)
        yield sites


@pytest.fixture
def v6() -> bool:
    """A test that is for both families has a parameter of this name."""
    return False


@pytest.fixture
def strangers(sites: Sites, v6: bool) -> Strangers:
    sites.settle()
    return Strangers.of(sites, v6)


@pytest.fixture
def server(strangers: Strangers, v6: bool) -> Iterator[MailServer]:
    with MailServer(strangers.sites, "mta-b", v6, address=strangers.target) as server:
        yield server


@pytest.fixture
def acquainted(strangers: Strangers, server: MailServer) -> Strangers:
    """One mail has gone well: gateway a remembers a pin, and how the server looks."""
    assert strangers.send(server)["reason"] == "upgraded-new-peer"
    return strangers


@pytest.fixture
def known(strangers: Strangers, server: MailServer) -> Strangers:
    """The same, and gateway b remembers the client."""
    assert strangers.send(server)["reason"] == "upgraded-new-peer"
    await_known_at_b(strangers.sites, strangers.client)
    return strangers


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
    acquainted: Strangers, server: MailServer, attack: type[Attack], cause: str, reason: str
) -> None:
    sites = acquainted.sites
    with in_the_middle(sites, attack):
        decided = acquainted.send(server, b"through his hands")
    assert (decided["reason"], decided["likely"]) == (reason, cause)
    rung = eventually(lambda: acquainted.told("a", "alarm rings"), what="an alarm")
    assert [(one["reason"], one["likely"]) for one in rung] == [(reason, cause)]
    subject = f"{acquainted.target}:25"
    (alarm,) = (one for one in sites.status("a")["alarms"] if one["subject"] == subject)
    assert alarm["likely"] == cause
    said = sites.command("a", "status")
    (line,) = (line for line in said.splitlines() if f" {subject}" in line)
    assert line.endswith(f"likely {cause}")
    assert acquainted.shown()["trouble"]["likely"] == cause
    # The way is free again, and nothing of it is left but what was told.
    assert acquainted.send(server, b"as before")["reason"] == "upgraded"


def test_the_receiving_gateway_says_that_octets_came_damaged(known: Strangers, server: MailServer) -> None:
    with in_the_middle(known.sites, DamagesUp):
        known.send(server)

    def failed() -> list[str]:
        decided = known.told("b", "session decided")
        return [one["likely"] for one in decided if one["reason"] == "handshake-failed"]

    eventually(lambda: len(failed()) == 2, what="both failures in the log of the receiving gateway")
    assert failed() == ["frames-damaged"] * 2


def test_a_gateway_that_is_off_looks_like_one(acquainted: Strangers, server: MailServer) -> None:
    acquainted.sites.kill("b")
    decided = acquainted.send(server)
    assert (decided["reason"], decided["likely"]) == ("offer-missing", "peer-switched-off")


def test_another_key_of_the_same_server(acquainted: Strangers, server: MailServer) -> None:
    sites = acquainted.sites
    sites.kill("b")
    (sites.gateway("b").folder / "state" / "identity").unlink()
    sites.start("b")
    decided = acquainted.send(server)
    assert (decided["reason"], decided["likely"]) == ("upgraded-changed-peer", "other-key")


# --- Resets ------------------------------------------------------------------------------------------------


@BOTH_FAMILIES
@pytest.mark.parametrize(
    ("node", "chain", "cause"),
    [("wire", "FORWARD", "reset-in-between"), ("gw-b", "INPUT", "reset-by-far-end")],
    ids=["by-the-router", "by-the-far-site"],
)
def test_where_a_reset_came_from(
    acquainted: Strangers, server: MailServer, v6: bool, node: str, chain: str, cause: str
) -> None:
    """A packet filter resets the connection when it sees our verb: on the way, or where the server is."""
    sites = acquainted.sites
    tool = "ip6tables" if v6 else "iptables"
    rule = (
        f"{chain} -p tcp --dport 25 -m string --string XNIGHTMAIL --algo bm -j REJECT --reject-with tcp-reset"
    )
    sites.sh(node, f"{tool} -I {rule}")
    try:
        decided = acquainted.send(server, b"reset twice, and then in clear")
    finally:
        sites.sh(node, f"{tool} -D {rule}")
    assert (decided["reason"], decided["likely"]) == ("handshake-failed", "reset-unclear")
    named = eventually(lambda: acquainted.told("a", "peers cause"), what="the kernel's answer")
    assert {one["reason"] for one in named} == {cause}
    (rung,) = eventually(lambda: acquainted.told("a", "alarm rings"), what="an alarm")
    assert (rung["reason"], rung["likely"]) == ("handshake-failed", cause)
    assert acquainted.shown()["trouble"]["likely"] == cause


# --- The receiving side's memory ---------------------------------------------------------------------------


def test_a_client_that_used_to_come_encrypted_comes_in_clear(known: Strangers, server: MailServer) -> None:
    """Past its own gateway: as if that were off. It rings once."""
    for _ in range(2):
        with known.connect_past_a() as dialogue:
            dialogue.begin()
            dialogue.send_mail(b"in clear")
    decided = eventually(
        lambda: (found := known.told("b", "session decided"))[2:] and found[1:], what="two decisions"
    )
    assert [one["reason"] for one in decided] == ["source-in-clear"] * 2
    assert (decided[0]["detail"], decided[0]["likely"]) == ("cause=no-verb", "offer-unanswered")
    (rung,) = eventually(lambda: known.told("b", "alarm rings"), what="an alarm")
    assert (rung["reason"], rung["subject"]) == ("source-in-clear", known.client)
    assert rung["likely"] == "offer-unanswered"
    listed = known.listed() or {}
    assert listed["upgraded_day"]
    assert listed["rests_until"] is None


def test_another_mailer_behind_the_same_address_rings_no_bell(known: Strangers, server: MailServer) -> None:
    with known.connect_past_a() as dialogue:
        dialogue.reply()
        dialogue.say(b"EHLO printer.test")
        dialogue.send_mail(b"in clear")
    (decided,) = eventually(lambda: known.told("b", "session decided")[1:], what="a decision")
    assert decided["reason"] == "source-in-clear"
    assert decided["likely"] == "other-machine"
    assert not [alarm for alarm in known.sites.alarms("b") if alarm["subject"] == known.client]


def test_who_comes_with_helo_in_place_of_ehlo(known: Strangers, server: MailServer) -> None:
    with in_the_middle(known.sites, SaysHelo):
        known.send(server)
    (decided,) = eventually(lambda: known.told("b", "session decided")[1:], what="a decision")
    assert decided["reason"] == "source-in-clear"
    assert decided["likely"] == "ehlo-turned-into-helo"


def test_forgotten_by_the_operator_it_may_come_in_clear(known: Strangers, server: MailServer) -> None:
    sites = known.sites
    sites.command("b", "peers", "forget-source", known.client)
    assert known.listed() is None
    sites.kill("b")
    sites.start("b")
    with known.connect_past_a() as dialogue:
        dialogue.begin()
        dialogue.send_mail(b"in clear")
    (decided,) = eventually(lambda: known.told("b", "session decided"), what="a decision")
    assert decided["reason"] == "no-verb"


def test_a_client_that_drops_two_offers_gets_none_for_a_day(strangers: Strangers, server: MailServer) -> None:
    """And with that its mail goes through; who reads them goes on getting them."""
    before = strangers.sites.status("b")["sources"]["resting"]
    for _ in range(2):
        with strangers.connect_from_elsewhere() as dialogue:
            assert b"XNIGHTMAIL" in dialogue.begin()
    (rests,) = eventually(lambda: strangers.told("b", "sources rests"), what="the second drop in the log")
    assert rests["reason"] == "source-rests"
    eventually(lambda: strangers.sites.status("b")["sources"]["resting"] == before + 1, what="status")
    assert (strangers.listed(strangers.elsewhere) or {})["rests_until"]
    with strangers.connect_from_elsewhere() as dialogue:
        assert b"XNIGHTMAIL" not in dialogue.begin()
        dialogue.send_mail(b"at last")
    decided = eventually(lambda: strangers.told("b", "session decided")[2:], what="a decision")
    assert [one["reason"] for one in decided] == ["source-rests"]


def test_a_client_that_goes_on_behind_an_offer_is_not_harmed(
    strangers: Strangers, server: MailServer
) -> None:
    sites = strangers.sites
    for _ in range(3):
        with strangers.connect_from_elsewhere() as dialogue:
            assert b"XNIGHTMAIL" in dialogue.begin()
        mail(sites, "mta-c", server, strangers.target, b"fine", source=strangers.elsewhere)
    assert strangers.told("b", "sources rests") == []
