"""A playbook for one session machine, and scripted far gateways for it to talk to. For tests only.

`Playbook` hands events to a machine and keeps what it asked for; on the way it checks what holds for every
session, whatever happens to it. The far gateways are scripts over the crypto room alone: they share no code
with `session`, so that a machine never confirms its own mistakes. Counterpart: `pair`, two machines at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from gateway.crypto.frames import FrameKind, FrameReader, frame
from gateway.crypto.handshake import (
    HandshakeResult,
    OfferForm,
    SendingHandshake,
    prologue,
)
from gateway.crypto.keys import Ephemerals, IdentityKey, StaticKey, endorse
from gateway.crypto.messages import AnswerFlags, DialledAddress, OfferFlags
from gateway.crypto.params import Params
from gateway.crypto.records import Record, RecordLayer, RecordType
from gateway.crypto.resumption import ReceivingResumption, SendingResumption, ticket_name
from gateway.crypto.tickets import HeldTickets, Ticket, TicketsOfPair
from gateway.errors import Reason
from gateway.peers.pins import Pin
from gateway.peers.sources import NOBODY, Sender, Source
from gateway.session import commands as c
from gateway.session.context import GatewayKeys, ReceivingContext, SendingContext
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    Event,
    OctetsReceived,
    OfferSigned,
    RedialFailed,
    Redialled,
    ResetReceived,
    Side,
)
from gateway.session.sending import SendingSession
from gateway.smtp.capability import VERB_LINE, append_offer, split_offer
from tests.holding import HeldKeys, HoldingHandshake, HoldingSession, ReceivingMachine

TODAY = 20781
GREETING = b"220 mx.b.example ESMTP ready 4711\r\n"
EHLO = b"EHLO mail.a.example\r\n"
REPLY = b"250-mx.b.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-STARTTLS\r\n250 SIZE 10240000\r\n"
LONG_REPLY = b"250-mx.b.example\r\n" + b"250-X%b\r\n" % (b"A" * 200) * 5 + b"250 SIZE 1\r\n"
"""So long that the size rule leaves room for the short offer only."""
DIALLED = DialledAddress.from_text("192.0.2.25", 25)
ELSEWHERE = DialledAddress.from_text("198.51.100.7", 25)

T = TypeVar("T")


def octets(label: str, count: int) -> bytes:
    """The same octets for the same label, for keys that are worth nothing."""
    return hashlib.shake_256(label.encode()).digest(count)


def entropy_for_testing_only(label: str) -> Callable[[int], bytes]:
    """A stream that never repeats within itself, and whose first octets never ask for ignorables."""
    calls = 0

    def draw(count: int) -> bytes:
        nonlocal calls
        calls += 1
        drawn = octets(f"{label} {calls}", count)
        return b"\xff" if count == 1 else drawn

    return draw


def always_ignorable(label: str) -> Callable[[int], bytes]:
    """The same, but every single octet drawn is zero: what is done now and then is done."""
    plain = entropy_for_testing_only(label)
    return lambda count: b"\0" if count == 1 else plain(count)


def identity(label: str) -> IdentityKey:
    return IdentityKey.from_seed(octets(f"identity of {label}", 32))


def gateway_keys(label: str, today: int = TODAY) -> HeldKeys:
    key = identity(label)
    static = StaticKey.draw(entropy_for_testing_only(f"static of {label} {today}"), today)
    return HeldKeys(key.public, endorse(key, static, today), key)


S_KEYS = gateway_keys("S")
R_KEYS = gateway_keys("R")
OTHER_KEYS = gateway_keys("another R")


def sending(
    *,
    pin: Pin | None = None,
    refusal: Reason | None = None,
    keys: GatewayKeys = S_KEYS,
    dialled: DialledAddress = DIALLED,
    entropy: Callable[[int], bytes] | None = None,
    tickets: HeldTickets | None = None,
) -> SendingSession:
    drawn = entropy or entropy_for_testing_only("S session")
    draw = partial(Ephemerals.draw_for_answer, drawn)
    return SendingSession(SendingContext(keys, dialled, pin, TODAY, drawn, draw, tickets, refusal))


def receiving(
    *,
    may_offer: bool = True,
    keys: GatewayKeys = R_KEYS,
    dialled: DialledAddress = DIALLED,
    nat: tuple[DialledAddress, ...] = (),
    label: str = "R session",
    today: int = TODAY,
    entropy: Callable[[int], bytes] | None = None,
    statements: tuple[bytes, ...] = (),
    source: Source = NOBODY,
    source_rests: bool = False,
    overloaded: bool = False,
    offers_ignored: Callable[[], bool] = lambda: False,
    sender_of: Callable[[bytes], Sender] = Sender,
    tickets: TicketsOfPair | None = None,
) -> HoldingSession:
    drawn = entropy or entropy_for_testing_only(label)
    return HoldingSession(
        ReceivingContext(
            keys=keys,
            dialled=dialled,
            own_addresses=lambda address: address in nat,
            today=today,
            entropy=drawn,
            draw_ephemerals=lambda: Ephemerals.draw(drawn),
            may_offer=may_offer,
            statements=statements,
            source=source,
            source_rests=source_rests,
            overloaded=overloaded,
            offers_ignored=offers_ignored,
            sender_of=sender_of,
            tickets=tickets,
        )
    )


class Playbook:
    """One machine under test. `near` and `far` octets go in by name; what came out is kept by side.

    `to_far` is what went to the far connection of now, `fars` what went to each of them in turn.
    """

    def __init__(self, machine: SendingSession | ReceivingMachine, now: float = 1000.0) -> None:
        self.machine = machine
        self.now = now
        self.to_near = b""
        self.fars = [b""]
        self.commands: list[c.Command] = []
        self.paused: set[Side] = set()
        self.ended: set[Side] = set()
        self.reset: set[Side] = set()
        self.gone: set[Side] = set()
        self.closed = False
        self.relayed = False
        self.redials = 0
        self._redialling = False

    # --- What happens ----------------------------------------------------------------------------------

    def near(self, data: bytes) -> list[c.Command]:
        assert Side.NEAR not in self.paused, "the near side is not read now"
        return self.happens(OctetsReceived(Side.NEAR, data))

    def far(self, data: bytes) -> list[c.Command]:
        return self.happens(OctetsReceived(Side.FAR, data))

    def near_end(self) -> list[c.Command]:
        return self.happens(EndReceived(Side.NEAR))

    def far_end(self) -> list[c.Command]:
        return self.happens(EndReceived(Side.FAR))

    def near_reset(self) -> list[c.Command]:
        return self.happens(ResetReceived(Side.NEAR))

    def far_reset(self) -> list[c.Command]:
        return self.happens(ResetReceived(Side.FAR))

    def deadline(self) -> list[c.Command]:
        assert self.machine.deadline is not None, "there is no deadline"
        self.now = self.machine.deadline
        return self.happens(DeadlineReached())

    def redialled(self) -> list[c.Command]:
        assert self._redialling, "no redial was asked for"
        self._redialling = False
        self.ended.discard(Side.FAR)
        self.reset.discard(Side.FAR)
        return self.happens(Redialled())

    def redial_failed(self) -> list[c.Command]:
        self._redialling = False
        return self.happens(RedialFailed())

    def happens(self, event: Event) -> list[c.Command]:
        commands = self.machine.handle(event, self.now)
        if isinstance(event, ResetReceived):
            self.gone.add(event.side)
        for command in commands:
            self._keep(command)
        self._check_what_always_holds()
        return commands

    # --- What came of it -------------------------------------------------------------------------------

    @property
    def to_far(self) -> bytes:
        return self.fars[-1]

    @property
    def state(self) -> str:
        return self.machine.state.value

    def all_of(self, kind: type[T]) -> list[T]:
        return [command for command in self.commands if isinstance(command, kind)]

    @property
    def decision(self) -> c.NoteDecision:
        (decision,) = self.all_of(c.NoteDecision)
        return decision

    @property
    def facts(self) -> list[tuple[str, Reason | None]]:
        return [(fact.event, fact.reason) for fact in self.all_of(c.NoteFact)]

    def _keep(self, command: c.Command) -> None:
        assert not self.relayed, f"{command} behind RelayInClear"
        self.commands.append(command)
        if isinstance(command, c.NoteDecision | c.NoteFact):
            # With both sockets closed the session is over, and its worker knows it no more.
            assert not (self.closed or {Side.NEAR, Side.FAR} <= self.reset), f"{command} behind the end"
        if isinstance(command, c.SendOctets):
            self._keep_octets(command.side, command.octets)
        elif isinstance(command, c.SendEnd):
            assert command.side not in self.ended, "a second FIN"
            self.ended.add(command.side)
        elif isinstance(command, c.SendReset):
            self.reset.add(command.side)
        elif isinstance(command, c.PauseReading):
            assert command.side not in self.paused, "paused twice"
            self.paused.add(command.side)
        elif isinstance(command, c.ResumeReading):
            assert command.side in self.paused, "resumed without a pause"
            self.paused.remove(command.side)
        elif isinstance(command, c.CloseBoth):
            self.closed = True
        elif isinstance(command, c.RelayInClear):
            self.relayed = True
        elif isinstance(command, c.Redial):
            self.redials += 1
            self.fars.append(b"")
            self._redialling = True
        elif isinstance(command, c.RememberPeer):
            assert self.decision.upgraded, "remembered before the upgrade was decided"

    def _keep_octets(self, side: Side, data: bytes | bytearray) -> None:
        assert data, "an empty write"
        assert side not in self.ended, "octets behind a FIN"
        assert side not in self.reset, "octets behind a reset"
        assert not self.closed, "octets behind a close"
        if side is Side.NEAR:
            self.to_near += data
        else:
            assert not self._redialling, "octets to a connection that is not there"
            self.fars[-1] += data

    def _check_what_always_holds(self) -> None:
        assert len(self.all_of(c.NoteDecision)) <= 1, "decided twice"
        deadline = self.machine.deadline
        assert deadline is None or deadline >= self.now, "a deadline in the past"
        over = self.closed or Side.NEAR in self.reset | self.gone
        assert (self.state == "over") == (over and not self.relayed)
        assert (self.state == "relayed") == self.relayed
        if over or self.relayed:
            assert deadline is None, "a deadline behind the end"
            assert self.all_of(c.NoteDecision), "it ended, and nobody was told why"
        if self.relayed:
            assert not self.paused, "paused for ever"
        if self.relayed or self.state == "channel":
            assert not self.machine.octets_kept, "held back for ever, where too many are"


class FarReceivingGateway:
    """R as a script, with the receiver behind it. One per dial."""

    def __init__(
        self,
        label: str = "dial 1",
        *,
        keys: HeldKeys = R_KEYS,
        greeting: bytes = GREETING,
        reply: bytes = REPLY,
        ehlo: bytes = EHLO,
        form: OfferForm = OfferForm.FULL,
        flags: int = OfferFlags.NONE,
        ticket: Ticket | None = None,
    ) -> None:
        self.greeting = greeting
        self._handshake: HoldingHandshake | ReceivingResumption
        ephemerals = Ephemerals.draw(entropy_for_testing_only(f"far R {label}"))
        seen = prologue(greeting + reply, ehlo)
        if ticket is None:
            signed = HoldingHandshake(keys.key, keys.endorsed.static, ephemerals, seen)
            self._handshake, self.offer = signed, signed.make_offer(form, flags)
        else:
            resumed = ReceivingResumption(ticket, ephemerals, seen)
            self._handshake, self.offer = resumed, resumed.offer(flags)
        self.reply = append_offer(reply, self.offer)
        self._buffer = b""
        self._frames = FrameReader()
        self._layer: RecordLayer | None = None
        self.result: HandshakeResult | None = None
        self.records: list[Record] = []

    def take(self, to_far: bytes) -> FarReceivingGateway:
        """All octets that came over this connection so far, the EHLO included."""
        assert to_far.startswith(self._buffer), "what was sent cannot change"
        new, self._buffer = to_far[len(self._buffer) :], to_far
        before = self._buffer[: len(self._buffer) - len(new)]
        start = len(EHLO) + len(VERB_LINE)
        if len(self._buffer) <= start:
            return self
        assert self._buffer[len(EHLO) : start] == VERB_LINE
        for one in self._frames.feed(self._buffer[max(start, len(before)) :]):
            self._frame(one.kind, one.body)
        return self

    def _frame(self, kind: FrameKind, body: bytes) -> None:
        if self.result is None:
            assert kind is FrameKind.ANSWER
            self.result = self._handshake.read_answer(body, TODAY)
            self._layer = RecordLayer(self.result)
            return
        assert kind is FrameKind.RECORD
        self.records.append(self.layer.open(body))

    @property
    def layer(self) -> RecordLayer:
        assert self._layer is not None, "no message 2 yet"
        return self._layer

    @property
    def data(self) -> bytes:
        """What the receiver would be given."""
        return _data(self.records)

    @property
    def kinds(self) -> list[RecordType]:
        return [record.kind for record in self.records]

    def params(self) -> bytes:
        return self.layer.seal(RecordType.PARAMS, Params(dialled_address_confirmed=True).encode())

    def says(self, data: bytes) -> bytes:
        return self.layer.seal_data(data)


class FarSendingGateway:
    """S as a script, for the offer that stands in `reply`."""

    def __init__(
        self,
        reply: bytes,
        *,
        keys: GatewayKeys = S_KEYS,
        dialled: DialledAddress = DIALLED,
        greeting: bytes = GREETING,
        ehlo: bytes = EHLO,
        answer_as: GatewayKeys | None = None,
        flags: int = AnswerFlags.NONE,
        ticket: Ticket | None = None,
    ) -> None:
        split = split_offer(reply)
        assert split.offer is not None, "no offer"
        self._handshake: SendingHandshake | SendingResumption
        ephemerals = Ephemerals.draw_for_answer(entropy_for_testing_only("far S"))
        seen = prologue(greeting + split.stripped, ehlo)
        if ticket is not None and ticket_name(split.offer) == ticket.name:
            self._handshake = SendingResumption(ticket, ephemerals, seen)
        else:
            self._handshake = SendingHandshake(keys.identity, keys.endorsed, ephemerals, seen)
        self.offered = self._handshake.read_offer(split.offer)
        if answer_as is not None:  # says that it is somebody else
            assert isinstance(self._handshake, SendingHandshake), "a ticket says who it is"
            self._handshake._endorsed = answer_as.endorsed
        message, result = self._handshake.write_answer(dialled, flags)
        self.message = message
        self.answer = VERB_LINE + frame(FrameKind.ANSWER, message)
        self.layer = RecordLayer(result)
        self._frames = FrameReader()
        self._taken = 0
        self.records: list[Record] = []

    def take(self, to_far: bytes) -> FarSendingGateway:
        """All that came behind the EHLO reply so far."""
        for one in self._frames.feed(to_far[self._taken :]):
            assert one.kind is FrameKind.RECORD
            self.records.append(self.layer.open(one.body))
        self._taken = len(to_far)
        return self

    @property
    def data(self) -> bytes:
        return _data(self.records)

    @property
    def kinds(self) -> list[RecordType]:
        return [record.kind for record in self.records]

    def says(self, data: bytes) -> bytes:
        return self.layer.seal_data(data)


def _data(records: list[Record]) -> bytes:
    return b"".join(record.content for record in records if record.kind is RecordType.DATA)


def flip(data: bytes, at: int, mask: int = 0x01) -> bytes:
    """One octet changed."""
    at %= len(data)
    return data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :]


def table_of(machine: type[Any]) -> dict[tuple[Any, type[Event], Side | None], Any]:
    return dict(machine._TABLE)


EVENTS: list[Event] = [
    *(OctetsReceived(side, b"\x82") for side in Side),
    *(EndReceived(side) for side in Side),
    *(ResetReceived(side) for side in Side),
    DeadlineReached(),
    Redialled(),
    RedialFailed(),
    OfferSigned(None),
]
"""One of each kind, for walks over a machine's table."""
BOTH: set[tuple[type, Side | None]] = {
    (kind, side) for kind in (OctetsReceived, EndReceived, ResetReceived) for side in Side
}


def can_follow(first: Event, second: Event) -> bool:
    """What a socket can do: behind its FIN it sends nothing, and behind its reset nothing comes at all."""
    if getattr(first, "side", None) is not getattr(second, "side", first):
        return True
    if isinstance(first, ResetReceived):
        return False
    return not isinstance(first, EndReceived) or isinstance(second, ResetReceived)
