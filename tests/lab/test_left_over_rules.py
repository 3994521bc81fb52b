"""Rules without a daemon, rules that others flush, rules that the operator takes down."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from gateway.lab import gateways
from tests.lab import two_sites
from tests.lab.harms import SITES, ours, protected, targets, undisturbed
from tests.lab.probes import MailServer, Metronome, eventually, mail, mail_at_once
from tests.lab.two_sites import Sites


@pytest.fixture
def sites(acquainted_sites: Sites) -> Iterator[Sites]:
    with undisturbed(acquainted_sites) as sites:
        yield sites


# --- Left-over rules, other people's hands on the rules --------------------------------------------------


@SITES
def test_left_over_rules_are_harmless_and_down_takes_them_all(
    sites: Sites, server4: MailServer, server6: MailServer, site: str
) -> None:
    sites.surround(site)
    sites.kill("a")
    sites.command("a", "down")
    without = sites.kernel_state("a")
    assert sites.gate("a") == []
    gateways.start(sites.gateway("a"))
    gateways.wait_ready(sites.gateway("a"))
    assert sites.gate("a") == []  # `down` was the operator's last word
    sites.command("a", "up")
    assert sites.gate("a")
    mail(sites, "mta-a", server4, targets(sites)[0], b"with rules")
    sites.kill("a")
    mail_at_once(sites, "mta-a", server4, targets(sites)[0], b"left-over rules")
    mail_at_once(sites, "mta-a", server6, targets(sites)[1], b"left-over rules")
    sites.command("a", "down")
    assert sites.kernel_state("a") == without
    mail_at_once(sites, "mta-a", server4, targets(sites)[0], b"no rules")
    sites.command("a", "up")


def test_down_with_a_running_daemon_stays_down_and_up_brings_it_back(
    sites: Sites, server4: MailServer
) -> None:
    sites.command("a", "down")
    looks = time.monotonic() + 1.2  # two of the daemon's own looks at the rules
    while time.monotonic() < looks:
        assert sites.gate("a") == []
    assert sites.status("a")["wanted"] == "down"
    assert "`nightmail down`" in sites.command("a", "status")
    mail(sites, "mta-a", server4, targets(sites)[0], b"down")
    upgraded = protected(sites, "a")
    sites.command("a", "up")
    assert len(sites.gate("a")) > 0
    mail(sites, "mta-a", server4, targets(sites)[0], b"up")
    eventually(lambda: protected(sites, "a") == upgraded + 1, what="one protected session more")


LOOK_SECONDS = 1.0
"""To list all rules, by a dozen programs, on a busy machine."""
FLUSHES = [
    "iptables -F",
    "iptables -t raw -F",
    "iptables -t mangle -F",
    "ip6tables -t raw -F",
    "nft flush ruleset",
    "ip rule flush",
]


@pytest.mark.parametrize("flush", FLUSHES, ids=lambda flush: flush.replace(" ", "-"))
def test_what_others_flush_is_put_back_within_a_second(sites: Sites, server4: MailServer, flush: str) -> None:
    before = sites.kernel_state("a")
    try:
        sites.sh("gw-a", flush)
        if flush == "ip rule flush":
            sites.sh("gw-a", "ip rule add pref 32766 lookup main", "ip rule add pref 32767 lookup default")
        with Metronome() as metronome:
            at = time.monotonic()
            eventually(lambda: ours(sites.kernel_state("a")) == ours(before), what="all of our rules")
            now = time.monotonic()
        eventually(lambda: not sites.status("a")["rules"]["missing"], what="a status without missing rules")
        eventually(lambda: sites.alarms("a", "rules-missing"), what="an alarm")
        mail(sites, "mta-a", server4, targets(sites)[0], b"after a flush")
        took = now - at - metronome.stood_still(at, now)
        assert took < 1.0 + LOOK_SECONDS, f"put back after {took:.2f} s"
    finally:
        two_sites.add_site_chains(sites.gateway("a"))
