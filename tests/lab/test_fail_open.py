"""Whatever happens to a gateway, mail flows: kills, and disks. In namespaces nmf0-...

Each kill is judged under load, too: nobody may be left to wait for a timer of its own. For hangs there is
`test_hangs`, for rules that are left over or flushed `test_left_over_rules`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from gateway.lab import gateways, processes
from gateway.policy import limits
from tests.lab import probes
from tests.lab.harms import (
    GATEWAYS_AND_SITES,
    kill_all_workers,
    kill_everything,
    kill_one_worker,
    kill_supervisor,
    protected,
    targets,
    undisturbed,
)
from tests.lab.probes import PATIENCE, Load, MailServer, eventually, kill, mail, mail_at_once, wait_gone
from tests.lab.two_sites import MASQUERADED, PLAIN, Sites

SOON_SECONDS = 5.0
"""Some milliseconds, and what a busy machine adds; what is bound to a session lasts as long as that."""


@pytest.fixture
def sites(acquainted_sites: Sites) -> Iterator[Sites]:
    with undisturbed(acquainted_sites) as sites:
        yield sites


# --- Kills --------------------------------------------------------------------------------------------

KILLS = [kill_one_worker, kill_all_workers, kill_supervisor, kill_everything]


@GATEWAYS_AND_SITES
@pytest.mark.parametrize("event", KILLS, ids=lambda event: event.__name__)
def test_a_kill_under_load_leaves_nobody_hanging(
    sites: Sites, server4: MailServer, server6: MailServer, event: Callable, letter: str, site: str
) -> None:
    sites.surround(site)
    pids = [sites.supervisor(letter), *sites.workers(letter)]
    with Load(sites, "mta-a", targets(sites)) as load:
        load.wait(40)
        at = time.monotonic()
        event(sites, letter)
        load.wait(40, since=at + 1.0)
    print(load.judge(at))
    if event in (kill_one_worker, kill_all_workers):
        eventually(lambda: sites.serving(letter) == 2, what="new workers")
        assert sites.alarms(letter, "worker-died")
    else:
        wait_gone(*pids)
        assert sites.bound_queues(letter) == []
    mail_at_once(sites, "mta-a", server4, targets(sites)[0], b"after all that")


def test_workers_give_their_queues_back_at_once_when_the_supervisor_dies(
    sites: Sites, server4: MailServer
) -> None:
    with probes.Dialogue(sites.connect("mta-a", targets(sites)[0])) as dialogue:
        dialogue.begin()
        workers = sites.workers("a")
        kill(sites.supervisor("a"))
        eventually(lambda: sites.bound_queues("a") == [], SOON_SECONDS, "queues given back")
        # The session that was open goes on to its end, and then the worker ends.
        dialogue.send_mail(b"sent through a worker without a supervisor")
        dialogue.say(b"QUIT")
    wait_gone(*workers)
    assert server4.mails == [b"sent through a worker without a supervisor\r\n"]


def test_a_daemon_that_is_started_again_leaves_the_sessions_of_the_one_before(
    sites: Sites, server4: MailServer
) -> None:
    """Its workers finish them beside the new ones: listeners, queues and rules of both are there."""
    target = targets(sites)[0]
    with probes.Dialogue(sites.connect("mta-a", target)) as dialogue:
        dialogue.begin()
        before = sites.workers("a")
        kill(sites.supervisor("a"))
        eventually(lambda: sites.bound_queues("a") == [], SOON_SECONDS, "queues given back")
        sites.start("a")
        assert not set(before) & set(sites.workers("a"))
        mail(sites, "mta-a", server4, target, b"by the new workers")
        dialogue.send_mail(b"by an old one")
        dialogue.say(b"QUIT")
    wait_gone(*before)
    assert server4.mails == [b"by the new workers\r\n", b"by an old one\r\n"]
    eventually(lambda: protected(sites, "a") == 1, what="a protected session of the new daemon")


@pytest.mark.long
def test_a_stop_resets_what_has_not_ended_and_says_so(sites: Sites, server4: MailServer) -> None:
    """To a mail server in the middle of a mail an orderly end could pass for that of the mail."""
    before = len(ends(sites, "b"))
    with probes.Dialogue(sites.connect("mta-a", targets(sites)[0])) as dialogue:
        dialogue.begin()
        for command in (b"MAIL FROM:<a@client.test>", b"RCPT TO:<b@mx.test>", b"DATA"):
            dialogue.say(command)
        dialogue.socket.sendall(b"half a mail\r\n")
        began = time.monotonic()
        os.kill(sites.supervisor("a"), signal.SIGTERM)
        dialogue.socket.settimeout(limits.STOP_SECONDS + PATIENCE)
        with pytest.raises(ConnectionResetError):
            dialogue.socket.recv(1)
        assert limits.STOP_SECONDS - 0.5 < time.monotonic() - began < limits.STOP_SECONDS + SOON_SECONDS
    eventually(lambda: "reason=stopped" in "".join(ends(sites, "a")[-1:]), what="its last word in the log")
    eventually(lambda: len(ends(sites, "b")) > before, what="the end at the other gateway")
    assert "reason=reset-by-sender" in ends(sites, "b")[-1]
    assert server4.mails == []


def ends(sites: Sites, letter: str) -> list[str]:
    return [line for line in sites.log(letter).splitlines() if " session ended " in line]


@pytest.fixture
def forgetful(sites: Sites) -> Iterator[None]:
    """Mail servers that do not remember closed connections, so that a port can be used again at once."""
    nodes = ("mta-a", "mta-b")
    before = {node: sites.sh(node, "sysctl -n net.ipv4.tcp_max_tw_buckets").strip() for node in nodes}
    for node in nodes:
        sites.sh(node, "sysctl -qw net.ipv4.tcp_max_tw_buckets=0")
    yield
    for node in nodes:
        sites.sh(node, f"sysctl -qw net.ipv4.tcp_max_tw_buckets={before[node]}")


def test_a_session_whose_peers_vanish_will_be_found_out(sites: Sites, server4: MailServer) -> None:
    """Both sockets of a silent session ask after their peers, but not before mail servers give up."""

    def asking() -> bool:
        shown = sites.sh("gw-a", "ss -Htno state established").splitlines()
        timers = [line for line in shown if f":{port}" in line]
        return len(timers) == 2 and all("timer:(keepalive,10min" in line for line in timers)

    with probes.Dialogue(sites.connect("mta-a", targets(sites)[0])) as dialogue:
        dialogue.begin()
        port = dialogue.socket.getsockname()[1]
        eventually(asking)


def left_behind(sites: Sites, letter: str) -> set[tuple[int, str]]:
    """Of which connections a gateway has sockets in TIME_WAIT: the client's port, and the server."""
    shown = [line.split()[-2:] for line in sites.sh(f"gw-{letter}", "ss -Htan state time-wait").splitlines()]
    ends = [tuple(each.rsplit(":", 1) for each in line) for line in shown]
    found = [(here, there) if there[1] == "25" else (there, here) for here, there in ends]
    return {(int(client[1]), server[0].strip("[]")) for client, server in found}


@pytest.mark.parametrize("letter", ["a", "b"])
def test_what_a_session_has_left_behind_does_not_stop_the_next_one_from_that_port(
    sites: Sites, server4: MailServer, server6: MailServer, forgetful: None, letter: str
) -> None:
    """The gateway's sockets stand in TIME_WAIT, and the gateway is dead: the kernel must still forward."""
    cases = [(port, target) for port in (21001, 21002) for target in targets(sites)]
    for port, target in cases:
        with probes.Dialogue(sites.connect("mta-a", target, port=port)) as dialogue:
            dialogue.begin()
            if port == 21002:  # the server closes first
                dialogue.say(b"QUIT")
                assert dialogue.socket.recv(1) == b""
    # The client is gone before the gateways' last words to each other.
    eventually(lambda: left_behind(sites, letter) >= set(cases), what="TIME_WAIT")
    sites.kill(letter)
    assert left_behind(sites, letter) >= set(cases)
    for port, target in cases:
        with probes.Dialogue(sites.connect("mta-a", target, port=port)) as dialogue:
            assert not probes.sent_again(dialogue.socket)
            dialogue.begin()


# --- The disk -----------------------------------------------------------------------------------------


def start_with(sites: Sites, letter: str, *steps: str) -> None:
    """Start the daemon in a mount namespace of its own, after these shell steps there."""
    one = sites.gateway(letter)
    one.log.write_text("")
    one.control_socket.unlink(missing_ok=True)
    run = " ".join(gateways.nightmail_command("--config", str(one.configuration), "run"))
    shell = " && ".join([*steps, f"exec {run}"])
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", shell]
    processes.start_in(one.namespace, command, log=one.log, pid_file=one.pid_file)
    sites.wait_ready(letter)


def disk_full(sites: Sites) -> None:
    """What was learnt fits, and not an octet more."""
    state = sites.gateway("a").folder / "state"
    start_with(
        sites,
        "a",
        "mount -t tmpfs -o size=64k tmpfs /mnt",
        f"cp -a {state}/identity /mnt/",
        f"mount --move /mnt {state}",
        f"(dd if=/dev/zero of={state}/filler bs=4k 2>/dev/null || true)",
    )


def disk_read_only(sites: Sites) -> None:
    state = sites.gateway("a").folder / "state"
    start_with(sites, "a", f"mount --bind {state} {state}", f"mount -o remount,bind,ro {state}")


def store_corrupt(sites: Sites) -> None:
    path = sites.gateway("a").folder / "state" / "peers.db"
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(b"no database at all" * 1000)
    sites.start("a")


# A site's packet rules have nothing to do with a disk.
@pytest.mark.parametrize("site", [PLAIN, pytest.param(MASQUERADED, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "trouble", [disk_full, disk_read_only, store_corrupt], ids=["full", "read-only", "corrupt"]
)
def test_trouble_with_the_disk_is_an_alarm_and_mail_flows(
    sites: Sites, server4: MailServer, trouble: Callable[[Sites], None], site: str
) -> None:
    sites.surround(site)
    sites.kill("a")
    try:
        trouble(sites)
        assert mail(sites, "mta-a", server4, targets(sites)[0], b"first") < PATIENCE / 2
        mail_at_once(sites, "mta-a", server4, targets(sites)[0], b"second")
        eventually(lambda: sites.alarms("a", "pins-unreadable"), what="an alarm")
        eventually(lambda: protected(sites, "a") == 2, what="two protected sessions")
    finally:
        sites.kill("a")
