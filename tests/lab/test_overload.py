"""Floods: memory stays bounded, no mail is refused, and other sources' mail keeps its rate. Namespaces nmf0-

The gateways have small limits, so that a flood of some thousands is beyond them. Counterparts: `flooder`,
which is bounded in rate and ends with its test; docs/operations.md, "Overload".
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.lab import network, processes
from tests.lab import probes, two_sites
from tests.lab.flooder import CONNECTIONS
from tests.lab.forged import FORGED_NETWORK
from tests.lab.probes import Dialogue, eventually
from tests.lab.two_sites import Sites

pytestmark = [pytest.mark.usefixtures("has_its_turn"), pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
SESSIONS, PER_SOURCE, PER_SECOND, HELD = 500, 200, 300, 4
SMALL_LIMITS = f"""
[limits]
sessions = {SESSIONS}
sessions_per_source = {PER_SOURCE}
handshakes_per_second = {PER_SECOND}
handshakes_per_source = {PER_SECOND}
held_megabytes = {HELD}
"""
FAMILIES = pytest.mark.parametrize(
    "v6", [False, pytest.param(True, marks=pytest.mark.long)], ids=["v4", "v6"]
)
MIB = 1 << 20
GROWTH = 48 * MIB
"""Of one worker: 500 sessions of 20 KB, what forged SYNs leave for a minute, and the allocator."""
SYNS_PER_SECOND, SYNS_FOR_A_MAIL = 4000, 25
"""Fewer where other work leaves the machine so little that it carries few mails: what all of it can bear is
not for some of it."""
FEW = 10
"""Offers a second, to one source: fewer than any machine here can be asked for."""
KEPT = 0.7
RATE_SECONDS, MOST_SECONDS, RATE_MAILS = 1.2, 6.0, 100
"""So long, and longer where that is not enough mails to tell a rate by."""
TRIES, COMPARED = 12, 3
"""Other work on the machine comes and goes, and the rate with it. The best of a few tries in a row is near to
what the machine can; what a flood takes away is gone in every one of them."""


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    with two_sites.built(configuration=SMALL_LIMITS) as sites:
        for v6 in (False, True):
            flag = "-6 " if v6 else ""
            sites.sh("wire", f"ip {flag}route add blackhole {FORGED_NETWORK[v6]}")
        with sink(sites):
            # Site b's gateway gets to know site a's: its mail must keep its channel in a flood of strangers.
            for v6 in (False, True):
                send(sites, sites.address("mta-b", v6))
            eventually(
                lambda: sites.status("b")["sources"]["upgraded"] == 2, what="both addresses known at b"
            )
            yield sites


@contextlib.contextmanager
def sink(sites: Sites) -> Iterator[None]:
    facts = sites.folder / "sink.facts"
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "bench.chaos.server", str(facts), "25"]
    log, pid = sites.folder / "sink.log", sites.folder / "sink.pid"
    processes.start_in(sites.namespace("mta-b"), command, log=log, pid_file=pid)
    eventually(lambda: facts.exists() and facts.stat().st_size, what="a sink that listens")
    yield


def send(sites: Sites, target: str) -> None:
    with Dialogue(sites.connect("mta-a", target)) as dialogue:
        dialogue.begin()
        dialogue.send_mail(b"X-Chaos: from another source")
        dialogue.say(b"QUIT")


@contextlib.contextmanager
def flood(sites: Sites, node: str, kind: str, *targets: str) -> Iterator[None]:
    log, pid = sites.folder / "flooder.log", sites.folder / "flooder.pid"
    log.write_text("")
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.lab.flooder", kind, *targets]
    process = processes.start_in(sites.namespace(node), command, log=log, pid_file=pid)
    try:
        eventually(lambda: "begun" in log.read_text() or not process.alive, 60.0, "a flood")
        assert process.alive, log.read_text()
        yield
        assert process.alive, log.read_text()
    finally:
        probes.kill(process.pid)
        process.wait_gone(probes.PATIENCE)


def rate(sites: Sites, v6: bool) -> float:
    """Mails a second from site a, one after the other in two threads."""
    target, count = sites.address("mta-b", v6), [0, 0]
    began = time.monotonic()

    def run(number: int) -> None:
        while (passed := time.monotonic() - began) < RATE_SECONDS or (
            passed < MOST_SECONDS and sum(count) < RATE_MAILS
        ):
            send(sites, target)
            count[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(count) / (time.monotonic() - began)


def share_kept(
    sites: Sites, v6: bool, flooded: Callable[[float], contextlib.AbstractContextManager[None]]
) -> float:
    """Of the rate without the flood, which is told that rate."""
    rates: list[tuple[float, float]] = []
    share = 0.0
    while share < KEPT and len(rates) < TRIES:
        before = rate(sites, v6)
        with flooded(before):
            rates.append((before, rate(sites, v6)))
        without, during = zip(*rates[-COMPARED:], strict=True)
        share = max(during) / max(without)
    print("mails a second, without and during:", *(f"{one:.0f}, {other:.0f};" for one, other in rates))
    return share


def tally(sites: Sites, letter: str, name: str) -> int:
    return int(sites.status(letter)["counters"]["tallies"].get(name, 0))


def peaks(sites: Sites, letter: str) -> dict[int, int]:
    """The most that each worker has ever had, in octets."""
    found = {}
    for pid in sites.workers(letter):
        text = Path(f"/proc/{pid}/status").read_text()
        found[pid] = int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]
    return found


@contextlib.contextmanager
def bounded(sites: Sites, letter: str) -> Iterator[None]:
    before = peaks(sites, letter)
    yield
    after = peaks(sites, letter)
    assert after.keys() == before.keys(), "a worker has died"
    grown = {pid: after[pid] - before[pid] for pid in after}
    print(f"workers of gw-{letter} grew by {[octets // 1024 for octets in grown.values()]} KB")
    assert max(grown.values()) < GROWTH


def unprotected(sites: Sites) -> int:
    """Sessions from site a that have lost their channel, as either gateway tells it."""
    sent: int = sum(sites.status("a")["counters"]["decided"]["out"]["clear"].values())
    return sent + sum(1 + alarm["unheard"] for alarm in sites.alarms("b", "source-in-clear"))


@FAMILIES
def test_one_source_with_many_connections(sites: Sites, v6: bool) -> None:
    """All are greeted; beyond the limit they pass the gateway by, and the others' mail does not notice."""
    over, clear = tally(sites, "b", "over-sessions"), unprotected(sites)
    with bounded(sites, "b"):
        kept = share_kept(
            sites, v6, lambda _: flood(sites, "mta-c", "connections", sites.address("mta-b", v6))
        )
    assert kept >= KEPT, f"{kept:.2f} of the rate"
    eventually(
        lambda: tally(sites, "b", "over-sessions") >= over + CONNECTIONS - PER_SOURCE, what="the counter"
    )
    assert unprotected(sites) == clear, "another source's mail lost its channel"
    assert sites.alarms("b", "overloaded")


def test_the_limit_holds_while_they_are_open(sites: Sites) -> None:
    with flood(sites, "mta-c", "connections", sites.address("mta-b", False)):
        # All of one pair of addresses are one worker's; a stranger's share is three quarters.
        eventually(lambda: PER_SOURCE // 2 < tally(sites, "b", "sessions-open") <= PER_SOURCE, what="so many")
    eventually(lambda: tally(sites, "b", "sessions-open") == 0, what="room again")


@FAMILIES
@pytest.mark.parametrize("protected", [True, False], ids=["protected", "unreachable"])
def test_floods_of_forged_syns(sites: Sites, protected: bool, v6: bool) -> None:
    """At 4,000 a second, to a server that answers and to addresses behind us that nobody has."""
    sent: list[int] = []

    def flooded(mails_per_second: float) -> contextlib.AbstractContextManager[None]:
        sent.append(min(SYNS_PER_SECOND, 100 + int(mails_per_second * SYNS_FOR_A_MAIL)))
        return flood(sites, "wire", "syns", str(sent[-1]), *targets)

    dead = "2001:db8:12::{}" if v6 else "10.12.0.{}"
    nobody = [dead.format(n) for n in range(180, 200)]
    targets = [sites.address("mta-b", v6)] if protected else nobody
    before = gate_counts(sites, "b", v6=v6)
    with bounded(sites, "b"):
        kept = share_kept(sites, v6, flooded)
    assert kept >= KEPT, f"{kept:.2f} of the rate"
    came = gate_counts(sites, "b", v6=v6) - before
    assert came > sum(sent) // 4, "the flood did not come this far"


@contextlib.contextmanager
def few_offers_a_source(sites: Sites) -> Iterator[None]:
    """At gateway b: as many as it grants otherwise a busy machine comes to ask for now and then alone."""
    configuration = sites.gateway("b").configuration
    before = configuration.read_text()
    few = before.replace(f"handshakes_per_source = {PER_SECOND}", f"handshakes_per_source = {FEW}")
    assert few != before
    try:
        for_now(sites, few)
        yield
    finally:
        for_now(sites, before)


def for_now(sites: Sites, text: str) -> None:
    """No worker of before is left: each has a budget of its own."""
    sites.gateway("b").configuration.write_text(text)
    older = set(sites.workers("b"))
    assert "reloaded" in sites.command("b", "reload")
    eventually(lambda: not older & set(sites.workers("b")), what="the end of the older workers")


def test_a_flood_of_offers(sites: Sites) -> None:
    """A stranger that asks for one offer after the other gets so many a second, and then greetings in
    clear."""
    with few_offers_a_source(sites):
        flooded_with_offers(sites)


def flooded_with_offers(sites: Sites) -> None:
    over, clear = tally(sites, "b", "over-handshakes"), unprotected(sites)
    with bounded(sites, "b"), contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(flood(sites, "mta-c", "offers", sites.address("mta-b", False)))
        eventually(lambda: tally(sites, "b", "over-handshakes") > over, 30.0, "the counter")
        send(sites, sites.address("mta-b", False))
    assert unprotected(sites) == clear, "another source's mail lost its channel"


def test_slow_writers(sites: Sites) -> None:
    """A hundred lines that never end, an octet at a time."""
    with bounded(sites, "b"):
        kept = share_kept(
            sites, False, lambda _: flood(sites, "mta-c", "dribbles", sites.address("mta-b", False))
        )
    assert kept >= KEPT, f"{kept:.2f} of the rate"


def test_replies_without_end(sites: Sites) -> None:
    """What is longer than any reply passes in clear, as fast as it is read, and nobody waits for its end."""
    address = "10.12.0.61"
    sites.sh("mta-b", f"ip addr add {address}/24 dev eth0")
    sites.sh(
        "mta-b", f"iptables -t nat -A PREROUTING -p tcp -d {address} --dport 25 -j REDIRECT --to-ports 2601"
    )
    passed = tally(sites, "b", "octets-clear")
    with bounded(sites, "b"), flood(sites, "mta-b", "pours", "2601"):
        kept = share_kept(sites, False, lambda _: flood(sites, "mta-c", "drinks", address))
    assert kept >= KEPT, f"{kept:.2f} of the rate"
    eventually(lambda: tally(sites, "b", "octets-clear") > passed + 4 * MIB, what="so much passed")


def test_slow_readers_together_hold_no_more_than_the_limit(sites: Sites) -> None:
    """Each could have 256 KB waiting for it: 60 of them 15 MB."""
    before = rate(sites, False)
    readers = 60
    piece = b"250-" + b"x" * 500 + b"\r\n"

    def pour(connection: socket.socket, stop: threading.Event) -> None:
        connection.settimeout(0.2)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection.send(piece * 200)

    address = "10.12.0.60"
    sites.sh("mta-b", f"ip addr add {address}/24 dev eth0")
    sites.sh(
        "mta-b", f"iptables -t nat -A PREROUTING -p tcp -d {address} --dport 25 -j REDIRECT --to-ports 2600"
    )
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(
            network.socket_in(sites.namespace("mta-b"), socket.AF_INET, socket.SOCK_STREAM)
        )
        listener.bind(("0.0.0.0", 2600))
        listener.listen(readers)
        stack.callback(stop.set)
        threads = []
        with bounded(sites, "b"):
            for _ in range(readers):
                stack.enter_context(sites.connect("mta-c", address))
                connection = stack.enter_context(listener.accept()[0])
                threads.append(threading.Thread(target=pour, args=(connection, stop)))
                threads[-1].start()
            eventually(lambda: tally(sites, "b", "over-octets") > 0, 30.0, "the counter")
            # One source may hold a quarter. Each session may have read once before, and a little since.
            most = HELD * MIB // 4 + readers * 2 * 64 * 1024
            assert tally(sites, "b", "octets-held") <= most
            kept = max(rate(sites, False) for _ in range(TRIES)) / before
        assert kept >= KEPT, f"{kept:.2f} of the rate"
        stop.set()
        for thread in threads:
            thread.join(probes.PATIENCE)
    eventually(lambda: tally(sites, "b", "octets-held") == 0, what="nothing held any more")


# --- Loops --------------------------------------------------------------------------------------------


def begun(sites: Sites, letter: str) -> int:
    return tally(sites, letter, "sessions-begun")


def begun_in_all(sites: Sites, letter: str) -> int:
    """Once those of the tests before have all been told: a worker tells its counters once a second."""
    told: list[int] = []

    def at_rest() -> bool:
        time.sleep(1.2)
        told.append(begun(sites, letter))
        return told[-1:] == told[-2:-1]

    eventually(at_rest, what="no more sessions of the tests before")
    return told[-1]


def gate_counts(sites: Sites, letter: str, *, v6: bool = False) -> int:
    """SYNs that have come to the gate, by the kernel's own counter."""
    lines = sites.sh(f"gw-{letter}", f"{two_sites.TOOLS[v6]}-save -c -t raw").splitlines()
    gate = [line for line in lines if line.endswith("-j NIGHTMAIL-GATE")]
    return sum(int(line.split(":")[0].lstrip("[")) for line in gate)


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_a_connection_to_the_gateway_itself_is_nobody_elses(sites: Sites, side: str) -> None:
    """It is answered by the box: refused where nobody listens, never handed to the queue."""
    client, network_name = ("mta-a", "site-a") if side == "inside" else ("mta-c", "wire")
    target = sites.topology.nodes["gw-a"].addresses[network_name].v4
    before = gate_counts(sites, "a")
    assert probes.failure(sites, client, target)[0] == "ECONNREFUSED"
    assert gate_counts(sites, "a") == before


def test_the_gateways_own_connections_pass(sites: Sites) -> None:
    """A mailer on the box, and a process that bears a mark of ours by chance."""
    sessions = begun_in_all(sites, "a")
    target = sites.address("mta-b", False)
    with Dialogue(sites.connect("gw-a", target)) as dialogue:
        dialogue.begin()
        dialogue.say(b"QUIT")
    time.sleep(1.2)  # a worker tells its counters once a second: what must not come cannot be waited for
    assert begun(sites, "a") == sessions


def test_mail_between_two_servers_inside_is_left_alone(sites: Sites) -> None:
    """It comes by the inside interface and goes back there: to the first one's cable, since nobody has the
    second one's address."""
    second = "10.11.0.61"
    ways = {"mta-a": f"{second} via 10.11.0.254 dev eth0", "gw-a": f"{second} via 10.11.0.10 dev inside"}
    back = f"PREROUTING -i eth0 -p tcp -d {second} --dport 25"
    for node, way in ways.items():
        sites.sh(node, f"ip route add {way}")
    sites.sh("mta-a", f"iptables -t raw -A {back}")
    passed = tally(sites, "a", "not-ours")
    try:
        assert probes.failure(sites, "mta-a", second, timeout=1.5)[0] == "timeout"
        eventually(lambda: tally(sites, "a", "not-ours") > passed, what="one that is let by")
        counted = sites.sh("mta-a", "iptables-save -c -t raw").splitlines()
        (line,) = [one for one in counted if second in one]
        assert int(line[1:].split(":")[0]) > 0, line
    finally:
        sites.sh("mta-a", f"iptables -t raw -D {back}")
        for node, way in ways.items():
            sites.sh(node, f"ip route del {way}")


def test_two_gateways_in_a_row_take_one_connection_once_each(sites: Sites) -> None:
    """Site a's gateway sends, site b's receives; neither takes what it has dialled itself."""
    before = begun_in_all(sites, "a"), begun_in_all(sites, "b")
    send(sites, sites.address("mta-b", False))
    eventually(
        lambda: (begun(sites, "a"), begun(sites, "b")) == (before[0] + 1, before[1] + 1), what="one each"
    )
