"""A device on the line that lets a handshake pass and cuts what comes behind it: mail waits, nothing is lost,
and after a while somebody is told.

The ten minutes for which it must have been so are none here (`impatient/sitecustomize.py`); how they count is
the unit tests' matter. Counterpart: `policy.broken`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway
from gateway.lab import processes
from gateway.policy import limits
from tests.lab import two_sites
from tests.lab.probes import Dialogue, MailServer, eventually, mail
from tests.lab.two_sites import Sites

IMPATIENT = Path(__file__).with_name("impatient")
LARGE = b"x" * 70 + b"\r\n"
LARGE_MAIL = LARGE * 1500
CUT_BEHIND = 40_000
"""Octets: more than a handshake has, less than that mail."""
DEVICE = (
    f"FORWARD -p tcp --dport 25 -m connbytes --connbytes {CUT_BEHIND}: --connbytes-dir original"
    " --connbytes-mode bytes -j REJECT --reject-with tcp-reset"
)
"""Answers for the far side, as such devices do."""


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    with two_sites.built(start=False) as sites:
        start_impatient(sites)
        sites.start("b")
        sites.wait_ready("a")
        sites.sh("wire", "sysctl -qw net.netfilter.nf_conntrack_acct=1")
        sites.acquaint()
        yield sites


def start_impatient(sites: Sites) -> None:
    one = sites.gateway("a")
    root = Path(gateway.__file__).parent.parent
    command = ["env", f"PYTHONPATH={IMPATIENT}:{root}", "LIMITS=BROKEN_CHANNELS_SECONDS=0", sys.executable]
    command += ["-P", "-m", "gateway", "--config", str(one.configuration), "run"]
    processes.start_in(one.namespace, command, log=one.log, pid_file=one.pid_file)


def broken(sites: Sites) -> int:
    lines = sites.log("a").splitlines()
    return sum(" session ended " in one and "protected=yes" in one and "reason=reset" in one for one in lines)


def is_cut(sites: Sites, target: str) -> bool:
    """Whether a large mail fails, in a session that was sealed before."""
    before = broken(sites)
    with Dialogue(sites.connect("mta-a", target)) as dialogue:
        dialogue.begin()
        try:
            dialogue.send_mail(LARGE_MAIL)
        except OSError:
            eventually(lambda: broken(sites) == before + 1, what="the end of the channel")
            return True
        dialogue.say(b"QUIT")
    return False


def test_channels_that_break_off_in_a_row_ring(sites: Sites, server: MailServer) -> None:
    target = sites.address("mta-b", False)
    sites.sh("wire", f"iptables -A {DEVICE}")
    for _ in range(limits.BROKEN_CHANNELS - 1):
        assert is_cut(sites, target)
    # What is small still passes, and its good end begins the count anew.
    mail(sites, "mta-a", server, target, b"a small one")
    for _ in range(limits.BROKEN_CHANNELS - 1):
        assert is_cut(sites, target)
    assert not sites.alarms("a", "channels-break"), "a channel ended well in between"
    assert is_cut(sites, target)
    (alarm,) = eventually(lambda: sites.alarms("a", "channels-break"), what="the alarm")
    assert alarm["subject"] == f"{target}:25"
    assert len(server.mails) == 1, "what was cut was taken for whole"
    sites.sh("wire", f"iptables -D {DEVICE}")
    assert not is_cut(sites, target)
    assert server.mails[1:] == [LARGE_MAIL + b"\r\n"]
