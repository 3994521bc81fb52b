"""The sessions of one worker, without anybody at the other end."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.config import Config
from gateway.errors import Reason
from gateway.intercept.syn import Flow
from gateway.observe.counters import Counters
from gateway.observe.log import Log, LogSink
from gateway.peers.database import Database
from gateway.policy import limits
from gateway.runtime.link import Message
from gateway.runtime.order import Presented
from gateway.runtime.worker.connection import Connection
from gateway.runtime.worker.memory import Memory, PinReader, SourceReader
from gateway.runtime.worker.poller import Poller
from gateway.runtime.worker.sessions import Sessions
from gateway.runtime.worker.surroundings import Surroundings
from gateway.session.commands import NoteDecision, NoteSource
from gateway.smtp.events import Role
from tests.playbook import R_KEYS, sending

CLIENT = "192.0.2.1"
MANY = limits.OFFERS_IGNORED_IN_A_ROW


class Worker:
    """The sessions of one, whose sockets nobody serves; `said` is what the supervisor would hear."""

    def __init__(self, folder: Path, config: Config | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._sockets: list[socket.socket] = []
        self.log = folder / "log"
        self._poller = Poller(self._loop)
        Database(folder / "peers.db").close()
        memory = Memory(folder / "peers.db", lambda detail: pytest.fail(detail))
        endorsed = R_KEYS.endorsed
        self.said: list[Message] = []
        self.met = 0
        """How often the kernel would have been told of a gateway that was not known."""
        self.sources = SourceReader(memory)
        config = config or Config()
        presented = Presented(
            R_KEYS.identity.octets, bytes(range(32)), endorsed.static.epoch, endorsed.not_after, bytes(64)
        )
        self._surroundings = Surroundings(
            config, presented, PinReader(memory), self.sources, self._loop.time()
        )
        self.sessions = Sessions(
            self._loop,
            self._poller,
            config,
            Log(LogSink.to_file(folder / "log")),
            Counters(),
            lambda message: self.said.append(message) or True,
            self._surroundings,
            lambda to_sign, signed: None,
            self._met,
        )

    def _met(self) -> None:
        self.met += 1

    def close(self) -> None:
        for each in self._sockets:
            each.close()
        self._poller.close()
        self._loop.close()

    def rests(self, client: str = CLIENT) -> bool:
        """Whether the next session of that client gets no offer."""
        return self._surroundings.receiving(flow(client), self._loop.time()).offers_ignored()

    def decided(self, reason: Reason, client: str = CLIENT, role: Role = Role.RECEIVING) -> None:
        upgraded = reason in (Reason.UPGRADED, Reason.UPGRADED_OLD_EPOCH)
        connection = self._connection(client)
        self.sessions._roles[connection] = role
        self.sessions.note_decision(connection, NoteDecision(upgraded, reason))
        del self.sessions._roles[connection]

    def saw(self, note: NoteSource, client: str = CLIENT) -> None:
        self.sessions.note_source(self._connection(client), note)

    def ignored_many(self, client: str = CLIENT) -> None:
        for _ in range(MANY):
            assert not self.rests(client)
            self.decided(Reason.NO_VERB, client)

    def _connection(self, client: str) -> Connection:
        near, far = socket.socketpair()
        self._sockets += [near, far]
        machine, of = sending(), flow(client)
        made = Connection(self._loop, self._poller, self.sessions, machine, of, "0", near, far)
        self.sessions._roles[made] = Role.RECEIVING
        return made


class Stub(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]


def flow(client: str) -> Flow:
    """From a port whose turn it is not."""
    return Flow(source=client, source_port=40_002, destination="203.0.113.7", destination_port=25)
