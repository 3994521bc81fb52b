"""`nightmail ping` from a gateway box, to servers with a gateway and without, and to none at all."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gateway
from gateway.config import Placement
from gateway.lab import processes
from tests.lab import probes, two_sites
from tests.lab.probes import MailServer, eventually, mail
from tests.lab.two_sites import BOTH_FAMILIES, Sites

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    with two_sites.built() as sites:
        yield sites


@pytest.fixture
def strangers(sites: Sites) -> Sites:
    """Gateway a has met nobody."""
    sites.kill("a")
    for path in (sites.gateway("a").folder / "state").glob("peers.db*"):
        path.unlink()
    sites.start("a")
    sites.settle()
    return sites


def pinged(sites: Sites, address: str, *words: str, prefix: list[str] | None = None) -> tuple[int, str]:
    one = sites.gateway("a")
    root = Path(gateway.__file__).parent.parent
    python = ["env", f"PYTHONPATH={root}", sys.executable, "-m", "gateway"]
    command = [*(prefix or []), *python, "--config", str(one.configuration), "ping", address, *words]
    done = subprocess.run(
        processes.command_in(one.namespace, command), capture_output=True, text=True, timeout=60, cwd="/"
    )
    return done.returncode, done.stdout + done.stderr


def facts(
    sites: Sites, address: str, *words: str, prefix: list[str] | None = None
) -> tuple[int, dict[str, Any]]:
    status, text = pinged(sites, address, "--json", *words, prefix=prefix)
    (found,) = json.loads(text)
    return status, found


@BOTH_FAMILIES
def test_to_a_server_behind_a_gateway(strangers: Sites, v6: bool) -> None:
    address = strangers.address("mta-b", v6)
    with MailServer(strangers, "mta-b", v6) as server:
        status, found = facts(strangers, address)
        ended = eventually(
            lambda: [line for line in strangers.log("b").splitlines() if "session ended" in line],
            what="the end in b's log",
        )
    assert status == 0
    assert (found["protected"], found["reason"]) == (True, "upgraded-new-peer")
    assert set(found["seconds"]) == {"connected", "greeting", "reply", "channel", "quit"}
    assert (found["offer"], found["peer"]["hybrid"], found["peer"]["standing"]) == ("full", True, "unpinned")
    assert found["peer"]["fingerprint"] == strangers.status("b")["identity"]
    assert found["announces"] == ["PIPELINING", "8BITMIME"]
    assert found["octets"]["sent"] > 512
    assert found["octets"]["received"] >= 512, "padded: the answer alone has some ten octets"
    assert "reason=closed" in ended[-1], "an orderly end over there"
    assert server.mails == []
    assert probes.pins(strangers.gateway("a")) == [], "nothing is remembered"
    # Its own gateway took no part: what the box itself sends is nobody's.
    assert "session begun" not in strangers.log("a")


def test_the_remembered_one_and_another_one(strangers: Sites) -> None:
    sites, address = strangers, strangers.address("mta-b", False)
    with MailServer(sites, "mta-b", False) as server:
        mail(sites, "mta-a", server, address, b"how do you do")
        eventually(lambda: probes.pins(sites.gateway("a")), what="a pin")
        status, text = pinged(sites, address)
        assert status == 0
        assert text.startswith(f"{address}:25: YES, a session is protected\n")
        assert "the remembered one" in text
        before = probes.pins(sites.gateway("a"))

        sites.kill("b")
        (sites.gateway("b").folder / "state" / "identity").unlink()
        sites.start("b")
        status, found = facts(sites, address)
        assert (status, found["peer"]["standing"]) == (0, "stranger")
        assert found["reason"] == "upgraded-changed-peer"
        assert probes.pins(sites.gateway("a")) == before

        sites.kill("b")
        status, found = facts(sites, address)
        assert (status, found["reason"], found["remembered"]) == (1, "offer-missing", True)
        sites.start("b")


def test_without_root_it_works_and_says_what_it_cannot_read(sites: Sites) -> None:
    sites.settle()
    address = sites.address("mta-b", False)
    state = sites.gateway("a").folder / "state"
    state.chmod(0o700)
    with MailServer(sites, "mta-b", False):
        status, text = pinged(sites, address, prefix=NOBODY)
    assert status == 0
    assert text.startswith(f"{address}:25: YES, a session is protected\n")
    assert "whether it is the remembered one cannot be read: Permission denied" in text


def test_to_a_server_without_a_gateway(sites: Sites) -> None:
    address = sites.address("mta-c", False)
    with MailServer(sites, "mta-c", False):
        status, found = facts(sites, address)
    assert (status, found["protected"], found["reason"], found["offer"]) == (1, False, "no-offer", None)
    assert "quit" in found["seconds"]


def test_to_a_port_that_refuses(sites: Sites) -> None:
    status, text = pinged(sites, sites.address("mta-c", False))
    assert (status, text.count("\n")) == (1, 1)
    assert "NO, no session: Connection refused" in text


@BOTH_FAMILIES
def test_to_an_address_that_is_silent(sites: Sites, v6: bool) -> None:
    tool = "ip6tables" if v6 else "iptables"
    sites.sh("mta-c", f"{tool} -A INPUT -p tcp --dport 25 -j DROP")
    try:
        began = time.monotonic()
        status, text = pinged(sites, sites.address("mta-c", v6), "--seconds", "1")
        assert time.monotonic() - began < 30
    finally:
        sites.sh("mta-c", f"{tool} -F INPUT")
    assert status == 1
    assert "NO, no session: no answer in time, waiting for the connection" in text


def test_on_the_mail_server_itself_the_gateway_there_lets_it_be() -> None:
    with two_sites.built(placement=Placement.HOST) as sites:
        address = sites.address("mta-b", False)
        with MailServer(sites, "mta-b", False):
            status, found = facts(sites, address)
            refused = pinged(sites, address, prefix=NOBODY)
        assert (status, found["protected"], found["peer"]["hybrid"]) == (0, True, True)
        assert found["peer"]["fingerprint"] == sites.status("b")["identity"]
        assert "session begun" not in sites.log("a")
    told = (
        "nightmail: ping on the mail server itself needs root: else the gateway here takes the connection\n"
    )
    assert refused == (1, told)
