"""The queue of the kernel that holds SYNs: full, bound twice, inherited."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
from types import SimpleNamespace as Syn

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel
from gateway.intercept.kernel import nft
from gateway.intercept.nfqueue import SynQueue
from gateway.policy import limits
from tests.lab.own_namespaces import ip, lonely_router, remove_ours
from tests.lab.rules_ground import CONFIG, HOSTS, A, B, G, Server, apply, made, sh, wait_for, within


@pytest.mark.parametrize("full", ["queue", "socket"])
def test_a_full_queue_lets_packets_pass(router: None, monkeypatch: pytest.MonkeyPatch, full: str) -> None:
    monkeypatch.setattr(limits, *(("QUEUE_LENGTH", 3) if full == "queue" else ("QUEUE_SOCKET_OCTETS", 1200)))
    apply()
    held: list = []
    made_queue = within(G, lambda: SynQueue(CONFIG.first_queue, lambda token, *_: held.append(token)))
    with Server(B, False) as server, contextlib.ExitStack() as stack:
        stack.callback(made_queue.close)
        socks = [stack.enter_context(made(A, False)) for _ in range(12)]
        for sock in socks:
            sock.setblocking(False)
            assert sock.connect_ex((HOSTS[B][0], 25)) == errno.EINPROGRESS
        wait_for(lambda: server.connections >= 6)
        made_queue.run()
        assert 0 < len(held) <= 6
        for token in held:
            made_queue.verdict(token)
        wait_for(lambda: server.connections == 12)


def test_a_child_does_not_keep_the_queue(router: None) -> None:
    made_queue = within(G, lambda: SynQueue(CONFIG.first_queue, lambda *_: None))
    assert bound_queues() == [CONFIG.first_queue]
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        made_queue.close()
        assert bound_queues() == []
    finally:
        child.kill()
        child.wait()


def test_interfaces_that_change_names_are_told_by_their_new_ones() -> None:
    """As when somebody gives the two of a router each other's, because the cables are in the wrong ones."""
    remove_ours("nmqn")
    here, told = f"nmqn-{os.getpid()}", list[str]()
    with lonely_router(here):
        queue = within(here, lambda: SynQueue(CONFIG.first_queue, lambda *packet: told.append(packet[-1])))
        with contextlib.closing(queue):
            lan, wan = (
                within(here, lambda name=name: socket.if_nametoindex(name)) for name in ("lan", "wan")
            )
            packets = [Syn(indev=index, physindev=0, mark=0, get_payload=bytes) for index in (lan, wan)]
            for packet in packets:
                queue._packet_arrived(packet)
            for words in ("lan name was-lan", "wan name lan", "was-lan name wan"):
                ip(f"-n {here} link set {words.split()[0]} down", f"-n {here} link set {words}")
            queue.forget_names()
            for packet in packets:
                queue._packet_arrived(packet)
    assert told == ["lan", "wan", "wan", "lan"]


def test_a_bound_queue_is_told_in_one_line(router: None) -> None:
    first = within(G, lambda: SynQueue(CONFIG.first_queue, lambda *_: None))
    try:
        with pytest.raises(EnvironmentFailureError, match="cannot bind netfilter queue 2500"):
            within(G, lambda: SynQueue(CONFIG.first_queue, lambda *_: None))
    finally:
        first.close()


def test_who_asks_what_the_kernel_takes_drops_nothing_that_waits(router: None) -> None:
    """Each SYN that is dropped there costs its client a second."""
    apply()
    queue = within(G, lambda: SynQueue(CONFIG.first_queue, lambda *_: None))
    with contextlib.closing(queue), made(A, False) as sock:
        sock.setblocking(False)
        assert sock.connect_ex((HOSTS[B][0], 25)) == errno.EINPROGRESS
        wait_for(lambda: waiting() == 1)
        assert within(G, lambda: kernel.remarks(CONFIG)) == []
        assert waiting() == 1
        # What it is told apart from.
        within(G, nft.drop_held)
        assert waiting() == 0


def waiting() -> int:
    """Packets that the kernel has handed to a queue, and nobody has judged."""
    queues = sh(G, "cat /proc/net/netfilter/nfnetlink_queue").splitlines()
    return sum(int(line.split()[2]) for line in queues)


def bound_queues() -> list[int]:
    return [int(line.split()[0]) for line in sh(G, "cat /proc/net/netfilter/nfnetlink_queue").splitlines()]
