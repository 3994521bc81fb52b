"""Many servers that cannot be reached, at once: each client is told, though kernels send few ICMP errors."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.policy import limits
from tests.lab import two_sites
from tests.lab.probes import Metronome, failure
from tests.lab.troubles import HOST, at
from tests.lab.two_sites import BOTH_FAMILIES, TOOLS, Sites

CLIENTS = 20
FIRST_PORT = 41_100
SECONDS = {False: 1.0, True: 2.0}
"""An ICMPv6 error that comes back within the very call of connect() is only believed a SYN later (1 s)."""


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    with two_sites.built(start=False) as made:
        made.sh("gw-a", "sysctl -qw net.ipv4.icmp_ratelimit=1000 net.ipv6.icmp.ratelimit=1000")
        made.start("a", "b")
        for tool, word in zip(TOOLS, ("icmp-host-unreachable", "icmp6-addr-unreachable"), strict=True):
            where = at(HOST, tool == TOOLS[True])
            made.sh("wire", f"{tool} -A FORWARD -d {where} -p tcp -j REJECT --reject-with {word}")
        yield made


@BOTH_FAMILIES
def test_each_of_many_clients_is_told_at_once(sites: Sites, v6: bool) -> None:
    with Metronome() as metronome, ThreadPoolExecutor(CLIENTS) as threads:
        began = time.monotonic()
        told = list(
            threads.map(
                lambda number: failure(sites, "mta-a", at(HOST, v6), port=FIRST_PORT + number), range(CLIENTS)
            )
        )
    count = Counter(name for name, _ in told)
    assert set(count) == {"EHOSTUNREACH", "ECONNREFUSED"}, f"{told}\n{sites.log('a')}"
    assert 1 <= count["EHOSTUNREACH"] <= limits.ICMP_ERRORS_AT_ONCE
    stood_still = metronome.stood_still(began, time.monotonic())
    assert max(seconds for _, seconds in told) - stood_still < SECONDS[v6], told
