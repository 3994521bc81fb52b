"""What a gateway remembers of its peers, with real daemons and real files; silence; path MTU; ECN.

What happens to a peer (new, the same, changed, without a gateway) is seen in the operator's own words: the
log, `nightmail status` and `nightmail peers`. Namespaces nmf0-...
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import probes
from tests.lab.links import fill_link
from tests.lab.probes import Dialogue, MailServer, eventually, kill, mail
from tests.lab.two_sites import BOTH_FAMILIES, Sites


@pytest.fixture
def sites(built: Sites) -> Iterator[Sites]:
    begin_anew(built)
    yield built


def begin_anew(sites: Sites) -> None:
    """Two gateways that have never met."""
    sites.kill("a")
    sites.kill("b")
    for path in (sites.gateway("a").folder / "state").glob("peers.db*"):
        path.unlink()
    sites.start("a", "b")


def send(sites: Sites, server: MailServer, body: bytes = b"hello") -> str:
    """One mail from a to b; the reason that the sending gateway gives for what it did."""
    before = len(decisions(sites))
    mail(sites, "mta-a", server, sites.address("mta-b", False), body)
    found = eventually(lambda: decisions(sites)[before:], what="a decision in the log")
    assert len(found) == 1
    return found[0]


def meet(sites: Sites, server: MailServer) -> None:
    """The first session of both, and gateway a knows for all its workers whom it has met."""
    assert send(sites, server) == "upgraded-new-peer"
    eventually(lambda: sites.status("a")["peers"] == 1, what="the peer by status")


def decisions(sites: Sites) -> list[str]:
    lines = [line for line in sites.log("a").splitlines() if " session decided " in line]
    return [line.rsplit("reason=", 1)[1].split()[0] for line in lines]


def rang(sites: Sites) -> list[tuple[str, int]]:
    """Each alarm of gateway a, and how often it would have rung again."""
    return [(alarm["reason"], alarm["unheard"]) for alarm in sites.alarms("a")]


def test_a_pin_of_the_first_contact_survives_a_kill_right_after(sites: Sites, server: MailServer) -> None:
    meet(sites, server)
    kill(sites.supervisor("a"), *sites.workers("a"))
    known = probes.pins(sites.gateway("a"))
    assert [pin["address"] for pin in known] == [sites.address("mta-b", False)]
    sites.kill("a")
    sites.start("a")
    assert send(sites, server) == "upgraded"
    assert sites.status("a")["peers"] == 1


def test_a_restart_of_both_is_the_same_peer_again(sites: Sites, server: MailServer) -> None:
    meet(sites, server)
    identities = [sites.status(letter)["identity"] for letter in "ab"]
    for letter in "ab":
        sites.kill(letter)
    sites.start("a", "b")
    assert [sites.status(letter)["identity"] for letter in "ab"] == identities
    assert send(sites, server) == "upgraded"
    assert rang(sites) == []


def gid_of(pid: int) -> int:
    """As the kernel has it: /proc/PID of a process that cannot be dumped belongs to root."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Gid:")).split()[1])


def test_the_identity_is_for_root_alone_and_the_memory_for_the_workers_to_read(sites: Sites) -> None:
    for letter in "ab":
        folder = sites.gateway(letter).folder / "state"
        assert (folder / "identity").stat().st_mode & 0o777 == 0o600
        for name in ("peers.db", "peers.db-wal", "peers.db-shm"):
            found = (folder / name).stat()
            assert (found.st_mode & 0o777, found.st_uid) == (0o640, 0)
            assert found.st_gid == gid_of(sites.workers(letter)[0])
        assert folder.stat().st_mode & 0o777 == 0o710
        assert sites.gateway(letter).control_socket.stat().st_mode & 0o077 == 0


def test_another_identity_rings_once_and_mail_flows_protected(sites: Sites, server: MailServer) -> None:
    meet(sites, server)
    sites.kill("b")
    (sites.gateway("b").folder / "state" / "identity").unlink()
    sites.start("b")
    reasons = [send(sites, server, b"to a stranger") for _ in range(3)]
    assert reasons == ["upgraded-changed-peer"] * 3
    eventually(lambda: rang(sites), what="an alarm")
    assert [reason for reason, _ in rang(sites)] == ["upgraded-changed-peer"]
    eventually(lambda: len(probes.pins(sites.gateway("a"))[0]["identities"]) == 2, what="both remembered")


def test_a_peer_without_its_gateway_rings_and_mail_flows_in_clear(sites: Sites, server: MailServer) -> None:
    meet(sites, server)
    sites.kill("b")
    assert [send(sites, server, b"in clear") for _ in range(3)] == ["offer-missing"] * 3
    eventually(lambda: rang(sites) == [("offer-missing", 2)], what="one alarm, for all three")
    clear = sites.status("a")["counters"]["decided"]["out"]["clear"]
    eventually(
        lambda: sites.status("a")["counters"]["decided"]["out"]["clear"].get("offer-missing") == 3,
        what=f"three sessions in clear by status, after {clear}",
    )
    sites.start("b")
    assert send(sites, server, b"back") == "upgraded"


def test_an_alarm_waits_for_a_supervisor_that_stands_still(sites: Sites, server: MailServer) -> None:
    """Its workers' links are full by then, and a session that goes on in clear comes perhaps once."""
    assert send(sites, server) == "upgraded-new-peer"
    sites.kill("b")
    workers = sites.workers("a")
    os.kill(sites.supervisor("a"), signal.SIGSTOP)
    try:
        for pid in workers:
            fill_link(pid)
        assert send(sites, server, b"in clear") == "offer-missing"
    finally:
        os.kill(sites.supervisor("a"), signal.SIGCONT)
    eventually(lambda: rang(sites) == [("offer-missing", 0)], what="the alarm")
    sites.start("b")


@pytest.mark.parametrize("alive", [True, False], ids=["while-running", "at-start"])
def test_a_corrupt_memory_is_moved_aside(sites: Sites, server: MailServer, alive: bool) -> None:
    meet(sites, server)
    state = sites.gateway("a").folder / "state"
    if not alive:
        sites.kill("a")
    for suffix in ("-wal", "-shm"):
        (state / f"peers.db{suffix}").unlink(missing_ok=True)
    rubbish = b"no database at all" * 1000
    (state / "rubbish").write_bytes(rubbish)
    (state / "rubbish").rename(state / "peers.db")
    if not alive:
        sites.start("a")
    reasons = [send(sites, server, b"with rubbish for a memory") for _ in range(2)]
    assert all(reason.startswith("upgraded") for reason in reasons)
    eventually(lambda: sites.alarms("a", "pins-unreadable"), what="an alarm")
    aside = [path for path in state.glob("peers.db.corrupt-*") if not path.name.endswith(("-wal", "-shm"))]
    assert rubbish in [path.read_bytes() for path in aside]
    for path in state.glob("peers.db.corrupt-*"):
        path.unlink()


# --- Path MTU -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def anew(built: Sites) -> None:
    """Once for all paths: whatever the tests before have made them remember."""
    begin_anew(built)


@pytest.fixture
def narrow(built: Sites, anew: None) -> Iterator[Sites]:
    """The wire between its router and gateway b takes 1300 octets; everybody else takes 1500."""
    built.settle()
    try:
        built.sh("wire", "ip link set gw-b mtu 1300")
        built.sh("gw-b", "ip link set outside mtu 1300")
        yield built
    finally:
        built.sh("wire", "ip link set gw-b mtu 1500")
        built.sh("gw-b", "ip link set outside mtu 1500")
        for node in ("mta-a", "gw-a", "mta-b", "gw-b"):
            built.sh(node, "ip route flush cache", "ip -6 route flush cache")


@BOTH_FAMILIES
@pytest.mark.parametrize("kind", ["channel", "clear"])
@pytest.mark.parametrize("way", ["a-to-b", "b-to-a"])
def test_a_narrow_path_is_no_black_hole(narrow: Sites, v6: bool, kind: str, way: str) -> None:
    sites = narrow
    client, target = ("mta-a", "mta-b") if way == "a-to-b" else ("mta-b", "mta-a")
    if kind == "clear":
        # One gateway alone, whose session stays in clear: the sending one, whose both sockets feel the MTU.
        sites.kill("b" if way == "a-to-b" else "a")
    letter = client[-1]
    before = sent(sites, letter, kind)
    body = (b"x" * 76 + b"\r\n") * 4000
    with MailServer(sites, target, v6) as server:
        took = mail(sites, client, server, sites.address(target, v6), body[:-2])
        print(f"{took:.2f} s")
        assert took < probes.PATIENCE
    eventually(lambda: sent(sites, letter, kind) == before + 1, what=f"one session in {kind}")


def sent(sites: Sites, letter: str, kind: str) -> int:
    """Sessions of this gateway as the sending one."""
    decided = sites.status(letter)["counters"]["decided"]["out"]
    return sum(decided["upgraded" if kind == "channel" else "clear"].values())


# --- ECN ----------------------------------------------------------------------------------------------


@pytest.fixture
def marked(sites: Sites) -> Iterator[Sites]:
    """Everybody asks for explicit congestion notification: their SYNs bear two flags more."""
    nodes = ("mta-a", "gw-a", "gw-b", "mta-b")
    before = {node: sites.sh(node, "sysctl -n net.ipv4.tcp_ecn").strip() for node in nodes}
    for node in nodes:
        sites.sh(node, "sysctl -qw net.ipv4.tcp_ecn=1")
    yield sites
    for node in nodes:
        sites.sh(node, f"sysctl -qw net.ipv4.tcp_ecn={before[node]}")


@BOTH_FAMILIES
def test_mail_of_hosts_that_ask_for_ecn_is_taken_and_keeps_it(marked: Sites, v6: bool) -> None:
    with MailServer(marked, "mta-b", v6) as server:
        with Dialogue(marked.connect("mta-a", marked.address("mta-b", v6))) as dialogue:
            dialogue.begin()
            for node, connections in (("mta-a", 1), ("gw-a", 2), ("gw-b", 2), ("mta-b", 1)):
                shown = marked.sh(node, "ss -Htino state established").split()
                assert shown.count("ecn") == connections, node
            dialogue.send_mail(b"hello")
            dialogue.say(b"QUIT")
        assert server.mails == [b"hello\r\n"]
    eventually(lambda: decisions(marked) == ["upgraded-new-peer"], what="the decision in the log")


# --- Silence ------------------------------------------------------------------------------------------

SILENCE_SECONDS = 240


@pytest.mark.long
@pytest.mark.timeout(SILENCE_SECONDS + 120)
def test_minutes_of_silence_are_survived_in_channel_and_in_clear(sites: Sites, server: MailServer) -> None:
    """Longer than the kernel remembers unanswered or closing connections; nothing may expire under a session.

    The opening entry of a taken connection lives 60 s, conntrack's for the unreplied 120 s.
    """
    target = sites.address("mta-b", False)
    with (
        Dialogue(sites.connect("mta-a", target)) as channel,
        Dialogue(sites.connect("mta-c", target)) as clear,
    ):
        for dialogue in (channel, clear):
            dialogue.begin()
            dialogue.say(b"MAIL FROM:<a@client.test>")
        quiet_until = time.monotonic() + SILENCE_SECONDS
        # Nothing is waited for but time itself.
        while (left := quiet_until - time.monotonic()) > 0:
            time.sleep(min(left, 10))
        for dialogue in (channel, clear):
            dialogue.send_mail(b"after a long silence")
            dialogue.say(b"QUIT")
    assert server.mails == [b"after a long silence\r\n"] * 2
