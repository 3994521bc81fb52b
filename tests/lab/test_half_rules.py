"""Some of our rules are gone, and nobody has put them back yet: a new connection passes as without us, or is
taken whole. Its SYN is never lost.

In each placement and at either end, with the supervisor stopped, so that what is taken away stays away.
"""

from __future__ import annotations

import os
import signal

import pytest

from gateway.config import Placement
from tests.lab.harms import ours, targets
from tests.lab.probes import MailServer, eventually, mail_at_once
from tests.lab.two_sites import TOOLS, Sites

HARM = {
    "nft-table": ["nft delete table inet nightmail"],
    **{table: [f"{tool} -w -t {table} -F" for tool in TOOLS] for table in ("raw", "mangle", "filter")},
    "everything": ["nft flush ruleset"],
}
FRAMES = {"nft-frames": ["nft delete table bridge nightmail"]}
CASES = [
    pytest.param(placement, harm, id=f"{placement.value}-{name}")
    for placement in Placement
    for name, harm in (HARM | (FRAMES if placement is Placement.BRIDGE else {})).items()
]


@pytest.fixture(scope="module")
def built(acquainted_sites: Sites) -> Sites:
    return acquainted_sites


@pytest.mark.parametrize("letter", ["a", "b"])
# Of this scope, since the sites are: else they would be built for each case.
@pytest.mark.parametrize(("placement", "harm"), CASES, indirect=["placement"], scope="module")
def test_new_connections_pass_or_are_taken_whole(
    sites: Sites, server4: MailServer, server6: MailServer, harm: list[str], letter: str
) -> None:
    whole = standing(sites, letter)
    supervisor = sites.supervisor(letter)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        sites.sh(sites.home(letter), *harm)
        assert standing(sites, letter) != whole
        for count in range(2):
            for server, target in zip((server4, server6), targets(sites), strict=True):
                mail_at_once(sites, "mta-a", server, target, b"mail %d" % count)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    eventually(lambda: standing(sites, letter) == whole, what="all of our rules")


def standing(sites: Sites, letter: str) -> list[str]:
    """Our rules, and our tables of nft whatever is in them."""
    state = sites.kernel_state(letter)
    return ours(state) + sorted(line for line in state if line.endswith("nightmail {"))
