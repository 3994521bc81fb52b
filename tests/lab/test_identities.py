"""Who a peer is: copies, replacements, several at one address, odd ones and many; with real gateways.

The unit tests walk through years of this (`tests/unit/runtime/supervisor/test_hearing.py`); here it is seen
once each in two daemons' logs, alarms and memories. Each test begins with gateways that were never started.
Namespaces nmf0-...
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import gateway as product
from gateway.crypto.messages import OfferForm
from gateway.lab import gateways
from gateway.peers.pins import Destination, MetPeer, Pin
from gateway.peers.store import PinStore
from gateway.policy import limits
from tests.lab import probes, two_sites
from tests.lab.probes import MailServer, eventually, mail
from tests.lab.two_sites import Sites

OUTER = "203.0.113.9"
"""How the world calls site b's mail server, where a router in front of its gateway translates addresses."""


@pytest.fixture(scope="module")
def built() -> Iterator[Sites]:
    with two_sites.built(start=False) as sites:
        yield sites


@pytest.fixture
def sites(built: Sites) -> Iterator[Sites]:
    for letter in "ab":
        built.kill(letter)
        for path in state(built, letter).iterdir():
            path.unlink()
    texts = [(one.configuration, one.configuration.read_text()) for one in built.gateways]
    yield built
    for path, text in texts:
        path.write_text(text)


@pytest.fixture
def server(sites: Sites) -> Iterator[MailServer]:
    with MailServer(sites, "mta-b", False, address="0.0.0.0") as server:
        yield server


def state(sites: Sites, letter: str) -> Path:
    return sites.gateway(letter).folder / "state"


def at_b(sites: Sites) -> Destination:
    return Destination(sites.address("mta-b", False), 25)


def decisions(sites: Sites, letter: str) -> list[str]:
    lines = [line for line in sites.log(letter).splitlines() if " session decided " in line]
    return [line.partition(" reason=")[2].split()[0] for line in lines]


def send(sites: Sites, server: MailServer, to: str = "") -> str:
    """One mail from a to b, whole and once; what gateway a decided."""
    before = len(decisions(sites, "a"))
    mail(sites, "mta-a", server, to or at_b(sites).address, b"whose is it")
    (decided,) = eventually(lambda: decisions(sites, "a")[before:], what="a decision in the log")
    return str(decided)


def rung(sites: Sites, letter: str) -> list[str]:
    lines = [line for line in sites.log(letter).splitlines() if " alarm rings " in line]
    return [line.partition(" reason=")[2].split()[0] for line in lines]


def rings(sites: Sites, letter: str, reasons: list[str]) -> None:
    """These alarms and no others; the supervisor rings a moment after the session has gone on."""
    eventually(lambda: len(rung(sites, letter)) >= len(reasons), what=f"alarms {reasons}")
    assert rung(sites, letter) == reasons


def pin_at_a(sites: Sites) -> Pin:
    with PinStore.read_only(state(sites, "a") / "peers.db") as store:
        pin = store.lookup(at_b(sites))
    assert pin is not None
    return pin


def give(sites: Sites, letter: str, identity: str) -> None:
    """This text for the identity file of a gateway that does not run."""
    path = state(sites, letter) / "identity"
    path.write_text(identity)
    path.chmod(0o600)
    owner = path.parent.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


def made_identity(sites: Sites) -> str:
    """The text of an identity file that gateway b has made at its first start."""
    sites.kill("b")
    path = state(sites, "b") / "identity"
    path.unlink(missing_ok=True)
    sites.start("b")
    text = path.read_text()
    sites.kill("b")
    return text


# --- Copies -------------------------------------------------------------------------------------------------


def test_two_boxes_made_from_one_image_have_two_identities(sites: Sites, server: MailServer) -> None:
    """The image was made on a third machine: each box sets its identity aside, and rings."""
    image = made_identity(sites)
    marks = re.findall(r"\b[0-9a-f]{32}\b", image)
    assert marks, "this machine has no mark: nothing could be told"
    for mark in set(marks[-2:]):
        image = image.replace(mark, "0123456789abcdef" * 2)
    for letter in "ab":
        give(sites, letter, image)
    sites.start("a", "b")
    ours, theirs = (sites.status(letter)["identity"] for letter in "ab")
    assert ours != theirs
    for letter in "ab":
        rings(sites, letter, ["identity-of-another-machine"])
        (aside,) = state(sites, letter).glob("identity*of-another-machine*")
        assert aside.read_text() == image
    assert send(sites, server) == "upgraded-new-peer"


def test_two_gateways_of_one_identity_that_face_each_other(sites: Sites, server: MailServer) -> None:
    """They are one site: mail between them stays in clear, nobody is remembered, and nothing rings."""
    identity = made_identity(sites)
    for letter in "ab":
        give(sites, letter, identity)
    sites.start("a", "b")
    assert sites.status("a")["identity"] == sites.status("b")["identity"]
    assert [send(sites, server) for _ in range(2)] == ["own-identity"] * 2
    assert (sites.alarms("a"), sites.alarms("b")) == ([], [])
    assert probes.pins(sites.gateway("a")) == []


# --- Several at one address ---------------------------------------------------------------------------------


def test_two_identities_at_one_address(sites: Sites, server: MailServer) -> None:
    """The second one rings once, is seen and not accepted, and once it is accepted as good as the first."""
    one, other = made_identity(sites), made_identity(sites)
    sites.start("a")

    def answers_as(identity: str) -> None:
        sites.kill("b")
        give(sites, "b", identity)
        sites.start("b")

    seen = []
    for identity in (one, other, one, other):
        answers_as(identity)
        seen.append(send(sites, server))
    assert seen == ["upgraded-new-peer", "upgraded-changed-peer", "upgraded", "upgraded-changed-peer"]
    rings(sites, "a", ["upgraded-changed-peer"])
    eventually(lambda: len(pin_at_a(sites).identities) == 2, what="both in the memory")
    listed = probes.pins(sites.gateway("a"))[0]["identities"]
    assert sorted(entry["acceptance"] for entry in listed) == ["first-use", "not-yet"]
    (stranger,) = (entry["fingerprint"] for entry in listed if entry["acceptance"] == "not-yet")
    assert "accepted at" in sites.command("a", "peers", "accept", at_b(sites).address, stranger)
    eventually(lambda: send(sites, server) == "upgraded", what="the worker knows it")
    answers_as(one)
    assert send(sites, server) == "upgraded"
    assert [alarm["reason"] for alarm in sites.alarms("a")] == ["upgraded-changed-peer"]
    history = sites.command("a", "peers", "history", at_b(sites).address)
    assert stranger in history
    assert "accepted" in history


# --- Behind address translation -----------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [False, True], ids=["not listed", "listed"])
def test_a_peer_behind_nat(sites: Sites, server: MailServer, listed: bool) -> None:
    """It is encrypted, and remembered by the address that was dialled; R says so where it does not know that
    address, and no more once its operator has listed it."""
    sites.start("a")
    if listed:
        path = sites.gateway("b").configuration
        path.write_text(path.read_text() + f'\n[nat]\naddresses = ["{OUTER}"]\n')
    sites.start("b")
    translate = f"add rule ip nmnat prerouting ip daddr {OUTER} tcp dport 25 dnat to {at_b(sites).address}"
    chain = "{ type nat hook prerouting priority -100 ; }"
    sites.sh(
        "wire", "nft add table ip nmnat", f"nft add chain ip nmnat prerouting {chain}", f"nft {translate}"
    )
    try:
        assert [send(sites, server, OUTER) for _ in range(2)] == ["upgraded-new-peer", "upgraded"]
    finally:
        sites.sh("wire", "nft delete table ip nmnat")
    (pin,) = probes.pins(sites.gateway("a"))
    assert pin["address"] == OUTER
    eventually(lambda: len(decisions(sites, "b")) == 2, what="gateway b's decisions")
    assert decisions(sites, "b") == ["upgraded"] * 2
    notes = [line for line in sites.log("b").splitlines() if " dialled-address-not-confirmed " in line]
    assert len(notes) == (0 if listed else 2)
    assert all("reason=wrong-dialled-address" in line for line in notes)
    assert (sites.alarms("a"), sites.alarms("b")) == ([], [])


# --- Odd ones -----------------------------------------------------------------------------------------------


def test_a_key_of_the_day_that_is_older_than_one_seen(sites: Sites, server: MailServer) -> None:
    """OLD: as after a restored backup. Encrypted, said, and nothing rings."""
    sites.start("a", "b")
    assert send(sites, server) == "upgraded-new-peer"
    eventually(lambda: probes.pins(sites.gateway("a")), what="the pin on disk")
    sites.kill("a")
    with PinStore(state(sites, "a") / "peers.db") as store:
        pin = store.lookup(at_b(sites))
        assert pin is not None
        (known,) = pin.identities
        store.remember(at_b(sites), MetPeer(known.identity, known.epoch + 1, True), int(time.time()))
    sites.start("a")
    assert send(sites, server) == "upgraded-old-epoch"
    assert sites.alarms("a") == []
    assert pin_at_a(sites).identities[0].epoch == known.epoch + 1, "never lowered"


def test_a_peer_whose_offer_is_short_where_a_full_one_had_room(sites: Sites, server: MailServer) -> None:
    """WEAKER: encrypted, and it rings. Gateway b is a copy of this program that breaks the size rule."""
    sites.start("a", "b")
    assert send(sites, server) == "upgraded-new-peer"
    sites.kill("b")
    odd = replace(sites.gateway("b"), source=odd_program(sites.folder))
    odd.log.write_text("")
    gateways.start(odd)
    sites.wait_ready("b")
    assert send(sites, server) == "upgraded-weaker-offer"
    rings(sites, "a", ["upgraded-weaker-offer"])
    eventually(lambda: decisions(sites, "b"), what="gateway b's decision")
    assert f"form={OfferForm.SHORT.value}" in sites.log("b")
    sites.kill("b")
    sites.start("b")
    assert send(sites, server) == "upgraded"


def odd_program(folder: Path) -> Path:
    root = Path(product.__file__).parent.parent
    odd = folder / "odd"
    shutil.rmtree(odd, ignore_errors=True)
    for name in ("gateway", "iptables"):
        shutil.copytree(root / name, odd / name, ignore=shutil.ignore_patterns("*.so"))
    file = odd / "gateway" / "session" / "receiving.py"
    rule = "        size = offer_fits(reply)\n"
    assert file.read_text().count(rule) == 1
    file.write_text(file.read_text().replace(rule, "        size = OfferSize.SHORT\n"))
    return odd


# --- Many ---------------------------------------------------------------------------------------------------


def test_many_peers_without_their_offers_at_once_are_our_own_path(sites: Sites, server: MailServer) -> None:
    """Somebody takes the offers of all: from the fifth site on one alarm about our path, not of theirs."""
    addresses = [f"10.13.{number}.1" for number in range(limits.MANY_MISSING + 3)]
    for address in addresses:
        sites.sh("mta-b", f"ip addr replace {address}/32 dev lo")
    sites.sh("gw-b", f"ip route replace 10.13.0.0/16 via {at_b(sites).address}")
    sites.sh("wire", f"ip route replace 10.13.0.0/16 via {sites.topology.nodes['gw-b'].addresses['wire'].v4}")
    sites.start("a")
    sites.kill("a")
    now, today = int(time.time()), int(time.time()) // limits.DAY_SECONDS
    with PinStore(state(sites, "a") / "peers.db") as store:
        for number, address in enumerate(addresses):
            store.remember(Destination(address, 25), MetPeer(bytes([number + 1]) * 32, today, True), now)
    sites.start("a")
    assert {send(sites, server, address) for address in addresses} == {"offer-missing"}
    rings(sites, "a", ["offer-missing"] * (limits.MANY_MISSING - 1) + ["own-path"])
    told: list[dict[str, Any]] = sites.status("a")["alarms"]
    assert [one["reason"] for one in told].count("own-path") == 1
