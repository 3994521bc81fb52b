"""Workers that hang let mail pass, and come back; what passed is counted and told. In namespaces nmf0-..."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab import probes
from tests.lab.harms import GATEWAYS_AND_SITES, targets, undisturbed
from tests.lab.probes import PATIENCE, TRIES, Load, MailServer, eventually, mail
from tests.lab.two_sites import Sites


@pytest.fixture
def sites(acquainted_sites: Sites) -> Iterator[Sites]:
    with undisturbed(acquainted_sites) as sites:
        yield sites


# --- Hangs --------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(sites: Sites) -> Iterator[Callable[..., None]]:
    """Stops processes; they go on afterwards whatever happened."""
    pids: list[int] = []

    def stop(*which: int) -> None:
        for pid in which:
            os.kill(pid, signal.SIGSTOP)
            pids.append(pid)

    yield stop
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue


@GATEWAYS_AND_SITES
@pytest.mark.parametrize("count", [1, 2], ids=["one", "all"])
def test_a_hung_worker_is_taken_out_of_the_rules_and_comes_back(
    sites: Sites,
    server4: MailServer,
    server6: MailServer,
    stopped: Callable,
    letter: str,
    count: int,
    site: str,
) -> None:
    sites.surround(site)
    pids = sites.workers(letter)[:count]
    queues = [worker["queue"] for worker in sites.status(letter)["workers"]][:count]
    with Load(sites, "mta-a", targets(sites)) as load:
        load.wait(20)
        at = time.monotonic()
        stopped(*pids)
        eventually(lambda: not_served(sites, letter, queues), what="watchdog")
        out = time.monotonic()
        # Sessions of the stopped workers stand still, as they must: so fresh clients.
        eventually(lambda: time.monotonic() >= at + 1.0)
        with Load(sites, "mta-a", targets(sites)) as fresh:
            fresh.wait(40)
        again = time.monotonic()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: sites.serving(letter) == 2, what="serving again")
        load.wait(40, since=again + 1.0)
    print(fresh.judge(at))
    assert not [each for each in load.attempts if each.seconds >= PATIENCE]
    load.attempts = [each for each in load.attempts if each.began >= again]
    out_after = out - at - load.metronome.stood_still(at, out)
    print(load.judge(again), f"out of the rules after {out_after:.2f} s")
    assert out_after < 0.5 + 0.4, f"out of the rules after {out_after:.2f} s"
    assert sites.alarms(letter, "worker-hung")


def not_served(sites: Sites, letter: str, queues: list[int]) -> bool:
    return not any(str(queue) in words(rule) for rule in sites.gate(letter) for queue in queues)


def words(rule: str) -> set[str]:
    return set(rule.replace(":", " ").split())


def test_syns_held_by_a_stopped_worker_do_no_harm_when_it_wakes(
    sites: Sites, server4: MailServer, stopped: Callable
) -> None:
    """Its clients have long sent their SYNs again, and those went direct: from the very same port."""
    target = targets(sites)[0]
    pids = sites.workers("a")
    slept = sites.log("a").count(" worker slept ")
    stopped(*pids)
    with probes.Dialogue(sites.connect("mta-a", target)) as dialogue:
        dialogue.begin()
        connections = len(server4.peers)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: sites.serving("a") == 2, what="serving again")
        eventually(
            lambda: sites.log("a").count(" worker slept ") >= slept + 2, what="both told that they slept"
        )
        dialogue.send_mail(b"begun while all workers slept")
        dialogue.say(b"QUIT")
    assert server4.mails == [b"begun while all workers slept\r\n"]
    assert len(server4.peers) == connections == 1


def test_what_came_in_a_short_sleep_is_judged_and_costs_nobody_a_second(
    sites: Sites, server4: MailServer, stopped: Callable
) -> None:
    """As on a busy machine, where a worker goes without a processor for a while."""
    for attempt in range(TRIES):
        took = opened_in_a_sleep(sites, stopped)
        if took < 0.9:
            return
        assert attempt + 1 < TRIES, f"{took:.2f} s: its client's kernel has sent the SYN again"


def opened_in_a_sleep(sites: Sites, stopped: Callable) -> float:
    """Seconds until a connection stood that began with it."""
    pids = sites.workers("a")
    slept = sites.log("a").count(" worker slept ")
    with ThreadPoolExecutor(1) as waiting:
        began = time.monotonic()
        stopped(*pids)
        client = waiting.submit(sites.connect, "mta-a", targets(sites)[0])
        time.sleep(0.5)  # the sleep itself: long enough to be taken for hung
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        client.result().close()
        took = time.monotonic() - began
    eventually(lambda: sites.log("a").count(" worker slept ") >= slept + 2, what="both told that they slept")
    eventually(lambda: sites.serving("a") == 2, what="serving again")
    return took


# --- Being told ---------------------------------------------------------------------------------------


def test_status_and_log_tell_how_many_passed_unprotected_and_why(
    sites: Sites, server4: MailServer, stopped: Callable
) -> None:
    before, seen = sites.status("a")["bypassed"], begun(sites)
    with Load(sites, "mta-a", (targets(sites)[0],)) as load:
        load.wait(100)  # what goes through the gateway must not be counted

    def unseen() -> int:
        return len(load.attempts) - (begun(sites) - seen)

    with contextlib.suppress(AssertionError):  # of a worker that was without a processor for long
        eventually(lambda: not unseen(), 2.0)
    passed = 5 + unseen()
    stopped(*sites.workers("a"))
    eventually(lambda: not sites.gate("a"), what="an empty gate")
    for _ in range(5):
        mail(sites, "mta-a", server4, targets(sites)[0], b"in clear")
    eventually(lambda: sites.status("a")["bypassed"] - before >= passed, what=f"a count of {passed}")
    assert sites.status("a")["bypassed"] - before <= passed + 1
    eventually(lambda: "reason=bypassed" in bypass_told(sites), what="a line in the log")
    shown = sites.command("a", "status")
    assert "NO, mail passes in clear: no worker serves" in shown
    assert "worker-hung" in shown
    assert re.search(rf"bypassed: ({before + passed}|{before + passed + 1}) connections", shown)


def test_what_passed_while_no_daemon_ran_is_told_by_the_next_one(sites: Sites, server4: MailServer) -> None:
    sites.kill("a")
    sites.start("a")
    sites.kill("a")
    for _ in range(5):
        mail(sites, "mta-a", server4, targets(sites)[0], b"nobody at home")
    sites.start("a")
    assert sites.status("a")["bypassed"] == 5
    eventually(lambda: "connections=5" in bypass_told(sites), what="a line in the log")


def begun(sites: Sites) -> int:
    return sites.log("a").count(" session begun ")


def bypass_told(sites: Sites) -> str:
    return "\n".join(each for each in sites.log("a").splitlines() if " gate bypassed " in each)
