"""One mail after the other through two real Postfix and two real gateways, each with a label to be guessed.

The lab is one of its own, beside any other on the machine. A mail is given to the sending site's Postfix over
its loopback; the next one follows when it lies in the mailbox at the other site, so that each has a session
of its own. Counterpart: `sight`, which reads what the listener has captured.
"""

from __future__ import annotations

import random
import signal
import smtplib
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gateway
from gateway.errors import EnvironmentFailureError
from gateway.lab import gateways, listener, network, processes
from gateway.lab.lab import Lab
from gateway.lab.mail import IDENTITY_FIELD, MailboxWatch
from gateway.lab.place import Place
from gateway.lab.postfix import Instance

LINE_OCTETS: Final = 78
"""With its CRLF."""
MAIL_SECONDS: Final = 60.0
MOST_RECIPIENTS: Final = 5
RECIPIENT_MAIL_OCTETS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be guessed, and the mails that differ in nothing else."""

    name: str
    sizes: tuple[int, ...]
    recipients: tuple[int, ...]

    @property
    def labels(self) -> list[tuple[int, int]]:
        """(octets, recipients) of each class."""
        return [(octets, count) for octets in self.sizes for count in self.recipients]


def _ten(first: int, apart: int) -> tuple[int, ...]:
    return tuple(first + apart * number for number in range(10))


QUESTIONS: Final = (
    # Ten sizes each over two or three of Padme's steps: of 128, 2,048, 8,192 and 32,768 octets.
    Question("size-3kB", _ten(2_500, 28), (1,)),
    Question("size-40kB", _ten(40_000, 450), (1,)),
    Question("size-400kB", _ten(400_000, 1_800), (1,)),
    Question("size-1200kB", _ten(1_200_000, 8_000), (1,)),
    Question("recipients", (RECIPIENT_MAIL_OCTETS,), tuple(range(1, MOST_RECIPIENTS + 1))),
)


@dataclass(frozen=True, slots=True)
class Sent:
    """One mail that has been delivered, and when its session can have begun."""

    question: str
    label: int
    after: float
    before: float


def lab() -> Lab:
    """The bench's own, in memory: a disk's moods would show in the times."""
    return Lab(
        place=Place(prefix="nmeve-", folder=Path("/run/nightmail-eve"), lock=Path("/run/nightmail-eve.lock"))
    )


def recipients(count: int) -> list[str]:
    return [f"friend{number}@b.test" for number in range(1, count + 1)]


def mail_of(name: str, octets: int, count: int) -> bytes:
    """A mail of exactly so many octets, to so many recipients, who all stand in its header."""
    head = (
        f"From: <alice@a.test>\r\nTo: friends\r\nSubject: {name}\r\n"
        f"Date: Thu, 01 Jan 2026 12:00:00 +0000\r\nMessage-ID: <{name}@a.test>\r\n"
        f"{IDENTITY_FIELD}: {name}\r\n\r\n"
    ).encode()
    left = octets - len(head)
    whole, rest = divmod(left, LINE_OCTETS)
    if whole and rest < 2:  # no room for a line end of its own
        whole, rest = whole - 1, rest + LINE_OCTETS
    line = b"x" * (LINE_OCTETS - 2) + b"\r\n"
    return head + line * whole + (b"x" * (rest - 2) + b"\r\n" if rest >= 2 else b"")


def prepare(one: Lab) -> None:
    """Everything but the gateways, and mailboxes for all recipients (one for all: they are not read)."""
    one.up(with_gateways=False, temporary=True)
    server = one.mail_server("b")
    with (server.config / "mailboxes").open("a") as table:
        table.writelines(f"{address} user/\n" for address in recipients(MOST_RECIPIENTS))
    for each in one.mail_servers:
        (each.config / "main.cf").open("a").write("smtp_connection_cache_on_demand = no\n")
        processes.run_in(each.namespace, ["postfix", "-c", str(each.config), "reload"])


def start_gateways(one: Lab, *, padded: bool) -> None:
    """Both, afresh: with padding as they are, or without."""
    for each in one.gateways:
        if padded:
            gateways.start(each)
            continue
        each.control_socket.unlink(missing_ok=True)
        paths = [Path(__file__).parent / "unpadded", Path(gateway.__file__).parent.parent]
        command = ["env", f"PYTHONPATH={':'.join(map(str, paths))}", sys.executable, "-m", "gateway"]
        command += ["--config", str(each.configuration), "run"]
        processes.start_in(each.namespace, command, log=each.log, pid_file=each.pid_file)
    for each in one.gateways:
        gateways.wait_ready(each)


def stop_gateways(one: Lab) -> None:
    for each in one.gateways:
        gateways.stop(each)


def start_listener(one: Lab) -> Path:
    """A capture of its own for what follows."""
    end_listener(one)
    one.listener.pcap.unlink(missing_ok=True)
    listener.start(one.listener, one.topology, one.namespace("mta-c"))
    return one.listener.pcap


def end_listener(one: Lab) -> None:
    """Once the capture has all that has crossed the wire."""
    process = one.listener.process
    if process is not None:
        listener.catch_up(one.listener, one.topology, one.namespace("mta-c"))
        process.signal(signal.SIGTERM)
        process.wait_gone(MAIL_SECONDS)


def run(one: Lab, each_class: int, seed: int, say: Callable[[str], None]) -> list[Sent]:
    """So many mails of each class, in an order of chance: what changes with time must not tell classes."""
    plan = [
        (question, label)
        for question in QUESTIONS
        for label in range(len(question.labels))
        for _ in range(each_class)
    ]
    random.Random(seed).shuffle(plan)
    sent: list[Sent] = []
    box = one.mail_server("b").mailbox("user")
    with MailboxWatch(box) as watch, _Loopback(one.mail_server("a")) as loopback:
        # The first session of a pair of gateways is another one: it meets a stranger.
        _deliver(loopback, watch, "eve-first", 1_000, 1)
        for number, (question, label) in enumerate(plan):
            octets, count = question.labels[label]
            began = time.time()
            _deliver(loopback, watch, f"eve-{seed}-{number:05d}", octets, count)
            sent.append(Sent(question.name, label, began, time.time()))
            if number % 250 == 249:
                say(f"{number + 1} of {len(plan)} sessions")
                _empty(box)
    return sent


def _deliver(loopback: _Loopback, watch: MailboxWatch, name: str, octets: int, count: int) -> None:
    loopback.sendmail("alice@a.test", recipients(count), mail_of(name, octets, count))
    watch.wait([name], MAIL_SECONDS)


def _empty(box: Path) -> None:
    """Keeps the watch's looks into the folder short; a copy that comes later is of the next turn."""
    for entry in (box / "new").iterdir():
        entry.unlink(missing_ok=True)


class _Loopback(smtplib.SMTP):
    """One session with the sending site's Postfix for all mails."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        try:
            super().__init__("127.0.0.1", 25, local_hostname="localhost", timeout=MAIL_SECONDS)
        except OSError as error:
            raise EnvironmentFailureError(f"{instance.node.name} cannot be talked to: {error}") from None

    def _get_socket(self, host: str, port: int, timeout: float | None) -> socket.socket:
        connection = network.socket_in(self._instance.namespace, socket.AF_INET, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        connection.connect((host, port))
        return connection
