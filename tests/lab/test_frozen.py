"""Every process of a gateway stands still at once, the watchdog too: mail goes on all the same.

A debugger, a frozen control group, a machine that swaps: nobody is left who could take a queue out of the
rules, so the kernel lets mail pass by itself. In each placement.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from gateway.config import Placement
from gateway.lab import processes
from tests.lab.harms import targets
from tests.lab.probes import TRIES, Load, MailServer, Metronome, eventually, failure, mail, shown
from tests.lab.two_sites import Sites

LETTERS = pytest.mark.parametrize("letter", ["a", "b"])
BAR_SECONDS = 1.0
LATE_SECONDS = 0.5
"""What a busy machine may add to a time, beside those in which it stands still."""


@pytest.fixture(scope="module", params=list(Placement), ids=lambda placement: placement.value)
def placement(request: pytest.FixtureRequest) -> Placement:
    found: Placement = request.param
    return found


@pytest.fixture(scope="module")
def built(acquainted_sites: Sites) -> Sites:
    return acquainted_sites


def session_of(pid: int) -> int | None:
    """None: it has ended since it was listed, as a tool that puts rules in does."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def processes_of(sites: Sites, letter: str) -> list[int]:
    """All of the daemon: the supervisor and its children."""
    supervisor = sites.supervisor(letter)
    living = processes.living_in([sites.gateway(letter).namespace])
    ours = [each.pid for each in living if session_of(each.pid) == os.getsid(supervisor)]
    assert {supervisor, *sites.workers(letter)} < set(ours), "no signer?"
    return ours


@pytest.fixture
def frozen(sites: Sites) -> Iterator[Callable[[str], None]]:
    """Stops all processes of a gateway; they go on afterwards whatever happened."""
    pids: list[int] = []

    def freeze(letter: str) -> None:
        pids.extend(processes_of(sites, letter))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # a tool of the daemon's that has ended since
                os.kill(pid, signal.SIGSTOP)

    yield freeze
    for pid in pids:
        if processes.start_time(pid) is not None:
            os.kill(pid, signal.SIGCONT)


@LETTERS
def test_new_connections_pass_a_gateway_whose_every_process_is_frozen(
    sites: Sites, server4: MailServer, server6: MailServer, frozen: Callable[[str], None], letter: str
) -> None:
    bypassed = sites.status(letter)["bypassed"]
    pids = processes_of(sites, letter)
    frozen(letter)
    first = {}
    with Metronome() as metronome:
        at = time.monotonic()
        for target in targets(sites):  # both families: each until one gets through
            while failure(sites, "mta-a", target, timeout=0.2)[0] != "connected":
                assert time.monotonic() < at + 5 * BAR_SECONDS, f"nobody gets through to {target}"
            now = time.monotonic()
            first[target] = now - at - metronome.stood_still(at, now)
    assert max(first.values()) <= BAR_SECONDS + LATE_SECONDS, first
    with Load(sites, "mta-a", targets(sites)) as load:
        load.wait(40)
    late = [each for each in load.attempts if each.failure or load.took(each) > LATE_SECONDS]
    assert not late, shown(late, at)
    for server, target in zip((server4, server6), targets(sites), strict=True):
        mail(sites, "mta-a", server, target, b"while nobody of ours moved")
    for pid in pids:
        with contextlib.suppress(
            ProcessLookupError
        ):  # the supervisor, awake first, has put another in its place
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: sites.serving(letter) == 2, what="serving again")
    told = eventually(lambda: sites.status(letter)["bypassed"] - bypassed, 10.0, "a count of what passed")
    assert told >= 40
    before = upgraded(sites)
    mail(sites, "mta-a", server4, targets(sites)[0], b"and protected again")
    eventually(lambda: upgraded(sites) == before + 1, what="a protected session")


def upgraded(sites: Sites) -> int:
    return sum(sites.status("a")["counters"]["decided"]["out"]["upgraded"].values())


# One chain for mail that goes out and mail that comes in, and some seconds for each that shows it.
@pytest.mark.parametrize("letter", ["a", pytest.param("b", marks=pytest.mark.long)])
def test_it_is_the_kernels_watch_that_lets_them_pass(
    sites: Sites, server4: MailServer, frozen: Callable[[str], None], letter: str
) -> None:
    """With that chain empty, what is frozen holds mail for as long as it stays so."""
    target = targets(sites)[0]
    home = sites.home(letter)
    vouched = sites.sh(home, "nft list chain inet nightmail vouching")
    assert vouched.count("jump vouched_") == 2
    frozen(letter)
    sites.sh(home, "nft flush chain inet nightmail vouching")
    assert failure(sites, "mta-a", target, timeout=3 * BAR_SECONDS)[0] == "timeout"


def test_one_hung_worker_does_not_send_the_mail_of_all_past_the_gate(
    sites: Sites, server4: MailServer, server6: MailServer
) -> None:
    """The supervisor takes it out before the kernel misses it."""
    for attempt in range(TRIES):
        if unvouched_while_one_hangs(sites) == 0:
            return
        # The other worker, or the supervisor, was without a processor for so long itself.
        assert attempt + 1 < TRIES


def unvouched_while_one_hangs(sites: Sites) -> int:
    before = unvouched(sites)
    pid = sites.workers("a")[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        at = time.monotonic()
        with Load(sites, "mta-a", targets(sites)) as load:
            load.wait(40, since=at + 2.0)
    finally:
        if processes.start_time(pid) is not None:  # one that hangs for long is killed
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: sites.serving("a") == 2, what="serving again")
    return unvouched(sites) - before


def unvouched(sites: Sites) -> int:
    """SYNs that the kernel has let pass of itself."""
    found = re.search(r"packets (\d+)", sites.sh(sites.home("a"), "nft list chain inet nightmail unvouched"))
    assert found is not None
    return int(found[1])
