"""The TLS of two parties, in memory: octets in, octets out."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from tests.lab.steps import Party

READ = 256 * 1024


@dataclass(frozen=True, slots=True)
class TlsContexts:
    """A throwaway certificate's: one for each party."""

    sender: ssl.SSLContext
    receiver: ssl.SSLContext


class TlsEnd:
    """One party's."""

    def __init__(self, contexts: TlsContexts, party: Party, taken: int) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._taken = taken
        self.ready = False
        self.plain = bytearray()
        if party is Party.SENDER:
            self.object = contexts.sender.wrap_bio(self._in, self._out, server_hostname="mta-b.b.test")
        else:
            self.object = contexts.receiver.wrap_bio(self._in, self._out, server_side=True)

    def turn(self, heard: bytearray) -> bytes:
        """Take what has come in since the last turn; answers what is to go out."""
        if len(heard) > self._taken:
            self._in.write(bytes(heard[self._taken :]))
            self._taken = len(heard)
        try:
            if not self.ready:
                self.object.do_handshake()
                self.ready = True
            while piece := self.object.read(READ):
                self.plain += piece
        except ssl.SSLWantReadError:
            pass
        return self._out.read()
