"""The mail server that the raw sessions send to: takes every mail, and writes down which and whether whole.

`python -m bench.chaos.server FACTS PORT [ADDRESS...]`, in the receiving mail server's namespace. It never
refuses, never closes first, and writes a mail down before it answers for it, as a mail server does.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import uvloop

from bench.chaos.facts import Writer

GREETING = b"220 sink.b.test ESMTP\r\n"
EHLO_REPLY = b"250-sink.b.test\r\n250-PIPELINING\r\n250-SIZE 50000000\r\n250 8BITMIME\r\n"
END_OF_MAIL = b"\r\n.\r\n"
MARK = b"X-Chaos: "


class Session(asyncio.Protocol):
    """One client."""

    def __init__(self, facts: Writer) -> None:
        self._facts = facts
        self._buffer = bytearray()
        self._in_mail = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._step():
            pass

    def _step(self) -> bool:
        """Take one command or one mail, if it is whole."""
        end = END_OF_MAIL if self._in_mail else b"\r\n"
        at = self._buffer.find(end)
        if at < 0:
            return False
        taken = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        if self._in_mail:
            self._in_mail = False
            self._note(taken)
            self._transport.write(b"250 2.0.0 taken\r\n")
        else:
            self._answer(taken[:4].upper())
        return True

    def _answer(self, verb: bytes) -> None:
        if verb == b"EHLO":
            self._transport.write(EHLO_REPLY)
        elif verb == b"DATA":
            self._in_mail = True
            self._transport.write(b"354 go on\r\n")
        elif verb == b"QUIT":
            self._transport.write(b"221 2.0.0 bye\r\n")
            self._transport.close()
        else:
            self._transport.write(b"250 2.0.0 fine\r\n")

    def _note(self, mail: bytes) -> None:
        head, _, body = mail.partition(b"\r\n")
        name, _, digest = head.removeprefix(MARK).decode(errors="replace").partition(" ")
        whole = head.startswith(MARK) and hashlib.sha256(body).hexdigest() == digest
        self._facts.tell("taken", name=name, whole=whole, at=time.monotonic())


async def serve(facts: Writer, port: int, addresses: Sequence[str]) -> None:
    """Until SIGTERM."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    for host in addresses:
        await loop.create_server(lambda: Session(facts), host, port, backlog=1024)
    facts.tell("ready")
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(serve(Writer(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3:] or ("0.0.0.0", "::")))
