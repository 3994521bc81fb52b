"""What a running gateway shows of itself, with real daemons: sessions by day, metrics, alarms that leave."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.lab import gateways, processes
from tests.lab import probes, two_sites
from tests.lab.probes import Load, MailServer, eventually, mail
from tests.lab.two_sites import Sites


@pytest.fixture(scope="module")
def built() -> Iterator[Sites]:
    with two_sites.built(start=False) as sites:
        for one in sites.gateways:
            command = one.folder / "tell"
            command.write_text(f"#!/bin/sh\ncat >>{one.folder}/alarms\n")
            command.chmod(0o755)
            more = (
                f'[metrics]\nlisten = "unix:{one.folder}/metrics.sock"\n[alarms]\ncommand = ["{command}"]\n'
            )
            one.configuration.write_text(one.configuration.read_text() + more)
        sites.start("a", "b")
        yield sites


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


def metrics(sites: Sites, letter: str) -> dict[str, float]:
    """Every series, by its text."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(30)
    connection.sock.connect(str(sites.gateway(letter).folder / "metrics.sock"))
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    lines = answer.read().decode().splitlines()
    connection.close()
    assert answer.status == 200
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def test_metrics_follow_the_mail_and_come_back_after_a_reload(sites: Sites, server: MailServer) -> None:
    began = "nightmail_sessions_begun_total"
    before = metrics(sites, "a")
    assert before["nightmail_protecting"] == 1
    mail(sites, "mta-a", server, sites.address("mta-b", False), b"counted")
    eventually(lambda: metrics(sites, "a")[began] == before.get(began, 0) + 1, what="one session more")
    assert "reloaded" in sites.command("a", "reload")
    after = metrics(sites, "a")
    assert after[began] == before.get(began, 0) + 1
    assert sum(count for name, count in after.items() if "sessions_protected_total{" in name) >= 1
    # Slots of two generations, while the older one ends.
    assert 2 <= sum("worker_serving{" in name for name in after) <= 4


def alarms(sites: Sites, letter: str) -> list[dict[str, Any]]:
    path = sites.gateway(letter).folder / "alarms"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_an_alarm_reaches_the_command_once(sites: Sites, server: MailServer) -> None:
    target = sites.address("mta-b", False)
    mail(sites, "mta-a", server, target, b"before")
    eventually(lambda: probes.pins(sites.gateway("a")), what="the peer remembered")
    sites.kill("b")
    for _ in range(2):
        mail(sites, "mta-a", server, target, b"in clear")
    (told,) = eventually(lambda: alarms(sites, "a"), what="the command's file")
    assert (told["reason"], told["subject"]) == ("offer-missing", f"{target}:25")
    assert told["likely"] == "peer-switched-off"

    # A daemon that knows nothing of it rings again in its log, and sends nothing again.
    gateways.stop(sites.gateway("a"))
    sites.start("a")
    mail(sites, "mta-a", server, target, b"in clear")
    eventually(lambda: sites.alarms("a", "offer-missing"), what="the bell")
    gateways.stop(sites.gateway("a"))  # what was to be told is told by now
    assert len(alarms(sites, "a")) == 1


@pytest.mark.parametrize("word", ["check", "plan", "doctor"])
def test_who_looks_costs_no_client_its_first_packet(sites: Sites, server: MailServer, word: str) -> None:
    """That comes again after a second."""
    with Load(sites, "mta-a", (sites.address("mta-b", False),)) as load:
        load.wait(20)
        slept = sites.log("a").count("worker slept")
        for _ in range(3):
            sites.command("a", word)
        load.wait(20)
    failed = [attempt for attempt in load.attempts if attempt.failure]
    assert not failed, probes.shown(failed, 0.0)
    slow = [each for each in load.attempts if each.connected and each.connected - each.began > 0.9]
    assert not slow or sites.log("a").count("worker slept") > slept, probes.shown(slow, 0.0)


def test_a_daemon_that_is_stopped_hides_nothing_that_is_remembered(sites: Sites, server: MailServer) -> None:
    target = sites.address("mta-b", False)
    mail(sites, "mta-a", server, target, b"by an acquaintance")
    os.kill(sites.supervisor("a"), signal.SIGSTOP)
    try:
        told = sites.command("a", "explain", target)
    finally:
        os.kill(sites.supervisor("a"), signal.SIGCONT)
    assert "A session there is encrypted." in told
    assert "the daemon does not answer" in told
    assert "first seen" in told


def test_what_ends_with_this_boot_says_so(sites: Sites) -> None:
    try:
        sites.command("a", "down", "--until-reboot")
        eventually(lambda: sites.status("a")["wanted"] == "down", what="the daemon has read it")
        assert "`nightmail down --until-reboot`, until the next boot" in sites.command("a", "status")
        sites.command("a", "down")
        eventually(lambda: not sites.status("a")["wanted_until_reboot"], what="the daemon has read it")
        assert "until the next boot" not in sites.command("a", "status")
    finally:
        sites.command("a", "up")


def test_a_down_that_the_daemon_has_not_seen_before_the_next_up_rings_nothing(sites: Sites) -> None:
    """On a busy machine it looks too late for that: here it is stopped."""
    one = sites.gateway("a")
    command = gateways.nightmail_command("--config", str(one.configuration), "up")
    put_back = sites.log("a").count(" put-back ")
    before = len(sites.alarms("a", "rules-missing"))
    daemon = sites.supervisor("a")
    os.kill(daemon, signal.SIGSTOP)
    try:
        assert sites.command("a", "down").startswith("rules are out")
        up = subprocess.Popen(processes.command_in(one.namespace, command), stdout=subprocess.PIPE, text=True)
        word = one.folder / "state" / "wanted.json"
        eventually(lambda: json.loads(word.read_text())["wanted"] == "up", what="the word of `up`")
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert up.communicate(timeout=60)[0].startswith("rules are in place")
    eventually(lambda: sites.log("a").count(" put-back ") > put_back, what="the rules put back")
    assert len(sites.alarms("a", "rules-missing")) == before


def test_up_and_down_at_once_ring_nothing(sites: Sites) -> None:
    """Whichever was first: the other one comes behind it."""
    one = sites.gateway("a")
    command = gateways.nightmail_command("--config", str(one.configuration))
    try:
        for _ in range(4):
            both = [
                subprocess.Popen(
                    processes.command_in(one.namespace, [*command, word]), stdout=subprocess.PIPE, text=True
                )
                for word in ("down", "up")
            ]
            told = [each.communicate(timeout=60)[0] for each in both]
            assert [each.returncode for each in both] == [0, 0]
            assert told[0].startswith("rules are out")
            assert told[1].startswith("rules are in place")
    finally:
        sites.command("a", "up")
    assert sites.alarms("a", "rules-missing") == []


@pytest.fixture
def swept(sites: Sites) -> Iterator[Path]:
    """What is left of a gateway's run directory once somebody has cleaned up: its name."""
    run = sites.gateway("a").control_socket.parent
    shutil.rmtree(run)
    yield run
    if run.is_file():
        run.unlink()
    eventually(lambda: gateways.ask(sites.gateway("a")), what="an answer")


def test_a_socket_that_somebody_removes_comes_back(sites: Sites, server: MailServer, swept: Path) -> None:
    before = sites.supervisor("a")
    (sites.gateway("a").folder / "metrics.sock").unlink()
    mail(sites, "mta-a", server, sites.address("mta-b", False), b"meanwhile")
    eventually(lambda: gateways.ask(sites.gateway("a")), what="an answer")
    eventually(lambda: (sites.gateway("a").folder / "metrics.sock").is_socket(), what="metrics")
    assert metrics(sites, "a")
    assert "reloaded" in sites.command("a", "reload")
    assert sites.supervisor("a") == before


def test_a_daemon_that_cannot_be_asked_is_not_taken_for_none(
    sites: Sites, server: MailServer, swept: Path
) -> None:
    """As where systemd has made all but the directory unwritable to it. A reload would end it."""
    swept.touch()
    daemon = sites.supervisor("a")
    told = sites.command("a", "status")
    assert told.startswith(f"NO ANSWER, so nobody knows: a daemon runs (process {daemon}), but its socket")
    assert f"a daemon runs (process {daemon})" in sites.command("a", "reload")
    assert f"the daemon's (process {daemon}) socket" in sites.command("a", "doctor")
    os.kill(daemon, signal.SIGHUP)
    eventually(lambda: " reason=reload-refused" in sites.log("a"), what="the alarm")
    mail(sites, "mta-a", server, sites.address("mta-b", False), b"as ever")
    assert sites.supervisor("a") == daemon
    assert sites.log("a").count("control lost") == 1
