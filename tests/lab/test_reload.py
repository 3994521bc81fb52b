"""Reload and upgrade: no session ends, no connection is refused, nothing passes in clear. In namespaces nmf0-

Both are one thing: the supervisor executes itself anew, so each reload here is also an upgrade,
to a program that happens to be the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.lab import gateways, processes
from gateway.operator import status as operator_status
from gateway.policy import limits
from tests.lab import probes
from tests.lab.links import fill_link
from tests.lab.probes import Dialogue, Load, MailServer, eventually, mail
from tests.lab.two_sites import Sites

RELOADS = 10
FROZEN_SECONDS = 5.0
"""In which a connection passes workers that all stand still: a SYN comes again, and they are forgotten."""


@pytest.fixture(scope="module")
def built(acquainted_sites: Sites) -> Sites:
    return acquainted_sites


def reload(sites: Sites, letter: str) -> subprocess.CompletedProcess[bytes]:
    one = sites.gateway(letter)
    command = gateways.nightmail_command("--config", str(one.configuration), "reload")
    return subprocess.run(processes.command_in(one.namespace, command), capture_output=True, check=False)


def status(sites: Sites, letter: str) -> dict[str, Any]:
    answer = gateways.ask(sites.gateway(letter))
    assert answer is not None
    return answer


def generation(sites: Sites, letter: str) -> int:
    return max(worker["generation"] for worker in status(sites, letter)["workers"])


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("letter", ["a", "b"])
def test_ten_reloads_under_load_break_nothing(sites: Sites, server: MailServer, letter: str) -> None:
    target = sites.address("mta-b", False)
    supervisor = sites.supervisor(letter)
    first = generation(sites, letter)
    bypassed = status(sites, letter)["bypassed"]
    slept = sites.log(letter).count("worker slept")
    lasting = [Dialogue(sites.connect("mta-a", target)) for _ in range(4)]
    for dialogue in lasting:
        dialogue.begin()
    with Load(sites, "mta-a", (target,)) as load:
        load.wait(20)
        for number in range(RELOADS):
            done = reload(sites, letter)
            assert done.returncode == 0, done.stderr.decode()
            # Sessions from before all reloads still take mail, and new ones are made.
            lasting[number % 4].send_mail(b"through reload %d" % number)
            load.wait(4)
    failed = [attempt for attempt in load.attempts if attempt.failure]
    assert not failed, probes.shown(failed, 0.0)
    # A lost SYN costs a second. A worker that got no CPU for long drops what it slept through, and says so.
    slow = [each for each in load.attempts if each.connected and each.connected - each.began > 0.9]
    assert not slow or sites.log(letter).count("worker slept") > slept, probes.shown(slow, 0.0)
    assert len(server.mails) == RELOADS
    assert sites.supervisor(letter) == supervisor, "the same process, with the program loaded anew"
    assert generation(sites, letter) == first + RELOADS
    now = status(sites, letter)
    assert now["bypassed"] == bypassed
    assert not sites.alarms(letter, "worker-died")
    # The workers of the first generation go on as long as they have sessions, and no longer.
    old = [worker for worker in now["workers"] if worker["generation"] == first]
    assert sum(worker["sessions"] for worker in old) == len(lasting)
    for dialogue in lasting:
        dialogue.say(b"QUIT")
        dialogue.__exit__()
    eventually(lambda: len(status(sites, letter)["workers"]) == 2, what="the old workers' end")


def test_who_is_told_to_end_leaves_its_slot_to_a_successor(sites: Sites, server: MailServer) -> None:
    """By a process that frees memory, say: the sessions that go on may last for hours."""
    target = sites.address("mta-b", False)
    lasting = [Dialogue(sites.connect("mta-a", target)) for _ in range(4)]
    for dialogue in lasting:
        dialogue.begin()
    before = sites.workers("a")
    for pid in before:
        os.kill(pid, signal.SIGTERM)
    eventually(
        lambda: len(set(sites.workers("a")) - set(before)) == sites.serving("a") == len(before),
        what="the successors",
    )
    sites.wait_ready("a")
    successors = set(sites.workers("a")) - set(before)
    # All of them come from one address: the other worker had no session, and has ended.
    eventually(lambda: len(set(before) & set(sites.workers("a"))) == 1, what="the end of the idle one")
    (busy,) = set(before) & set(sites.workers("a"))
    begun = _begun(sites)
    mail(sites, "mta-a", server, target, b"by a successor")
    eventually(lambda: _begun(sites) == begun + 1, what="its session in the log, or it went direct")
    assert len(sites.alarms("a", "worker-died")) >= 1
    assert not sites.alarms("a", "signer-silent")
    # Who only finishes its sessions does not vouch for a successor that hangs.
    frozen = [sites.supervisor("a"), *successors]
    try:
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        with Dialogue(sites.connect("mta-a", target)) as dialogue:
            dialogue.begin()
        assert time.monotonic() - began < FROZEN_SECONDS
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    for dialogue in lasting:
        dialogue.send_mail(b"in a session from before")
        dialogue.say(b"QUIT")
        dialogue.__exit__()
    eventually(lambda: busy not in sites.workers("a"), what="the old worker's end")
    assert len(sites.workers("a")) == sites.serving("a") == len(before)


def test_who_is_told_to_end_while_nobody_hears_says_so_later(sites: Sites, server: MailServer) -> None:
    """A link is full when the supervisor has stood still for half a minute. Unheard, one that takes nothing
    new any more would be taken for one that serves, and mail of all workers would pass in clear."""
    target = sites.address("mta-b", False)
    lasting = [Dialogue(sites.connect("mta-a", target)) for _ in range(2)]
    for dialogue in lasting:
        dialogue.begin()
    before, draining = sites.workers("a"), sites.log("a").count("worker draining")
    os.kill(sites.supervisor("a"), signal.SIGSTOP)
    try:
        for pid in before:
            fill_link(pid)
            os.kill(pid, signal.SIGTERM)
        eventually(lambda: sites.log("a").count("worker draining") == draining + len(before))
    finally:
        os.kill(sites.supervisor("a"), signal.SIGCONT)
    eventually(
        lambda: len(set(sites.workers("a")) - set(before)) == sites.serving("a") == len(before),
        what="the successors",
    )
    sites.wait_ready("a")
    begun = _begun(sites)
    mail(sites, "mta-a", server, target, b"by a successor")
    eventually(lambda: _begun(sites) == begun + 1, what="its session in the log, or it went direct")
    for dialogue in lasting:
        dialogue.say(b"QUIT")
        dialogue.__exit__()


def tables_of_ours(sites: Sites, letter: str) -> list[tuple[str, int]]:
    """Family and handle of each: a table that is put anew has another handle."""
    listing = ["nft", "--json", "list", "tables"]
    told = subprocess.run(
        processes.command_in(sites.gateway(letter).namespace, listing), capture_output=True, check=True
    )
    tables = [one["table"] for one in json.loads(told.stdout)["nftables"] if "table" in one]
    return [(one["family"], one["handle"]) for one in tables if one["name"] == "nightmail"]


@pytest.mark.parametrize("letter", ["a", "b"])
def test_a_reload_leaves_the_rules_as_they_stand(sites: Sites, server: MailServer, letter: str) -> None:
    """First packets get lost while nft's table is replaced."""
    before = tables_of_ours(sites, letter)
    assert before
    done = reload(sites, letter)
    assert done.returncode == 0, done.stderr.decode()
    assert tables_of_ours(sites, letter) == before
    mail(sites, "mta-a", server, sites.address("mta-b", False), b"by their successors")


def test_counters_outlive_a_reload(sites: Sites, server: MailServer) -> None:
    def begun() -> int:
        return int(status(sites, "a")["counters"]["tallies"].get("sessions-begun", 0))

    mail(sites, "mta-a", server, sites.address("mta-b", False), b"counted")
    since = status(sites, "a")["since"]
    before = eventually(begun)
    assert reload(sites, "a").returncode == 0
    eventually(lambda: begun() >= before)
    assert status(sites, "a")["since"] == since


def test_a_new_configuration_holds_for_new_connections(sites: Sites, server: MailServer) -> None:
    one = sites.gateway("a")
    before = one.configuration.read_text()
    target = sites.address("mta-b", False)
    try:
        one.configuration.write_text(before + f'\n[exceptions]\nnever = ["{target}"]\n')
        assert reload(sites, "a").returncode == 0
        begun, before_at_b = _begun(sites), len(_decided_at_b(sites))
        mail(sites, "mta-a", server, target, b"left alone")
        eventually(lambda: len(_decided_at_b(sites)) == before_at_b + 1, what="the session at gateway b")
        assert "protected=no" in _decided_at_b(sites)[-1]
        assert _begun(sites) == begun
    finally:
        one.configuration.write_text(before)
        assert reload(sites, "a").returncode == 0
    mail(sites, "mta-a", server, target, b"taken again")
    eventually(lambda: _begun(sites) > begun)


def _decided_at_b(sites: Sites) -> list[str]:
    return [line for line in sites.log("b").splitlines() if " session decided " in line]


def _begun(sites: Sites) -> int:
    text = sites.gateway("a").log.read_text()
    return text.count("session begun")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('[nonsense]\nkey = "x"\n', "nonsense"),
        ("[marks]\nmask = 0x00ff0000\n", "marks.mask"),
        ("[kernel]\nzone = 77\n", "kernel.zone"),
        ("[daemon\n", "nightmail.toml:"),
        # What the next supervisor would end by at its start.
        ('[exceptions]\nnever = ["ipset:nowhere"]\n', "no set nowhere, which exceptions.never names"),
        ('[log]\nfile = "/nowhere/nightmail.log"\n', "/nowhere/nightmail.log"),
    ],
)
def test_a_bad_configuration_changes_nothing_and_says_why(
    sites: Sites, server: MailServer, more: str, told: str
) -> None:
    one = sites.gateway("a")
    before = one.configuration.read_text()
    workers = sites.workers("a")
    try:
        one.configuration.write_text(before + "\n" + more)
        done = reload(sites, "a")
    finally:
        one.configuration.write_text(before)
    # What cannot be read is refused before the daemon is asked.
    assert done.returncode == 2 or b"nothing has changed" in done.stderr
    assert done.returncode in (1, 2)
    assert told.encode() in done.stderr
    assert len(done.stderr.splitlines()) == 1
    # Those of a generation before may have ended meanwhile.
    assert not set(sites.workers("a")) - set(workers)
    mail(sites, "mta-a", server, sites.address("mta-b", False), b"as before")


def test_a_hangup_reloads_too(sites: Sites, server: MailServer) -> None:
    before = generation(sites, "b")
    os.kill(sites.supervisor("b"), signal.SIGHUP)
    eventually(lambda: gateways.ask(sites.gateway("b")) and generation(sites, "b") > before)
    began = time.monotonic()
    mail(sites, "mta-a", server, sites.address("mta-b", False), b"after the signal")
    assert time.monotonic() - began < probes.PATIENCE


def test_who_asks_meanwhile_waits_for_the_answer(sites: Sites) -> None:
    """For the second that the supervisor takes to come back: nobody is told that no daemon runs."""
    answers: list[dict[str, Any] | None] = []
    done = threading.Event()

    def ask_on() -> None:
        while not done.is_set():
            answers.append(gateways.ask(sites.gateway("a")))
        answers.append(gateways.ask(sites.gateway("a")))  # this one behind the reload, whenever it began

    asking = threading.Thread(target=ask_on)
    asking.start()
    try:
        before = generation(sites, "a")
        assert reload(sites, "a").returncode == 0
    finally:
        done.set()
        asking.join()
    told = [max(worker["generation"] for worker in answer["workers"]) for answer in answers if answer]
    assert len(told) == len(answers), "somebody was told that no daemon runs"
    assert (told[0], told[-1]) == (before, before + 1)


def test_two_hangups_at_once_leave_no_process_that_nobody_waits_for(sites: Sites) -> None:
    before, supervisor = generation(sites, "b"), sites.supervisor("b")
    known = set(children(supervisor))
    os.kill(supervisor, signal.SIGHUP)
    eventually(lambda: set(children(supervisor)) - known, what="who is asked whether a reload can be")
    time.sleep(0.3)  # the second is on its way when the first has its answer
    os.kill(supervisor, signal.SIGHUP)
    eventually(lambda: gateways.ask(sites.gateway("b")) and generation(sites, "b") > before)
    sites.wait_ready("b")
    eventually(lambda: "Z" not in children(supervisor).values(), what="an end of all zombies")


def children(parent: int) -> dict[int, str]:
    """Of this process: pid -> state (proc_pid_stat(5))."""
    found: dict[int, str] = {}
    for listing in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in map(int, listing.read_text().split()):
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return found


def test_who_is_told_to_stop_while_it_reloads_stops(sites: Sites) -> None:
    """The next one would know nothing of it, and a service manager would wait, and then kill."""
    one, supervisor = sites.gateway("b"), sites.supervisor("b")
    before = one.configuration.read_text()
    try:
        # An alarm that is being told holds up the end of the program that is now.
        one.configuration.write_text(before + '\n[alarms]\ncommand = ["/bin/sleep", "60"]\n')
        assert reload(sites, "b").returncode == 0
        newest = max(status(sites, "b")["workers"], key=lambda worker: int(worker["generation"]))
        probes.kill(newest["pid"])
        eventually(lambda: sites.alarms("b", "worker-died"), what="an alarm")
        answer = operator_status.ask(one.control_socket, b"reload\n", limits.RELOAD_SECONDS)
        assert answer == {"reloads": True, "trouble": ""}
        os.kill(supervisor, signal.SIGTERM)
        probes.wait_gone(supervisor, seconds=limits.STOP_SECONDS)
        assert "daemon stopped" in sites.log("b")
        assert "daemon reloads" not in sites.log("b")[sites.log("b").rindex("alarm rings") :]
    finally:
        one.configuration.write_text(before)


def test_a_reload_without_a_daemon_says_so(sites: Sites) -> None:
    probes.kill(sites.supervisor("a"))
    done = eventually(lambda: (again := reload(sites, "a")).returncode == 1 and again)
    assert b"no daemon is running" in done.stderr
