"""Floods a mail server, at a bounded rate and until it is ended: `python -m tests.lab.flooder KIND TARGET...`

    syns         SYNs with forged sources, SYNS_PER_SECOND, in turn to each target
    connections  as many connections as CONNECTIONS, opened and held, greeting read
    offers       connections that say EHLO, read the reply, and go, OFFERS_PER_SECOND

A process of its own in a namespace of the lab, so that it takes no time from those whose mail is measured.
Says "begun" once it floods, or once all its connections are open. Counterpart: `test_overload`.
"""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import sys
import time

from tests.lab.test_forged_syns import FORGED, FORGED_HOSTS, syn

SYNS_PER_SECOND = 4000
OFFERS_PER_SECOND = 250
CONNECTIONS = 1500
AT_ONCE = 64
PATIENCE = 20.0


def syns(targets: list[str]) -> None:
    """Batches of 10 ms; packets are made beforehand, each from another address or port."""
    v6 = ":" in targets[0]
    packets = [
        (syn(FORGED[v6].format(1 + n % FORGED_HOSTS), 1024 + (n * 7919) % 60000, target), target)
        for n in range(20_000)
        for target in (targets[n % len(targets)],)
    ]
    batch = SYNS_PER_SECOND // 100
    with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        say_begun()
        due, at = time.monotonic(), 0
        while True:
            for packet, target in packets[at : at + batch]:
                raw.sendto(packet, (target, 0))
            at = (at + batch) % len(packets)
            due += 0.01
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


def say_begun() -> None:
    print("begun", flush=True)


if __name__ == "__main__":
    {"syns": syns, "connections": connections, "offers": offers}[sys.argv[1]](sys.argv[2:])
