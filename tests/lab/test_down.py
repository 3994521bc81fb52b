"""`nightmail down` while sessions are open: they end before the rules go. In namespaces nmf0-

Under a daemon that `up` has not started, which goes on running. What a mail server says in a channel is on
the wire in no other form, to the end; whoever comes meanwhile passes as without a gateway.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from gateway.config import Placement
from gateway.eyes.capture import LARGEST_PACKET_OCTETS, open_ear
from gateway.lab import gateways, network, processes
from gateway.policy import limits
from tests.lab.harms import protected, targets
from tests.lab.probes import PATIENCE, Dialogue, MailServer, eventually, kill, mail, mail_at_once, wait_gone
from tests.lab.two_sites import Sites

OUT = "rules are out and stay out; mail passes in clear until `nightmail up`"
SECRET = b"moonlit heron"
COMMANDS = (b"MAIL FROM:<a@client.test>", b"RCPT TO:<b@mx.test>", b"DATA")


@pytest.fixture(scope="module")
def built(acquainted_sites: Sites) -> Sites:
    return acquainted_sites


@pytest.fixture
def afterwards_up(sites: Sites) -> Iterator[None]:
    yield
    sites.command("a", "up")
    sites.wait_ready("a")


class Down:
    """The command, at work at gateway a until its end is asked for."""

    def __init__(self, sites: Sites) -> None:
        one = sites.gateway("a")
        words = gateways.nightmail_command("--config", str(one.configuration), "down")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            processes.command_in(one.namespace, words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, seconds: float = PATIENCE) -> str:
        out, err = self.process.communicate(timeout=seconds)
        assert (self.process.returncode, err) == (0, "")
        return out.strip()


def closed(sites: Sites) -> bool:
    """Whether the gate sends nothing any more, and the rules stand."""
    rules = sites.status("a")["rules"]
    return bool(rules["stand"] and not rules["queues"])


def in_a_mail(dialogue: Dialogue) -> None:
    dialogue.begin()
    for command in COMMANDS:
        dialogue.say(command)
    dialogue.socket.sendall(SECRET + b" before\r\n")


def begun(sites: Sites) -> int:
    return sites.log("a").count(" session begun ")


def heard(ear: socket.socket) -> bytes:
    packets = []
    while True:
        try:
            packets.append(ear.recv(LARGEST_PACKET_OCTETS))
        except BlockingIOError:
            return b"".join(packets)


@pytest.mark.parametrize("placement", Placement, indirect=True, scope="module", ids=lambda one: one.value)
def test_what_has_not_ended_is_reset_before_the_rules_go(
    sites: Sites, server: MailServer, afterwards_up: None
) -> None:
    """Here at once, for the command is interrupted; else behind the time that a stop has."""
    target, workers = targets(sites)[0], sites.workers("a")
    before = begun(sites)
    ear = network.inside(sites.namespace("wire"), open_ear)
    with (
        ear,
        MailServer(sites, "mta-c", False) as without_gateway,
        Dialogue(sites.connect("mta-a", target)) as sealed,
        Dialogue(sites.connect("mta-a", sites.address("mta-c", False))) as clear,
    ):
        for dialogue in (sealed, clear):
            in_a_mail(dialogue)
        eventually(lambda: begun(sites) == before + 2, what="both in the log")
        down = Down(sites)
        eventually(lambda: closed(sites), what="the gate closed")
        mail_at_once(sites, "mta-a", server, target, b"meanwhile")
        for dialogue in (sealed, clear):
            dialogue.socket.sendall(SECRET + b" meanwhile\r\n")
        down.process.send_signal(signal.SIGINT)
        assert down.end() == f"{OUT}; 2 sessions had not ended and were reset"
        assert time.monotonic() - down.began < limits.STOP_SECONDS
        for dialogue in (sealed, clear):
            with pytest.raises(ConnectionResetError):
                dialogue.socket.recv(1)
            with pytest.raises(OSError, match=r"Broken pipe|reset"):
                dialogue.socket.sendall(SECRET + b" afterwards\r\n")
        eventually(lambda: not server.open and not without_gateway.open, what="their ends at the servers")
        assert server.mails == [b"meanwhile\r\n"]
        assert sites.gate("a") == []
        said = heard(ear)
    assert b"EHLO client.test" in said
    assert said.count(SECRET + b" meanwhile") == 1, "in the session without a gateway at the other end"
    assert SECRET + b" afterwards" not in said
    eventually(lambda: sites.serving("a") == 2, what="workers for the next `up`")
    assert begun(sites) == before + 2, "who came meanwhile passed by"
    assert sites.workers("a") != workers, "who had open sessions was started anew"
    assert sites.alarms("a", "worker-died") == []


def told_of_down(sites: Sites) -> list[str]:
    """Lines of the log, which may be a moment behind."""
    return [line for line in sites.log("a").splitlines() if " rules down" in line]


def test_who_ends_in_time_ends_as_ever(sites: Sites, server: MailServer, afterwards_up: None) -> None:
    target, workers, downs = targets(sites)[0], sites.workers("a"), len(told_of_down(sites))
    with Dialogue(sites.connect("mta-a", target)) as dialogue:
        in_a_mail(dialogue)
        down = Down(sites)
        eventually(lambda: closed(sites), what="the gate closed")
        assert dialogue.say(b"and the rest of it\r\n.").startswith(b"250")
        assert down.process.poll() is None
        dialogue.say(b"QUIT")
    assert down.end() == OUT
    assert time.monotonic() - down.began < limits.STOP_SECONDS
    assert server.mails == [SECRET + b" before\r\nand the rest of it\r\n"]
    assert sites.gate("a") == []
    told = eventually(lambda: told_of_down(sites)[downs:], what="that in the log")
    assert "reset=" not in told[-1]
    upgraded = protected(sites, "a")
    sites.command("a", "up")
    mail(sites, "mta-a", server, target, b"the next one")
    eventually(lambda: protected(sites, "a") == upgraded + 1, what="a protected session more")
    assert sites.workers("a") == workers, "nobody had to be started anew"


@pytest.mark.long
def test_sessions_have_the_time_that_they_have_at_a_stop(
    sites: Sites, server: MailServer, afterwards_up: None
) -> None:
    with Dialogue(
        sites.connect("mta-a", targets(sites)[0], timeout=limits.STOP_SECONDS + PATIENCE)
    ) as dialogue:
        in_a_mail(dialogue)
        down = Down(sites)
        with pytest.raises(ConnectionResetError):
            dialogue.socket.recv(1)
        assert time.monotonic() - down.began > limits.STOP_SECONDS - 0.5
    assert down.end() == f"{OUT}; 1 session had not ended and was reset"
    eventually(lambda: " rules down reset=1" in sites.log("a"), what="that in the log")


def test_a_reload_meanwhile_changes_nothing(sites: Sites, server: MailServer, afterwards_up: None) -> None:
    """The next supervisor goes on with it, and the workers of before have its sessions."""
    with Dialogue(sites.connect("mta-a", targets(sites)[0])) as dialogue:
        in_a_mail(dialogue)
        down = Down(sites)
        eventually(lambda: closed(sites), what="the gate closed")
        reloads = sites.log("a").count(" daemon reloaded ")
        os.kill(sites.supervisor("a"), signal.SIGHUP)
        eventually(lambda: sites.log("a").count(" daemon reloaded ") > reloads, what="the reload")
        eventually(lambda: closed(sites), what="the gate closed, still")
        assert dialogue.say(b"and the rest of it\r\n.").startswith(b"250")
        dialogue.say(b"QUIT")
    assert down.end() == OUT
    assert server.mails == [SECRET + b" before\r\nand the rest of it\r\n"]
    assert sites.gate("a") == []


def test_an_up_behind_a_reload_meanwhile_is_obeyed(sites: Sites, server: MailServer) -> None:
    """And the rules are looked after, though the new supervisor has found them with a closed gate."""
    target = targets(sites)[0]
    with Dialogue(sites.connect("mta-a", target)) as dialogue:
        in_a_mail(dialogue)
        down = Down(sites)
        eventually(lambda: closed(sites), what="the gate closed")
        reloads = sites.log("a").count(" daemon reloaded ")
        os.kill(sites.supervisor("a"), signal.SIGHUP)
        eventually(lambda: sites.log("a").count(" daemon reloaded ") > reloads, what="the reload")
        eventually(lambda: closed(sites), what="the gate closed, still")
        down.process.kill()
        down.process.communicate()
        sites.command("a", "up")
        assert dialogue.say(b"and the rest of it\r\n.").startswith(b"250")
        dialogue.say(b"QUIT")
    sites.wait_ready("a")
    upgraded = protected(sites, "a")
    mail(sites, "mta-a", server, target, b"the next one")
    eventually(lambda: protected(sites, "a") == upgraded + 1, what="a protected session more")
    assert sites.alarms("a", "rules-missing") == []
    sites.sh(sites.home("a"), "nft delete table inet nightmail")
    eventually(lambda: sites.alarms("a", "rules-missing"), what="the alarm for what another has taken away")
    sites.wait_ready("a")


def test_a_daemon_that_stops_meanwhile_ends_first(sites: Sites, server: MailServer) -> None:
    """It no longer reads the word; its sessions have the time that they have."""
    supervisor = sites.supervisor("a")
    with Dialogue(sites.connect("mta-a", targets(sites)[0])) as dialogue:
        in_a_mail(dialogue)
        os.kill(supervisor, signal.SIGTERM)
        eventually(lambda: not sites.bound_queues("a"), what="its beginning to stop")
        down = Down(sites)
        assert dialogue.say(b"and the rest of it\r\n.").startswith(b"250")
        assert down.process.poll() is None
        dialogue.say(b"QUIT")
    assert down.end() == OUT
    assert server.mails == [SECRET + b" before\r\nand the rest of it\r\n"]
    assert sites.gate("a") == []
    sites.command("a", "up")


@pytest.mark.parametrize("another", [False, True], ids=["alone", "beside another daemon"])
def test_workers_without_a_supervisor_end_first(sites: Sites, server: MailServer, another: bool) -> None:
    """They finish their sessions by themselves, by rules that nobody else may need."""
    target, workers = targets(sites)[0], sites.workers("a")
    with Dialogue(sites.connect("mta-a", target)) as dialogue:
        in_a_mail(dialogue)
        kill(sites.supervisor("a"))
        eventually(lambda: not sites.bound_queues("a"), what="their queues given back")
        if another:
            sites.start("a")
        down = Down(sites)
        with pytest.raises(subprocess.TimeoutExpired):
            down.process.wait(2.0)
        assert dialogue.say(b"and the rest of it\r\n.").startswith(b"250")
        dialogue.say(b"QUIT")
    assert down.end() == OUT
    wait_gone(*workers)
    assert server.mails == [SECRET + b" before\r\nand the rest of it\r\n"]
    assert sites.gate("a") == []
    sites.command("a", "up")


def test_workers_whose_supervisor_dies_meanwhile_end_first(sites: Sites, server: MailServer) -> None:
    """They were not without one when the command looked for such."""
    with Dialogue(sites.connect("mta-a", targets(sites)[0])) as dialogue:
        in_a_mail(dialogue)
        down = Down(sites)
        eventually(lambda: closed(sites), what="the gate closed")
        kill(sites.supervisor("a"))
        with pytest.raises(subprocess.TimeoutExpired):
            down.process.wait(2.0)
        assert dialogue.say(b"and the rest of it\r\n.").startswith(b"250")
        dialogue.say(b"QUIT")
    assert down.end() == OUT
    assert server.mails == [SECRET + b" before\r\nand the rest of it\r\n"]
    assert sites.gate("a") == []
    sites.command("a", "up")


def test_what_they_do_not_end_is_reset_before_the_rules_go(sites: Sites, server: MailServer) -> None:
    ear = network.inside(sites.namespace("wire"), open_ear)
    with ear, Dialogue(sites.connect("mta-a", targets(sites)[0])) as dialogue:
        in_a_mail(dialogue)
        kill(sites.supervisor("a"))
        eventually(lambda: not sites.bound_queues("a"), what="their queues given back")
        down = Down(sites)
        with pytest.raises(subprocess.TimeoutExpired):
            down.process.wait(2.0)
        down.process.send_signal(signal.SIGINT)
        assert down.end() == OUT
        with pytest.raises(ConnectionResetError):
            dialogue.socket.recv(1)
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            dialogue.socket.sendall(SECRET + b" afterwards\r\n")
        eventually(lambda: not server.open, what="its end at the server")
        assert SECRET not in heard(ear)
    assert server.mails == []
    sites.command("a", "up")
