"""Two gateways' machines in memory, between a scripted sender and a scripted receiver. For tests only.

Every hop is a pipe; who decides which pipe moves next, and by how much, is the test's source of chance. What
sender and receiver see is compared with what they see of each other directly (`direct`). A `Tamperer` may
change the octets of the wire. Counterpart: `playbook`, one machine against scripts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.crypto.keys import Label
from gateway.session import commands as c
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    Event,
    OctetsReceived,
    OfferSigned,
    Redialled,
    ResetReceived,
    Side,
)
from gateway.session.sending import SendingSession
from tests.holding import ReceivingMachine
from tests.playbook import GREETING, R_KEYS, REPLY, receiving, sending

Tamperer = Callable[[bool, int, bytes], bytes]
"""(towards the receiver?, how many octets have gone that way, octets) -> octets as they arrive."""


# --- The two mail servers -----------------------------------------------------------------------------------


class Sender:
    """Says each step's octets once it has heard so many complete replies; then ends, if it is to end."""

    def __init__(self, steps: Sequence[tuple[int, bytes]], ends: bool = True) -> None:
        self._steps = list(steps)
        self._ends = ends
        self.heard = b""
        self.was_reset = False
        self.heard_end = False

    def wants(self) -> tuple[bytes, bool]:
        """What to say now, and whether that was all."""
        said = b""
        replies = self.replies
        while self._steps and self._steps[0][0] <= len(replies):
            said += self._steps.pop(0)[1]
        ends = self._ends and not self._steps
        if ends:
            self._ends = False
        return said, ends

    @property
    def replies(self) -> list[bytes]:
        """Complete replies: up to a line with a blank behind its code."""
        replies, current = [], b""
        for line in self.heard.split(b"\r\n")[:-1]:
            current += line + b"\r\n"
            if line[3:4] != b"-":
                replies.append(current)
                current = b""
        return replies


class Receiver:
    """A small mail server: a function of the octets that it hears, however they are cut."""

    def __init__(self, greeting: bytes = GREETING, reply: bytes = REPLY) -> None:
        self._reply = reply
        self._buffer = b""
        self._content = -1  # octets of a BDAT still to come
        self._last = False
        self._in_data = False
        self._mail = b""
        self.heard = b""
        self.delivered: list[bytes] = []
        self.to_say = greeting
        self.ends = False
        self.was_reset = False
        self.heard_end = False

    def hears(self, octets: bytes) -> None:
        self.heard += octets
        self._buffer += octets
        while self._step():
            pass

    def _step(self) -> bool:
        if self._content >= 0:
            return self._take_chunk()
        end = b"\r\n.\r\n" if self._in_data else b"\r\n"
        line, found, rest = self._buffer.partition(end)
        if not found:
            return False
        self._buffer = rest
        if self._in_data:
            self._in_data = False
            self._deliver(line + b"\r\n")
        else:
            self._command(line)
        return True

    def _take_chunk(self) -> bool:
        if len(self._buffer) < self._content:
            return False
        self._mail += self._buffer[: self._content]
        self._buffer = self._buffer[self._content :]
        self._content = -1
        if self._last:
            self._deliver(b"")
        else:
            self.to_say += b"250 2.0.0 chunk\r\n"
        return True

    def _deliver(self, rest: bytes) -> None:
        self.delivered.append(self._mail + rest)
        self._mail = b""
        self.to_say += b"250 2.0.0 Ok: queued\r\n"

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb == b"EHLO":
            self.to_say += self._reply
        elif verb == b"BDAT":
            words = line.split()
            self._content, self._last = int(words[1]), len(words) > 2
        elif verb == b"DATA":
            self._in_data = True
            self.to_say += b"354 go on\r\n"
        elif verb == b"QUIT":
            self.to_say += b"221 2.0.0 Bye\r\n"
            self.ends = True
        elif verb in (b"MAIL", b"RCPT", b"NOOP", b"RSET", b"HELO"):
            self.to_say += b"250 2.1.0 Ok\r\n"
        else:
            self.to_say += b"500 5.5.2 What\r\n"


# --- Pipes --------------------------------------------------------------------------------------------------


@dataclass
class Pipe:
    """One direction of one connection."""

    name: str
    octets: bytes = b""
    ended: bool = False
    end_told: bool = False
    reset: bool = False
    reset_told: bool = False
    passed: int = 0
    everything: bytes = field(default=b"", repr=False)

    def put(self, octets: bytes | bytearray) -> None:
        if not (self.ended or self.reset):
            self.octets += octets
            self.everything += octets

    @property
    def has_news(self) -> bool:
        if self.reset:
            return not self.reset_told
        return bool(self.octets) or (self.ended and not self.end_told)


class Pair:
    """sender - S - wire - R - receiver. `run` until nothing moves; what is left then is the outcome."""

    def __init__(
        self,
        sender: Sender,
        make_receiver: Callable[[], Receiver] = Receiver,
        chance: random.Random | None = None,
        *,
        make_s: Callable[[], SendingSession | None] = sending,
        make_r: Callable[[int], ReceivingMachine | None] = lambda dial: receiving(label=f"R {dial}"),
        tamper: Tamperer | None = None,
        most_octets: int = 4096,
    ) -> None:
        self.sender = sender
        self._make_receiver, self._make_r = make_receiver, make_r
        self._chance = chance or random.Random(0)
        self._tamper = tamper
        self._most = most_octets
        self.now = 1000.0
        self.s = make_s()
        self.commands: list[c.Command] = []
        self.log: list[tuple[str, Event | c.Command]] = []
        """What happened to which machine, and what it asked for then, in order."""
        self.receivers: list[Receiver] = []
        self.wires: list[bytes] = []
        self.relayed = {"S": self.s is None, "R": False}
        self.paused: set[tuple[str, Side]] = set()
        self.gone: set[tuple[str, Side]] = set()
        self.dials = 0
        self._to_s, self._from_s = Pipe("sender to S"), Pipe("S to sender")
        self._dial()

    def _dial(self) -> None:
        """A new far connection: a new R (its flow is its own) and a new receiver behind it."""
        self.dials += 1
        self.r = self._make_r(self.dials)
        self.receiver = self._make_receiver()
        self.receivers.append(self.receiver)
        self.relayed["R"] = self.r is None
        self.paused = {at for at in self.paused if at[0] == "S"}
        self.gone = {at for at in self.gone if at == ("S", Side.NEAR)}
        self._s_to_r, self._r_to_s = Pipe("S to R"), Pipe("R to S")
        self._to_receiver, self._from_receiver = Pipe("R to receiver"), Pipe("receiver to R")
        self._from_signer = Pipe("signer to R")

    # --- Moving -----------------------------------------------------------------------------------------

    def run(self, most_steps: int = 200_000) -> Pair:
        """Until nothing moves, deadlines included: time only passes when nothing else can."""
        for _ in range(most_steps):
            self._mail_servers_speak()
            moves = self._moves()
            if moves:
                self._move(self._chance.choice(moves))
            elif not self._time_passes():
                return self
        raise AssertionError("it never ends")

    def _mail_servers_speak(self) -> None:
        said, ends = self.sender.wants()
        self._to_s.put(said)
        self._to_s.ended = self._to_s.ended or ends
        self._from_receiver.put(self.receiver.to_say)
        self.receiver.to_say = b""
        self._from_receiver.ended = self._from_receiver.ended or self.receiver.ends

    def _moves(self) -> list[Pipe]:
        readers = (
            (self._to_s, ("S", Side.NEAR)),
            (self._r_to_s, ("S", Side.FAR)),
            (self._s_to_r, ("R", Side.FAR)),
            (self._from_receiver, ("R", Side.NEAR)),
        )
        moves = [pipe for pipe, at in readers if pipe.has_news and at not in self.paused | self.gone]
        others = (self._from_s, self._to_receiver, self._from_signer)
        return moves + [pipe for pipe in others if pipe.has_news]

    def _time_passes(self) -> bool:
        due = [
            (machine.deadline, name)
            for name, machine in (("S", self.s), ("R", self.r))
            if machine is not None and machine.deadline is not None
        ]
        if not due:
            return False
        self.now, name = min(due)
        self._machine(name, DeadlineReached())
        return True

    def _move(self, pipe: Pipe) -> None:
        if pipe is self._from_signer:
            signature, pipe.octets = pipe.octets, b""
            if not self.relayed["R"]:
                self._machine("R", OfferSigned(signature))
        elif pipe.reset:
            pipe.reset_told = True
            self._arrive(pipe, None, ResetReceived)
        elif pipe.octets:
            count = self._chance.randint(1, min(len(pipe.octets), self._chance.choice((1, 30, self._most))))
            octets, pipe.octets = pipe.octets[:count], pipe.octets[count:]
            if self._tamper and self.dials == 1 and pipe in (self._s_to_r, self._r_to_s):
                octets = self._tamper(pipe is self._s_to_r, pipe.passed, octets)
            pipe.passed += count
            if octets:
                self._arrive(pipe, octets, OctetsReceived)
        else:
            pipe.end_told = True
            self._arrive(pipe, None, EndReceived)

    def _arrive(self, pipe: Pipe, octets: bytes | None, kind: type[Event]) -> None:
        if pipe is self._from_s:
            self._to_mail_server(self.sender, octets, kind)
        elif pipe is self._to_receiver:
            self._to_mail_server(self.receiver, octets, kind)
        else:
            name, side = {
                id(self._to_s): ("S", Side.NEAR),
                id(self._r_to_s): ("S", Side.FAR),
                id(self._s_to_r): ("R", Side.FAR),
                id(self._from_receiver): ("R", Side.NEAR),
            }[id(pipe)]
            event = OctetsReceived(side, octets) if octets is not None else kind(side)  # type: ignore[call-arg, arg-type]
            if self.relayed[name]:
                self._relay(name, side, octets, kind)
            else:
                self._machine(name, event)

    def _to_mail_server(self, server: Sender | Receiver, octets: bytes | None, kind: type[Event]) -> None:
        if octets is not None:
            if isinstance(server, Receiver):
                server.hears(octets)
            else:
                server.heard += octets
        elif kind is ResetReceived:
            server.was_reset = True
        else:
            server.heard_end = True
            if isinstance(server, Receiver):
                server.ends = True

    def _relay(self, name: str, side: Side, octets: bytes | None, kind: type[Event]) -> None:
        out = self._out(name, side.other)
        if octets is not None:
            out.put(octets)
        elif kind is EndReceived:
            out.ended = True
        else:
            out.reset = True

    # --- The machines -----------------------------------------------------------------------------------

    def _out(self, name: str, side: Side) -> Pipe:
        if name == "S":
            return self._from_s if side is Side.NEAR else self._s_to_r
        return self._to_receiver if side is Side.NEAR else self._r_to_s

    def _into(self, name: str, side: Side) -> Pipe:
        if name == "S":
            return self._to_s if side is Side.NEAR else self._r_to_s
        return self._from_receiver if side is Side.NEAR else self._s_to_r

    def _machine(self, name: str, event: Event) -> None:
        machine = self.s if name == "S" else self.r
        assert machine is not None
        self.log.append((name, event))
        for command in machine.handle(event, self.now):
            self.commands.append(command)
            self.log.append((name, command))
            self._execute(name, command)

    def _execute(self, name: str, command: c.Command) -> None:
        if isinstance(command, c.SendOctets):
            self._out(name, command.side).put(command.octets)
        elif isinstance(command, c.SendEnd):
            self._out(name, command.side).ended = True
        elif isinstance(command, c.SendReset):
            self._reset(name, command.side)
        elif isinstance(command, c.CloseBoth):
            for side in Side:
                self._out(name, side).ended = True
                self.gone.add((name, side))
        elif isinstance(command, c.PauseReading):
            self.paused.add((name, command.side))
        elif isinstance(command, c.ResumeReading):
            self.paused.discard((name, command.side))
        elif isinstance(command, c.SignOffer):
            self._from_signer.put(R_KEYS.key.sign(Label.OFFER, command.to_sign))
        elif isinstance(command, c.RelayInClear):
            self.relayed[name] = True
        elif isinstance(command, c.Redial):
            self._settle()
            self._reset("S", Side.FAR)
            self.wires.append(self._s_to_r.everything)
            self._dial()
            self._machine("S", Redialled())

    def _settle(self) -> None:
        """The worst case of a redial: all that S ever said still arrives before its reset does."""
        while news := [pipe for pipe in (self._s_to_r, self._to_receiver) if pipe.octets and not pipe.reset]:
            if news[0] is self._s_to_r and ("R", Side.FAR) in self.gone:
                return
            self._move(news[0])

    def _reset(self, name: str, side: Side) -> None:
        self._out(name, side).reset = True
        self.gone.add((name, side))
        self._into(name, side).octets = b""

    # --- The outcome ------------------------------------------------------------------------------------

    @property
    def decisions(self) -> list[c.NoteDecision]:
        return [command for command in self.commands if isinstance(command, c.NoteDecision)]

    @property
    def wire(self) -> bytes:
        """All that went towards R over the connection of now."""
        return self._s_to_r.everything

    @property
    def wire_back(self) -> bytes:
        return self._r_to_s.everything

    @property
    def delivered(self) -> list[bytes]:
        """By all receivers together."""
        return [mail for receiver in self.receivers for mail in receiver.delivered]


def direct(sender: Sender, receiver: Receiver) -> None:
    """The same two without any gateway."""
    ended = False
    while True:
        said, ends = sender.wants()
        sender.heard += receiver.to_say
        moved = bool(said or receiver.to_say or ends)
        receiver.to_say = b""
        if said:
            receiver.hears(said)
        ended = ended or ends
        if not moved:
            sender.heard_end = sender.heard_end or receiver.ends or ended
            receiver.heard_end = receiver.heard_end or ended
            return
