"""A bug of ours in a real daemon, under real mail: it costs one session or one SYN, which passes; no more.

Counterparts: `bugged/sitecustomize.py`, which brings them in, and the unit tests of `connection`, `intake`
and `sessions`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway
from gateway.lab import processes
from tests.lab import two_sites
from tests.lab.bugged.sitecustomize import BUGS
from tests.lab.probes import Dialogue, MailServer, eventually, mail
from tests.lab.two_sites import Sites

BUGGED = Path(__file__).with_name("bugged")
PORTS = {
    letter: {bug: 40000 + 100 * each + number for number, bug in enumerate(BUGS)}
    for each, letter in enumerate("ab")
}
AT_ONCE = 5.0
"""Nobody waits for a timer of a gateway's or of a mail server's: those are of ten seconds and more."""
A_FLIGHT = 40_000
"""Octets in more than one record: behind them a gateway waits for silence."""


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    with two_sites.built(start=False) as sites:
        for letter in "ab":
            start_bugged(sites, letter)
        for letter in "ab":
            sites.wait_ready(letter)
        sites.acquaint()
        yield sites


def start_bugged(sites: Sites, letter: str) -> None:
    one = sites.gateway(letter)
    root = Path(gateway.__file__).parent.parent
    first = min(PORTS[letter].values())
    command = ["env", f"PYTHONPATH={BUGGED}:{root}", f"BUGS_FROM={first}", sys.executable, "-P"]
    command += ["-m", "gateway", "--config", str(one.configuration), "run"]
    processes.start_in(one.namespace, command, log=one.log, pid_file=one.pid_file)


def failures(sites: Sites, letter: str) -> list[str]:
    return [line for line in sites.log(letter).splitlines() if " failed " in line and " error " in line]


@pytest.mark.parametrize("letter", ["a", "b"], ids=["sending", "receiving"])
@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_costs_one_session_or_one_syn(sites: Sites, server: MailServer, bug: str, letter: str) -> None:
    target, port = sites.address("mta-b", False), PORTS[letter][bug]
    before = {each: failures(sites, each) for each in "ab"}
    workers = {each: sites.workers(each) for each in "ab"}
    with Dialogue(sites.connect("mta-a", target)) as lasting:
        lasting.begin()
        began = time.monotonic()
        passed = meets_the_bug(sites, bug, target, port)
        assert time.monotonic() - began < AT_ONCE, "somebody waited"
        assert passed in may_pass(bug, letter)
        (told,) = eventually(lambda: failures(sites, letter)[len(before[letter]) :], what="a line of it")
        what = "session" if bug in ("handle", "timer", "readable") else "gate"
        assert f"injected: {bug}" in told
        assert f" {what} failed " in told
        eventually(lambda: sites.alarms(letter, "internal"), what="an alarm")
        lasting.send_mail(b"while another's session broke")
    assert len(server.mails) == 1 + passed
    assert mail(sites, "mta-a", server, target, b"from the same port", port=port) < AT_ONCE
    assert failures(sites, letter) == [*before[letter], told]
    other = "b" if letter == "a" else "a"
    assert failures(sites, other) == before[other]
    assert {each: sites.workers(each) for each in "ab"} == workers


def may_pass(bug: str, letter: str) -> tuple[bool, ...]:
    """A SYN passes, a session is reset. Behind a dial that has bugs the SYN passes, too, and meets at the far
    gateway what is left of that dial, which had the same addresses and ports: there it may be reset."""
    if bug == "dial" and letter == "a":
        return True, False
    return (bug == "syn",)


def meets_the_bug(sites: Sites, bug: str, target: str, port: int) -> bool:
    """Whether the mail from this port is taken; else its session is reset, and nothing hangs."""
    try:
        with Dialogue(sites.connect("mta-a", target, port=port)) as dialogue:
            dialogue.begin()
            if bug == "timer":
                dialogue.say(b"NOOP")  # the first flight is another matter
                dialogue.say(b"HELP " + b"x" * A_FLIGHT)
                dialogue.reply()  # there is none: the end of either flight is awaited, and meets the bug
            dialogue.send_mail(b"with a bug")
            dialogue.say(b"QUIT")
    except (ConnectionResetError, ConnectionRefusedError):
        return False
    return True
