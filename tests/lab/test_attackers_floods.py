"""Peers that never stop sending: the gateways' memory stays where it was, and other mail flows meanwhile.

Each flood is of 64 MB, and of 2 GB among the long tests. Counterpart: `tests.attackers.flooding`.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.crypto.records import RecordLayer, RecordType
from gateway.lab import gateways
from gateway.lab.lab import Lab
from tests.attackers import flooding
from tests.attackers.parties import EHLO, GREETING, REPLY
from tests.lab.conftest import build_bare, slot
from tests.lab.probes import eventually

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("has_its_turn")]

MIB = 1 << 20
SOME = 64 * MIB
MUCH = 2048 * MIB
GROWTH = 24 * MIB
"""What a worker may have taken at most while it was flooded; the flood is larger, by far."""
IN_FLIGHT = 24 * MIB
"""What waits in sockets and buffers where nobody reads: the kernel's buffers are most of it."""
KINDS = ["data", "padding", "empty", "ignorable"]
SMALL = 32
"""Empty records have 22 octets, and each costs as much as one with some hundreds: so fewer octets of them."""
CONNECTIONS = 100
SMALL_CONNECTIONS, SMALL_RECORDS = 24, 9_000
UNFINISHED = 60_000
AMOUNTS = pytest.mark.parametrize(
    "octets", [SOME, pytest.param(MUCH, marks=pytest.mark.long)], ids=["64MB", "2GB"]
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with slot() as made:
        build_bare(made, with_gateways=True, with_listener=False)
        yield made


@pytest.fixture(scope="module")
def behind_r(lab: Lab) -> Iterator[socket.socket]:
    with flooding.listening(lab, "mta-b") as listener:
        yield listener


@pytest.fixture(scope="module")
def outside(lab: Lab) -> Iterator[socket.socket]:
    with flooding.listening(lab, "mta-c") as listener:
        yield listener


def address(lab: Lab, letter: str) -> str:
    return lab.mail_server(letter).node.home.v4


def peaks(lab: Lab, letter: str) -> dict[int, int]:
    """The most that each worker has ever had, in octets."""
    status = eventually(lambda: gateways.ask(lab.gateway(letter)), what="status")
    found = {}
    for worker in status["workers"]:
        text = Path(f"/proc/{worker['pid']}/status").read_text()
        found[worker["pid"]] = int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]
    return found


@contextlib.contextmanager
def bounded(lab: Lab, letter: str, growth: int = GROWTH) -> Iterator[None]:
    before = peaks(lab, letter)
    yield
    after = peaks(lab, letter)
    assert after.keys() == before.keys(), "a worker has died"
    grown = {pid: after[pid] - before[pid] for pid in after}
    assert max(grown.values()) < growth, f"grown by {grown}"


class Server:
    """The mail server behind R for one connection: greeting and reply, then it reads all, or nothing."""

    def __init__(self, listener: socket.socket, *, reads: bool) -> None:
        self._listener, self._reads = listener, reads
        self.count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        accepted, _ = self._listener.accept()
        with accepted:
            accepted.settimeout(flooding.PATIENCE)
            accepted.sendall(GREETING)
            assert accepted.recv(len(EHLO)) == EHLO
            accepted.sendall(REPLY)
            if not self._reads:
                self._stop.wait()
                return
            with contextlib.suppress(OSError):
                while piece := accepted.recv(MIB):
                    self.count += len(piece)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


@AMOUNTS
@pytest.mark.parametrize("kind", KINDS)
def test_frames_without_end_from_a_sender(kind: str, octets: int, lab: Lab, behind_r: socket.socket) -> None:
    octets = octets // SMALL if kind == "empty" else octets
    server = Server(behind_r, reads=True)
    made, layer = flooding.as_sender(lab, address(lab, "b"))
    with made, bounded(lab, "b"):
        assert flooding.pour(made, flooding.records(kind, layer), octets) >= octets
        made.shutdown(socket.SHUT_WR)
        made.settimeout(flooding.PATIENCE)
        with contextlib.suppress(ConnectionResetError):
            while made.recv(65536):
                pass
    server.end()
    assert (server.count > octets // 2) == (kind == "data")


@AMOUNTS
def test_a_receiver_that_does_not_read_stops_the_sender(
    octets: int, lab: Lab, behind_r: socket.socket
) -> None:
    server = Server(behind_r, reads=False)
    made, layer = flooding.as_sender(lab, address(lab, "b"))
    with made, bounded(lab, "b"):
        assert flooding.pour(made, flooding.records("data", layer), octets) < IN_FLIGHT
    server.end()


@AMOUNTS
@pytest.mark.parametrize("kind", KINDS)
def test_frames_without_end_from_a_receiver(kind: str, octets: int, lab: Lab, outside: socket.socket) -> None:
    octets = octets // SMALL if kind == "empty" else octets
    with flooding.connected(lab, "mta-a", address(lab, "c")) as sender:
        accepted, layer = met(sender, outside)
        reader = threading.Thread(target=drain, args=(sender,))
        reader.start()
        with accepted, bounded(lab, "a"):
            assert flooding.pour(accepted, flooding.records(kind, layer), octets) >= octets
        reader.join()


@AMOUNTS
def test_a_sender_that_does_not_read_stops_the_receiver(
    octets: int, lab: Lab, outside: socket.socket
) -> None:
    with flooding.connected(lab, "mta-a", address(lab, "c")) as sender:
        accepted, layer = met(sender, outside)
        with accepted, bounded(lab, "a"):
            assert flooding.pour(accepted, flooding.records("data", layer), octets) < IN_FLIGHT


def met(sender: socket.socket, outside: socket.socket) -> tuple[socket.socket, RecordLayer]:
    """A channel between S, whose sender this is, and a peer outside."""
    accepted, _ = outside.accept()
    answer: list[RecordLayer] = []
    thread = threading.Thread(target=lambda: answer.append(flooding.as_receiver(accepted)))
    thread.start()
    flooding.read_until(sender, b"220 ")
    sender.sendall(EHLO)
    flooding.read_until(sender, b"250 ")
    sender.sendall(b"MAIL FROM:<alice@a.test>\r\n")
    thread.join()
    (layer,) = answer
    return accepted, layer


def drain(made: socket.socket) -> None:
    made.settimeout(flooding.PATIENCE)
    with contextlib.suppress(OSError):
        while made.recv(MIB):
            pass


@AMOUNTS
@pytest.mark.parametrize("opening", [b"", GREETING], ids=["greeting", "reply"])
def test_lines_without_end_from_a_receiver(
    opening: bytes, octets: int, lab: Lab, outside: socket.socket
) -> None:
    """They pass, because they are not ours to judge; nothing is kept of them."""
    with flooding.connected(lab, "mta-a", address(lab, "c")) as sender:
        accepted, _ = outside.accept()
        accepted.sendall(opening)
        if opening:
            flooding.read_until(sender, b"220 ")
        sender.sendall(EHLO)
        reader = threading.Thread(target=drain, args=(sender,))
        reader.start()
        with accepted, bounded(lab, "a"):
            line = (b"250-" if opening else b"220-") + b"x" * 500 + b"\r\n"
            assert flooding.pour(accepted, lambda: line * 2000, octets) >= octets
        reader.join()


def test_frames_that_never_end_hold_no_more_than_themselves(lab: Lab, behind_r: socket.socket) -> None:
    """One frame for each of many connections, all but its last octets; then nothing."""
    with contextlib.ExitStack() as stack, bounded(lab, "b", CONNECTIONS * (3 * UNFINISHED)):
        for _ in range(CONNECTIONS):
            server = Server(behind_r, reads=True)
            one, _ = flooding.as_sender(lab, address(lab, "b"))
            stack.callback(server.end)
            stack.enter_context(one)
            one.sendall(b"\x82\xff\x00" + bytes(UNFINISHED))
        eventually(lambda: channels(lab) >= CONNECTIONS, what="all channels open")


def test_many_who_send_the_smallest_records_do_not_make_a_worker_look_hung(
    lab: Lab, behind_r: socket.socket
) -> None:
    """It would be taken out of the gate, and mail would pass it by, in clear."""
    offset = lab.gateway("b").log.stat().st_size
    with contextlib.ExitStack() as stack:
        floods = []
        for _ in range(SMALL_CONNECTIONS):
            stack.callback(Server(behind_r, reads=True).end)
            one, layer = flooding.as_sender(lab, address(lab, "b"))
            stack.enter_context(one)
            floods.append((one, b"".join(layer.seal(RecordType.DATA) for _ in range(SMALL_RECORDS))))
        threads = [threading.Thread(target=one.sendall, args=(octets,)) for one, octets in floods]
        for thread in threads:
            thread.start()
        for thread, (one, _) in zip(threads, floods, strict=True):
            thread.join()
            # Who ends in order is answered in order, once all that he sent has been opened.
            one.sendall(b"\0")
            with contextlib.suppress(OSError):
                while one.recv(65536):
                    pass

    def told() -> str:
        return lab.gateway("b").log.read_bytes()[offset:].decode(errors="replace")

    eventually(lambda: told().count("channel-failed") == SMALL_CONNECTIONS, what="all have failed")
    assert "worker-hung" not in told()


def channels(lab: Lab) -> int:
    decided = gateways.ask(lab.gateway("b"))["counters"]["decided"]["in"]["upgraded"]  # type: ignore[index]
    return int(sum(decided.values()))
