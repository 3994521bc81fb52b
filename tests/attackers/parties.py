"""The two mail servers of an attacked session: a sender that says what became of its mail, a strict receiver.

The sender believes nothing but replies: a mail is delivered when the reply to its last dot begins with 2, and
waits in its queue otherwise. The receiver ends content at CRLF . CRLF alone, takes no bare CR or LF in a
command, and keeps what it was given, by connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from dataclasses import dataclass, field
from typing import cast

GREETING = b"220 mta-b.b.test ESMTP at your service\r\n"
REPLY = b"250-mta-b.b.test\r\n250-PIPELINING\r\n250-SIZE 33554432\r\n250-8BITMIME\r\n250 CHUNKING\r\n"
EHLO = b"EHLO mta-a.a.test\r\n"
READ = 256 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail. Its words stand nowhere else, so they can be searched for."""

    name: str
    content: bytes

    @property
    def envelope(self) -> bytes:
        return f"<to-{self.name}@b.test>".encode()

    @property
    def body(self) -> bytes:
        return f"saltmarsh {self.name} lantern".encode()


def mail(name: str, extra: bytes = b"") -> Mail:
    text = f"Subject: moonlit {name} heron\r\n\r\nThe word is saltmarsh {name} lantern.\r\n"
    return Mail(name, text.encode() + extra)


# --- The sender -------------------------------------------------------------------------------------------


class Fate(enum.Enum):
    """What the sender believes of its mail."""

    DELIVERED = "delivered"
    QUEUED = "queued"


@dataclass(slots=True)
class Sent:
    """What became of one session, as its sender knows it."""

    fate: Fate = Fate.QUEUED
    heard: bytes = b""
    why: str = ""


class Refused(Exception):
    """A reply that does not let the sender go on."""


class Sender:
    """One session: EHLO (or HELO where that is refused, or the greeting masked), one mail, QUIT.

    `patience`: seconds for each reply; `thinks`: seconds before the first command behind the reply.
    """

    def __init__(self, made: socket.socket, patience: float, *, thinks: float = 0.0) -> None:
        self._socket = made
        self._patience = patience
        self._thinks = thinks
        self.sent = Sent()

    async def run(self, target: Address, one: Mail) -> Sent:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.sock_connect(self._socket, target), self._patience)
            self._reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=READ)
        except (OSError, TimeoutError) as error:
            self.sent.why = type(error).__name__
            self._socket.close()
            return self.sent
        try:
            await self._session(one)
        except (OSError, TimeoutError, EOFError, Refused) as error:
            self.sent.why = f"{type(error).__name__} {error}".strip()
        finally:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        return self.sent

    async def _session(self, one: Mail) -> None:
        greeting = await self._reply(b"220")
        reply = b""
        if greeting.strip(b"20* \r\n"):
            self._writer.write(EHLO)
            reply = await self._reply(b"")
        if reply.startswith(b"421"):
            raise Refused(reply[:60].decode())
        if not reply.startswith(b"250"):
            self._writer.write(b"HELO mta-a.a.test\r\n")
            await self._reply(b"250")
        await asyncio.sleep(self._thinks)
        for command in (
            b"MAIL FROM:<from-%b@a.test>\r\n" % one.name.encode(),
            b"RCPT TO:%b\r\n" % one.envelope,
        ):
            self._writer.write(command)
            await self._reply(b"250")
        self._writer.write(b"DATA\r\n")
        await self._reply(b"354")
        self._writer.write(one.content + b".\r\n")
        await self._reply(b"250")
        self.sent.fate = Fate.DELIVERED
        self._writer.write(b"QUIT\r\n")
        await self._reply(b"221")

    async def _reply(self, wanted: bytes) -> bytes:
        lines = b""
        while True:
            line = await asyncio.wait_for(self._reader.readline(), self._patience)
            self.sent.heard += line
            if not line.endswith(b"\n"):
                raise EOFError("ended")
            lines += line
            if line[3:4] != b"-":
                break
        if not lines.startswith(wanted):
            raise Refused(lines[:60].decode(errors="replace").strip())
        return lines


# --- The receiver -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Received:
    """One connection as the receiver saw it."""

    source: Address
    destination: Address
    heard: bytearray = field(default_factory=bytearray)
    mails: list[bytes] = field(default_factory=list)
    ended: bool = False
    """By an orderly end; else it was reset, or is still open."""
    commands: list[bytes] = field(default_factory=list)


class Receiver(asyncio.Protocol):
    """A strict mail server; one object for each connection, all kept in `log`."""

    def __init__(self, log: list[Received]) -> None:
        self._log = log
        self._held = b""
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        info = self._transport.get_extra_info
        info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = Received(info("peername"), info("sockname"))
        self._log.append(self.received)
        self._transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        self.received.heard += data
        self._held += data
        while self._step():
            pass

    def eof_received(self) -> bool:
        self.received.ended = True
        return False

    def _step(self) -> bool:
        if self._in_data:
            # The dot may stand on the very first line.
            at = 0 if self._held.startswith(b".\r\n") else self._held.find(b"\r\n.\r\n") + 2
            if not at and not self._held.startswith(b".\r\n"):
                return False
            if at == 1:
                return False
            self.received.mails.append(self._held[:at])
            self._held = self._held[at + 3 :]
            self._in_data = False
            self._transport.write(b"250 2.0.0 Ok: queued as 4dW1Xy\r\n")
            return True
        line, found, rest = self._held.partition(b"\n")
        if not found:
            return False
        self._held = rest
        self._command(line)
        return True

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        self.received.commands.append(line)
        if not line.endswith(b"\r") or b"\r" in line[:-1]:
            self._transport.write(b"500 5.5.2 Bare line end\r\n")
        elif verb == b"EHLO":
            self._transport.write(REPLY)
        elif verb == b"DATA":
            self._in_data = True
            self._transport.write(b"354 End data with <CR><LF>.<CR><LF>\r\n")
        elif verb == b"QUIT":
            self._transport.write(b"221 2.0.0 Bye\r\n")
            self._transport.close()
        elif verb in (b"HELO", b"MAIL", b"RCPT", b"RSET", b"NOOP"):
            self._transport.write(b"250 2.1.0 Ok\r\n")
        else:
            self._transport.write(b"500 5.5.2 What\r\n")
