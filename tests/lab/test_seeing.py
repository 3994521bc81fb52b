"""What a running gateway shows of itself, with real daemons: sessions by day over restarts and reloads."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gateway.lab import gateways
from tests.lab import probes
from tests.lab.probes import MailServer, Sites, eventually, mail

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    with probes.built() as sites:
        yield sites


@pytest.fixture
def server(sites: Sites) -> Iterator[MailServer]:
    sites.settle()
    with MailServer(sites, "mta-b", False) as server:
        yield server


def protected_today(sites: Sites) -> int:
    return sum(sites.status("a")["today"]["out"]["upgraded"].values())


def test_sessions_by_day_outlive_a_restart_a_reload_and_the_daemon(sites: Sites, server: MailServer) -> None:
    target = sites.address("mta-b", False)
    for number in range(3):
        mail(sites, "mta-a", server, target, b"number %d" % number)
    eventually(lambda: protected_today(sites) == 3, what="three sessions by status")

    assert "reloaded" in sites.command("a", "reload")
    mail(sites, "mta-a", server, target, b"behind the reload")
    eventually(lambda: protected_today(sites) == 4, what="the same three and one more")

    gateways.stop(sites.gateway("a"))
    told = sites.command("a", "status")
    assert told.startswith("NO, mail passes in clear: no daemon is running")
    assert "sent by this site: today 4 of 4 sessions protected (100.0 %)" in told

    sites.start("a")
    assert protected_today(sites) == 4
    mail(sites, "mta-a", server, target, b"behind the restart")
    eventually(lambda: protected_today(sites) == 5, what="the same four and one more")
    assert sites.status("a")["counters"]["decided"]["out"]["upgraded"] == {"upgraded": 1}
    assert "this week 5 of 5 sessions protected" in sites.command("a", "status")
