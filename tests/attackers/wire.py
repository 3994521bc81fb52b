"""The attacker's place: a transparent proxy in the wire's namespace, which both gateways take for the wire.

The sender's connections to port 25 that come in from one gateway are taken here and dialled on from the
sender's own address and port. Everything that S or R say is kept: what a listener would have heard. Runs in
the test's event loop; its sockets live in the namespace. Counterpart: `attack`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

from gateway.lab import processes
from gateway.lab.network import inside
from tests.attackers.attack import Act, Attack, Cutter, End, Fin, Piece, Say

PORT = 10025
MARK = 1
TABLE = 100
APART_SECONDS = 1.0
"""So long the attacker waits before octets that are to arrive apart from those before them: a gateway has
done with these by then, also on a machine that has much else to do."""
IP_TRANSPARENT = 19
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
RULES = f"""
table ip attacker {{
    chain arriving {{
        type filter hook prerouting priority mangle;
        iifname "gw-a" tcp dport 25 tproxy to 127.0.0.1:{PORT} meta mark set {MARK} accept
        tcp sport 25 socket transparent 1 meta mark set {MARK} accept
    }}
}}
"""
Source = tuple[str, int]


@dataclass(slots=True)
class Session:
    """All connections of one sender's address and port: its dials, and what was heard of each side."""

    attack: Attack
    dials: int = 0
    heard: dict[End, bytearray] = field(default_factory=lambda: {end: bytearray() for end in End})
    pieces: list[Piece] = field(default_factory=list)


class Wire:
    """The proxy. `attacks` says who attacks which session; by default nobody does."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._server: asyncio.Server | None = None
        self._spare: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.attacks: dict[Source, Callable[[], Attack]] = {}
        self.by_default: Callable[[], Attack] = Attack
        self.sessions: dict[Source, Session] = {}
        self.led_to: dict[Source, str] = {}
        """Destinations to which a session is led in place of its own."""
        self.keeps = True
        """False: what is heard is not kept (gigabytes)."""

    async def open(self) -> None:
        listener = inside(self._namespace, _listener)
        _rules(self._namespace)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), sock=listener, backlog=4096)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for spare in self._spare:
            spare.close()

    def session_of(self, source: Source) -> Session:
        if source not in self.sessions:
            self.sessions[source] = Session(self.attacks.get(source, self.by_default)())
        return self.sessions[source]

    def start(self, near: _Near) -> None:
        task = asyncio.get_running_loop().create_task(self._dial(near))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, near: _Near) -> None:
        try:
            far = await self._connected(near.source, self._target(near))
        except OSError:
            near.act_reset()
            return
        link = Link(self.session_of(near.source), near, keeps=self.keeps)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: _Far(link), sock=far)
        link.start()

    def _target(self, near: _Near) -> Source:
        return self.led_to.get(near.source, near.target[0]), near.target[1]

    async def _connected(self, source: Source, target: Source) -> socket.socket:
        loop = asyncio.get_running_loop()
        for port in (source[1], 0):
            made = self._made()
            try:
                made.bind((source[0], port))
                await loop.sock_connect(made, target)
            except OSError as error:
                made.close()
                # The connection before it may stand there still: then from another port.
                if port and error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                    continue
                raise
            return made
        raise AssertionError("unreachable")

    def _made(self) -> socket.socket:
        if not self._spare:
            # Many at once: entering a namespace takes a thread.
            self._spare = inside(self._namespace, lambda: [_transparent() for _ in range(256)])
        return self._spare.pop()


class _Half(asyncio.Protocol):
    """What both sides of the proxy have."""

    link: Link | None = None
    end: End
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        assert self.link is not None
        self.link.octets(self.end, data)

    def eof_received(self) -> bool:
        assert self.link is not None
        self.link.ended(self.end)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self.link is not None:
            self.link.lost(self.end, by_reset=error is not None)

    def pause_writing(self) -> None:
        if self.link is not None:
            self.link.half(self.end.other).pause_reading()

    def resume_writing(self) -> None:
        if self.link is not None:
            self.link.half(self.end.other).resume_reading()

    def pause_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def act_reset(self) -> None:
        made = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()


class _Near(_Half):
    """Towards S: waits until the other side stands."""

    end = End.S

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.source: Source = self.transport.get_extra_info("peername")
        self.target: Source = self.transport.get_extra_info("sockname")
        self.transport.pause_reading()
        self._wire.start(self)


class _Far(_Half):
    """Towards R."""

    end = End.R

    def __init__(self, link: Link) -> None:
        self.link = link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.link is not None
        self.link.far = self


class Link:
    """One connection through the proxy, both halves, under one attack."""

    def __init__(self, session: Session, near: _Near, *, keeps: bool) -> None:
        self._session = session
        self._near = near
        self.far: _Far | None = None
        self._keeps = keeps
        self._over: dict[End, bool] = {End.S: False, End.R: False}
        self._fins: set[End] = set()
        self._later: list[Act] = []
        self._cutters = {end: Cutter(end) for end in End}
        session.dials += 1
        session.attack.dial = session.dials
        self._attack = session.attack if session.attack.bites else Attack()

    def start(self) -> None:
        self._near.link = self
        if self._near.transport.is_closing():
            self.lost(End.S, by_reset=True)
            return
        self._do(self._attack.begin())
        self._near.resume_reading()

    def half(self, end: End) -> _Half:
        half = self._near if end is End.S else self.far
        assert half is not None
        return half

    def octets(self, origin: End, octets: bytes) -> None:
        if self._keeps:
            self._session.heard[origin] += octets
        acts: list[Act] = []
        for piece in self._cutters[origin].feed(octets):
            if self._keeps:
                self._session.pieces.append(piece)
            acts += self._attack.piece(piece)
        self._do(acts)

    def ended(self, origin: End) -> None:
        rest = self._cutters[origin].rest()
        self._do([*([Say(origin.other, rest)] if rest else []), *self._attack.end(origin)])

    def lost(self, origin: End, *, by_reset: bool) -> None:
        if self._over[origin]:
            return
        self._over[origin] = True
        if not self._over[origin.other]:
            self._do(self._attack.reset(origin) if by_reset else [])

    def _do(self, acts: list[Act]) -> None:
        """Octets for one side leave in one write, but for those that are to be apart: these come later, and
        whatever there is to do in the meantime comes behind them."""
        if self._later:
            self._later += acts
            return
        waiting = {end: bytearray() for end in End}
        for number, act in enumerate(acts):
            if isinstance(act, Say):
                if act.apart:
                    self._later = [replace(act, apart=False), *acts[number + 1 :]]
                    asyncio.get_running_loop().call_later(APART_SECONDS, self._go_on)
                    break
                waiting[act.to] += act.octets
                continue
            self._write(act.to, waiting)
            (self._fin if isinstance(act, Fin) else self._rst)(act.to)
        for end in End:
            self._write(end, waiting)

    def _go_on(self) -> None:
        acts, self._later = self._later, []
        self._do(acts)

    def _write(self, to: End, waiting: dict[End, bytearray]) -> None:
        half = self.half(to)
        if waiting[to] and not half.transport.is_closing() and to not in self._fins:
            half.transport.write(bytes(waiting[to]))
        waiting[to].clear()

    def _fin(self, to: End) -> None:
        half = self.half(to)
        if to in self._fins or half.transport.is_closing():
            return
        self._fins.add(to)
        if len(self._fins) == 2:
            for end in End:
                self._over[end] = True
                self.half(end).transport.close()
        else:
            half.transport.write_eof()

    def _rst(self, to: End) -> None:
        self._over[to] = True
        self.half(to).act_reset()


# --- In the namespace -------------------------------------------------------------------------------------


def _transparent() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _listener() -> socket.socket:
    made = _transparent()
    made.bind(("127.0.0.1", PORT))
    return made


def _rules(namespace: str) -> None:
    processes.run_in(namespace, ["nft", "-f", "-"], stdin=RULES.encode())
    for words in (
        f"ip rule add fwmark {MARK} lookup {TABLE}",
        f"ip route add local 0.0.0.0/0 dev lo table {TABLE}",
    ):
        processes.run_in(namespace, words.split())
