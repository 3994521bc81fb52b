"""Mail servers and clients for `two_sites`, which are sockets of the test process, and how long they wait."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gateway.lab import gateways, network, processes
from gateway.lab.gateways import Gateway
from tests.lab.turns import turn

if TYPE_CHECKING:
    from tests.lab.two_sites import Sites

PATIENCE: Final = 10.0
"""A client's own timer: whoever waits so long was left hanging."""
FIRST_RETRANSMISSION: Final = 1.0
AT_ONCE: Final = 0.8
"""Less than the second after which a client's kernel sends a lost SYN again."""
TRIES: Final = 3
"""Other work on the machine comes and goes; what a gate or a rule adds is there in every one of them."""


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE, what: str = "") -> Any:
    """The condition's first true value. Asked again and again: tables and files tell nobody of a change.

    An answer that takes long, as a tool's does, is not asked for more than half of the time.
    """
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        assert now < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(max(0.01, now - asked))


# --- A mail server ------------------------------------------------------------------------------------


class MailServer:
    """Speaks as much SMTP as it takes to be given mail; keeps the mails it was given."""

    def __init__(self, sites: Sites, node: str, v6: bool, *, address: str = "", port: int = 25) -> None:
        self._listener = sites.socket(node, v6)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if v6:
            self._listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._listener.bind((address or sites.address(node, v6), port))
        self._listener.listen(1024)
        self._listener.settimeout(None)
        self._open: set[socket.socket] = set()
        self.peers: list[str] = []
        """Source addresses of all connections there were."""
        self.mails: list[bytes] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def __enter__(self) -> MailServer:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)

    @property
    def open(self) -> int:
        """Connections that have not ended."""
        return len(self._open)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = self._listener.accept()
                self.peers.append(peer[0])
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(b"220 mx.test ESMTP\r\n")
                while line := lines.readline():
                    verb = line[:4].upper()
                    if verb == b"EHLO":
                        connection.sendall(b"250-mx.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                    elif verb == b"DATA":
                        connection.sendall(b"354 go on\r\n")
                        self._take_mail(connection, lines)
                    elif verb == b"HELP":
                        connection.sendall(b"214-" + line[4:] + b"214 that is all\r\n")
                    elif verb == b"QUIT":
                        connection.sendall(b"221 bye\r\n")
                        return
                    else:
                        connection.sendall(b"250 ok\r\n")
        finally:
            self._open.discard(connection)

    def _take_mail(self, connection: socket.socket, lines: Any) -> None:
        mail = []
        while (line := lines.readline()) not in (b".\r\n", b""):
            mail.append(line)
        if line:
            self.mails.append(b"".join(mail))
            connection.sendall(b"250 taken\r\n")


# --- Clients ------------------------------------------------------------------------------------------


class Dialogue:
    """One SMTP client on a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._lines = connection.makefile("rb")

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self.socket.close()

    def reply(self) -> bytes:
        """A whole reply. Raises ConnectionResetError where the connection ends in the middle."""
        lines = []
        while True:
            line = self._lines.readline()
            if not line.endswith(b"\r\n"):
                raise ConnectionResetError(errno.ECONNRESET, f"ended in a reply: {line!r}")
            lines.append(line)
            if line[3:4] == b" ":
                return b"".join(lines)

    def say(self, command: bytes) -> bytes:
        self.socket.sendall(command + b"\r\n")
        return self.reply()

    def begin(self) -> bytes:
        """Greeting and EHLO; the reply to that."""
        self.reply()
        return self.say(b"EHLO client.test")

    def send_mail(self, body: bytes) -> None:
        for command in (b"MAIL FROM:<a@client.test>", b"RCPT TO:<b@mx.test>", b"DATA"):
            assert self.say(command)[:1] in b"23"
        assert self.say(body + b"\r\n.").startswith(b"250")


def mail(sites: Sites, client: str, server: MailServer, target: str, body: bytes, **words: Any) -> float:
    """Send one mail and see it arrive whole; seconds it took."""
    return _mailed(sites, client, server, target, body, **words)[0]


def mail_at_once(
    sites: Sites, client: str, server: MailServer, target: str, body: bytes, **words: Any
) -> None:
    """The same, and the client's first SYN has opened the connection: nobody has held it, or lost it.

    How long the rest takes is the machine's matter, too; nobody waits for a timer in it.
    """
    with Metronome() as metronome:
        took, opened = _mailed(sites, client, server, target, body, **words)
    now = time.monotonic()
    opened -= metronome.stood_still(now - took, now - took + opened)
    assert opened < AT_ONCE, f"open after {opened:.2f} s"
    assert took - metronome.stood_still(now - took, now) < PATIENCE / 2, f"{took:.2f} s"


def _mailed(
    sites: Sites, client: str, server: MailServer, target: str, body: bytes, **words: Any
) -> tuple[float, float]:
    """Seconds, and those until the connection was open."""
    began = time.monotonic()
    before = len(server.mails)
    with Dialogue(sites.connect(client, target, **words)) as dialogue:
        opened = time.monotonic() - began
        dialogue.begin()
        dialogue.send_mail(body)
        dialogue.say(b"QUIT")
    took = time.monotonic() - began
    assert server.mails[before:] == [body + b"\r\n"]
    return took, opened


def sent_again(made: socket.socket) -> int:
    """How many packets its kernel has sent once more, right behind `connect` SYNs: tcpi_total_retrans of
    tcp_info, <linux/tcp.h>."""
    told = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(told[100:104], sys.byteorder)


class Metronome:
    """Beats while it is entered. Where a beat is late, this machine or this process stood still, and nobody
    who was to answer then can be blamed for that time."""

    BEAT: Final = 0.02
    LATE: Final = 0.05

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._late: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._beat)

    def __enter__(self) -> Metronome:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)

    def _beat(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(self.BEAT):
            due, now = due + self.BEAT, time.monotonic()
            if now > due + self.LATE:
                self._late.append((due, now))
            due = now

    def stood_still(self, since: float, until: float) -> float:
        """Seconds, of those between these two moments."""
        return sum(max(0.0, min(end, until) - max(begin, since)) for begin, end in list(self._late))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection of a client in a loop; times by the monotonic clock."""

    began: float
    connected: float | None
    ended: float
    failure: str

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Load:
    """Clients in a tight loop: connect, greeting, EHLO, reply, close. `with` runs them, in their `turn`."""

    sites: Sites
    client: str
    targets: tuple[str, ...]
    clients: int = 8
    attempts: list[Attempt] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._turn = contextlib.ExitStack()
        self._turn.enter_context(turn())
        self.metronome = self._turn.enter_context(Metronome())
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(self.targets[i % len(self.targets)],))
            for i in range(self.clients)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
        self._turn.close()

    def wait(self, more: int, since: float | None = None) -> None:
        """Until so many further attempts have ended (that began after `since`)."""
        since = time.monotonic() if since is None else since
        eventually(lambda: sum(each.began >= since for each in list(self.attempts)) >= more, 30.0)

    def _run(self, target: str) -> None:
        network.inside(self.sites.namespace(self.client), lambda: self._loop(target))

    def _loop(self, target: str) -> None:
        while not self._stop.is_set():
            self.attempts.append(self._once(target))
            self._stop.wait(0.002)

    def _once(self, target: str) -> Attempt:
        began, connected, failure = time.monotonic(), None, ""
        made = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET)
        with made:
            made.settimeout(PATIENCE)
            try:
                made.connect((target, 25))
                connected = time.monotonic()
                with Dialogue(made) as dialogue:
                    dialogue.begin()
            except OSError as error:
                failure = repr(error)
        return Attempt(began, connected, time.monotonic(), failure)

    def judge(self, event: float, *, late: float = 0.5) -> str:
        """No client hung; who began a second after the event passed at once; the others after one SYN more.

        `late`: what a busy machine may add to a time, beside those in which it stood still. Answers what to
        print when a test fails elsewhere.
        """
        hung = [each for each in self.attempts if each.seconds >= PATIENCE]
        assert not hung, f"{len(hung)} clients waited for their own timer: {shown(hung, event)}"
        later = [each for each in self.attempts if each.began >= event + 1.0]
        assert later, "no attempt began a second after the event"
        failed = [each for each in later if each.failure]
        assert not failed, f"failed a second and more after the event: {shown(failed, event)}"
        slow = [each for each in later if self.opened_after(each) > late]
        assert not slow, f"slow a second and more after the event: {shown(slow, event)}"
        earlier = [each for each in self.attempts if each.began < event + 1.0]
        # A SYN under way at the event is lost once; under load one of two may meet the successor's start.
        limit = FIRST_RETRANSMISSION + late
        slow = [each for each in earlier if self.opened_after(each) > limit]
        assert not slow, f"more than one retransmission: {shown(slow, event)}"
        failed = [each for each in earlier if each.failure]
        loose = [each for each in failed if self._moving(max(each.began, event), each.ended) > 2.0 + late]
        assert not loose, f"failed late: {shown(loose, event)}"
        assert len(failed) <= 2 * self.clients, f"{len(failed)} failed: {shown(failed, event)}"
        return f"{len(self.attempts)} attempts, {len(failed)} failed around the event"

    def opened_after(self, attempt: Attempt) -> float:
        """Seconds that its connection took, without those in which all stood still; 0 where there is none."""
        return 0.0 if attempt.connected is None else self._moving(attempt.began, attempt.connected)

    def took(self, attempt: Attempt) -> float:
        """The same of the whole of it."""
        return self._moving(attempt.began, attempt.ended)

    def _moving(self, since: float, until: float) -> float:
        return until - since - self.metronome.stood_still(since, until)


def shown(attempts: list[Attempt], event: float) -> str:
    return "; ".join(
        f"at {each.began - event:+.2f} s, connected after "
        f"{'never' if each.connected is None else f'{each.connected - each.began:.2f}'}, "
        f"ended after {each.seconds:.2f}, {each.failure or 'fine'}"
        for each in attempts[:6]
    )


def failure(sites: Sites, client: str, target: str, **words: Any) -> tuple[str, float]:
    """How a connect fails: name of the errno ("timeout" for the client's own timer), and after how long."""
    began = time.monotonic()
    try:
        sites.connect(client, target, **words).close()
    except TimeoutError as error:
        name = errno.errorcode[error.errno] if error.errno else "timeout"
        return name, time.monotonic() - began
    except OSError as error:
        return errno.errorcode[error.errno or 0], time.monotonic() - began
    return "connected", time.monotonic() - began


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def wait_gone(*pids: int, seconds: float = PATIENCE) -> None:
    eventually(lambda: all(processes.start_time(pid) is None for pid in pids), seconds, f"end of {pids}")


def pins(gateway: Gateway) -> list[dict[str, Any]]:
    """What the memory of peers holds, by the operator's own command."""
    command = gateways.nightmail_command("--config", str(gateway.configuration), "peers", "list", "--json")
    done = processes.run_in(gateway.namespace, command)
    answer = json.loads(done.stdout)
    assert isinstance(answer, list)
    return answer
