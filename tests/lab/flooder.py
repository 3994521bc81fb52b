"""Floods a mail server, at a bounded rate and until it is ended: `python -m tests.lab.flooder KIND TARGET...`

    syns N       SYNs with forged sources, N a second, in turn to each target
    connections  as many connections as CONNECTIONS, opened and held, greeting read
    offers       connections that say EHLO, read the reply, and go, OFFERS_PER_SECOND
    dribbles     SLOW connections that say a line without end, an octet each tenth of a second
    pours PORT   listens there, and answers each EHLO with a reply without end, POURED_PER_SECOND in all
    drinks       SLOW connections that say EHLO and read for as long as they are answered

A process of its own in a namespace of the lab, so that it takes no time from those whose mail is measured.
Says "begun" once it floods, or once all its connections are open. Counterpart: `test_overload`.
"""

from __future__ import annotations

import contextlib
import random
import resource
import selectors
import socket
import sys
import time

from tests.lab.forged import FORGED, FORGED_HOSTS, syn

OFFERS_PER_SECOND = 250
CONNECTIONS = 1500
AT_ONCE = 64
SLOW = 100
"""Fewer than a stranger may have open."""
POURED_PER_SECOND = 8_000_000
PATIENCE = 20.0


def syns(words: list[str]) -> None:
    """Batches of 10 ms; packets are made beforehand, each from another address or port."""
    per_second, targets = int(words[0]), words[1:]
    v6 = ":" in targets[0]
    packets = [
        (syn(FORGED[v6].format(1 + n % FORGED_HOSTS), 1024 + (n * 7919) % 60000, target), target)
        for n in range(20_000)
        for target in (targets[n % len(targets)],)
    ]
    batch = per_second // 100
    with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        say_begun()
        due, at = time.monotonic(), 0
        while True:
            for packet, target in packets[at : at + batch]:
                raw.sendto(packet, (target, 0))
            at = (at + batch) % len(packets)
            due = max(due + 0.01, time.monotonic() - 0.1)
            time.sleep(max(0.0, due - time.monotonic()))


def connections(targets: list[str]) -> None:
    """Every one of them must be greeted: what a gateway does not take must pass."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = []
    for n in range(CONNECTIONS):
        held.append(socket.create_connection((targets[n % len(targets)], 25), timeout=PATIENCE))
        if len(held) % AT_ONCE == 0:
            for each in held[-AT_ONCE:]:
                assert each.recv(512).startswith(b"220 "), "not greeted"
    say_begun()
    time.sleep(600)


def offers(targets: list[str]) -> None:
    dice = random.Random(1)
    say_begun()
    due = time.monotonic()
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((dice.choice(targets), 25), timeout=PATIENCE) as each,
        ):
            each.recv(512)
            each.sendall(b"EHLO flooder.test\r\n")
            each.recv(4096)
        due = max(due + 1 / OFFERS_PER_SECOND, time.monotonic() - 0.1)
        time.sleep(max(0.0, due - time.monotonic()))


def dribbles(targets: list[str]) -> None:
    held = [socket.create_connection((targets[n % len(targets)], 25), timeout=PATIENCE) for n in range(SLOW)]
    say_begun()
    due = time.monotonic()
    while True:
        for each in held:
            each.sendall(b"x")
        due += 0.1
        time.sleep(max(0.0, due - time.monotonic()))


def pours(words: list[str]) -> None:
    line = b"250-" + b"x" * 506 + b"\r\n"
    piece = line * 32
    with socket.create_server(("0.0.0.0", int(words[0])), backlog=SLOW) as listener:
        listener.setblocking(False)
        say_begun()
        served: list[socket.socket] = []
        due = time.monotonic()
        while True:
            with contextlib.suppress(BlockingIOError):
                while True:
                    served.append(listener.accept()[0])
                    served[-1].sendall(b"220 pours.test ESMTP\r\n")
                    served[-1].setblocking(False)
            for each in served:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    each.send(piece)
            due = max(due + len(piece) * max(1, len(served)) / POURED_PER_SECOND, time.monotonic() - 0.1)
            time.sleep(max(0.0, due - time.monotonic()))


def drinks(targets: list[str]) -> None:
    held = [socket.create_connection((targets[n % len(targets)], 25), timeout=PATIENCE) for n in range(SLOW)]
    for each in held:
        assert each.recv(512).startswith(b"220 ")
        each.sendall(b"EHLO flooder.test\r\n")
    say_begun()
    with selectors.DefaultSelector() as ready:
        for each in held:
            ready.register(each, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                assert isinstance(key.fileobj, socket.socket)
                assert key.fileobj.recv(1 << 16)


def say_begun() -> None:
    print("begun", flush=True)


if __name__ == "__main__":
    kinds = (syns, connections, offers, dribbles, pours, drinks)
    {kind.__name__: kind for kind in kinds}[sys.argv[1]](sys.argv[2:])
