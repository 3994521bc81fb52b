"""Two streams of octets in, observations out: what passes, what is held, and whether it is safe to switch.

Watches a session from its first octet to the end of the receiver's reply to the first EHLO. It must never
alter, add or lose an octet, nor hold one for longer than the decision takes: for each direction, what was
passed and what is held is what came in, in order. What it does not understand is `Unparsed`, which means "do
not upgrade": everything held is released first, and the session goes on as if there were no gateway.
Counterparts: `dialogue` (the stages), `buffer` and `grammar` (the lines); `session` acts on what is observed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from gateway.errors import LocalMisuseError, PeerProtocolError, Reason
from gateway.policy import limits
from gateway.smtp import grammar
from gateway.smtp.buffer import LineBuffer
from gateway.smtp.dialogue import Seen, Stage, next_stage
from gateway.smtp.events import EhloReply, Observation, Passed, Role, Unparsed

_EHLO_HEAD_OCTETS = len(b"EHLO ")
_CLOSING = b"%d" % grammar.CLOSING
_BEFORE_GREETING = (Stage.GREETING, Stage.EARLY_EHLO)
_TO_RECEIVER, _TO_SENDER = True, False


class Observer:
    """Feed it what each mail server says, as it comes, until it is DECIDED or OPAQUE."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self._stage = Stage.GREETING
        self._greeting = LineBuffer(limits.GREETING_OCTETS, Reason.ODD_GREETING)
        self._ehlo = LineBuffer(limits.EHLO_LINE_OCTETS, Reason.ODD_COMMAND)
        self._reply = LineBuffer(limits.EHLO_REPLY_OCTETS, Reason.ODD_REPLY)
        self._behind_ehlo = bytearray()

    @property
    def stage(self) -> Stage:
        return self._stage

    @property
    def greeting(self) -> bytes:
        """The whole greeting; empty until it is complete."""
        complete = self._stage in (Stage.EHLO, Stage.REPLY, Stage.DECIDED)
        return self._greeting.octets if complete else b""

    @property
    def greets_with_421(self) -> bool:
        """The receiver says so in the place of its greeting, and has not said it to the end."""
        return self._stage is Stage.GREETING and self._greeting.octets_begin(_CLOSING)

    @property
    def is_within_421(self) -> bool:
        """The same, or in the place of its reply, or of a greeting that the sender has not waited for."""
        replies = self._stage is Stage.REPLY
        said = self._reply if replies else self._greeting
        return (replies or self._stage in _BEFORE_GREETING) and said.octets_begin(_CLOSING)

    @property
    def seen_from_sender(self) -> bytes:
        """What has passed from the sender: up to the end of its EHLO line. Once OPAQUE, how it began."""
        return self._ehlo.octets

    @property
    def held_from_sender(self) -> bytes:
        """What the sender said behind its EHLO; held by the sending role only."""
        return bytes(self._behind_ehlo)

    @property
    def octets_held_from_sender(self) -> int:
        """So many."""
        return len(self._behind_ehlo)

    def take_held_from_sender(self) -> bytes:
        """The same, for whoever passes it on or keeps it from now on: a session may go on for hours."""
        held = self.held_from_sender
        self._behind_ehlo.clear()
        return held

    @property
    def may_read_sender(self) -> bool:
        """False: enough is held. The reply will come whether or not the sender is read, so this ends."""
        return len(self._behind_ehlo) < limits.FIRST_FLIGHT_OCTETS

    def sender_octets(self, data: bytes) -> list[Observation]:
        """The sender said this. Raises `LocalMisuseError` once DECIDED."""
        return self._SENDER_SPEAKS[self._stage](self, data) if data else []

    def receiver_octets(self, data: bytes) -> list[Observation]:
        """The receiver said this. Raises `LocalMisuseError` once DECIDED."""
        return self._RECEIVER_SPEAKS[self._stage](self, data) if data else []

    def give_up(self) -> list[Passed]:
        """Release what is held and watch no more: an end or a reset came in before the decision."""
        self._stage = next_stage(self._role, self._stage, Seen.GIVEN_UP)
        return self._release()

    # --- The sender ----------------------------------------------------------------------------------

    def _ehlo_octets(self, data: bytes) -> list[Observation]:
        self._ehlo.add(data)
        try:
            line = self._read_ehlo_line()
        except PeerProtocolError as error:
            led = error.reason is Reason.HELO and self._is_led_to_helo()
            return self._not_understood(self._early(error.reason), Passed(_TO_RECEIVER, data), led=led)
        if line is None:
            return [Passed(_TO_RECEIVER, data)]
        self._stage = next_stage(self._role, self._stage, Seen.EHLO_COMPLETE)
        behind = self._ehlo.take_rest()
        if not behind:
            return [Passed(_TO_RECEIVER, data)]
        return [Passed(_TO_RECEIVER, data[: -len(behind)]), *self._behind_ehlo_octets(behind)]

    def _read_ehlo_line(self) -> bytes | None:
        if grammar.check_ehlo_head(self._ehlo.head(_EHLO_HEAD_OCTETS)) is None:
            return None
        line = self._ehlo.next_line()
        if line is not None:
            grammar.check_ehlo_line(line)
        return line

    def _early(self, reason: Reason) -> Reason:
        """Whoever talks before the greeting, and not EHLO or HELO, is told apart: mostly no mail server."""
        early = self._stage is Stage.GREETING and reason is not Reason.HELO
        return Reason.EARLY_TALKER if early else reason

    def _is_led_to_helo(self) -> bool:
        return self._stage is Stage.EHLO and not grammar.names_esmtp(self._greeting.octets)

    def _behind_ehlo_octets(self, data: bytes) -> list[Observation]:
        self._stage = next_stage(self._role, self._stage, Seen.BEHIND_EHLO)
        if self._stage is not Stage.OPAQUE:
            self._behind_ehlo += data
            return []
        return [
            Passed(_TO_RECEIVER, data),
            *self._release(),
            Unparsed(Reason.PIPELINED_BEHIND_EHLO),
        ]

    # --- The receiver --------------------------------------------------------------------------------

    def _greeting_octets(self, data: bytes) -> list[Observation]:
        """Passes at once, line or no line: postscreen and its like greet slowly on purpose."""
        self._greeting.add(data)
        try:
            complete = _read_reply(self._greeting, b"220", Reason.GREETING_REFUSED, Reason.ODD_GREETING)
        except PeerProtocolError as error:
            return self._not_understood(error.reason, Passed(_TO_SENDER, data), _code(error))
        if not complete:
            return [Passed(_TO_SENDER, data)]
        self._stage = next_stage(self._role, self._stage, Seen.GREETING_COMPLETE)
        rest = self._greeting.take_rest()
        if not rest:
            return [Passed(_TO_SENDER, data)]
        # A reply may follow in the same read where the EHLO came early; else it is out of turn.
        return [Passed(_TO_SENDER, data[: -len(rest)]), *self.receiver_octets(rest)]

    def _out_of_turn_octets(self, data: bytes) -> list[Observation]:
        """Behind the greeting, before the EHLO: an empty line, a 421 for a sender that idles."""
        code = grammar.CLOSING if data.startswith(_CLOSING) else None
        return self._not_understood(Reason.ODD_GREETING, Passed(_TO_SENDER, data), code)

    def _reply_octets(self, data: bytes) -> list[Observation]:
        self._reply.add(data)
        try:
            if not _read_reply(self._reply, b"250", Reason.EHLO_REFUSED, Reason.ODD_REPLY):
                return []
        except PeerProtocolError as error:
            return self._not_understood(error.reason, None, _code(error))
        if self._reply.has_rest:
            return self._not_understood(Reason.ODD_REPLY)
        self._stage = next_stage(self._role, self._stage, Seen.REPLY_COMPLETE)
        return [EhloReply(self._reply.take_all())]

    # --- Both ----------------------------------------------------------------------------------------

    def _pass_to_receiver(self, data: bytes) -> list[Observation]:
        return [Passed(_TO_RECEIVER, data)]

    def _pass_to_sender(self, data: bytes) -> list[Observation]:
        return [Passed(_TO_SENDER, data)]

    def _refuse(self, data: bytes) -> list[Observation]:
        raise LocalMisuseError("the observer has decided and takes nothing more")

    def _not_understood(
        self, reason: Reason, passed: Passed | None = None, code: int | None = None, *, led: bool = False
    ) -> list[Observation]:
        self._stage = next_stage(self._role, self._stage, Seen.NOT_UNDERSTOOD)
        return [*([passed] if passed else []), *self._release(), Unparsed(reason, code, led)]

    def _release(self) -> list[Passed]:
        to_sender, to_receiver = self._reply.take_all(), self.take_held_from_sender()
        held = (Passed(_TO_SENDER, to_sender), Passed(_TO_RECEIVER, to_receiver))
        # Whole reads, which have passed: a session may go on for hours, and there are thousands.
        self._greeting.take_all()
        self._ehlo.keep_only(limits.EHLO_LINE_OCTETS)
        return [passed for passed in held if passed.octets]

    # The parser in force is chosen by the stage, never by looking at the octets first.
    _SENDER_SPEAKS: ClassVar[Mapping[Stage, Callable[[Observer, bytes], list[Observation]]]]
    _RECEIVER_SPEAKS: ClassVar[Mapping[Stage, Callable[[Observer, bytes], list[Observation]]]]


# Behind the class: in the body of a class that is compiled its functions have no names yet.
Observer._SENDER_SPEAKS = {
    Stage.GREETING: Observer._ehlo_octets,
    Stage.EARLY_EHLO: Observer._behind_ehlo_octets,
    Stage.EHLO: Observer._ehlo_octets,
    Stage.REPLY: Observer._behind_ehlo_octets,
    Stage.DECIDED: Observer._refuse,
    Stage.OPAQUE: Observer._pass_to_receiver,
}
Observer._RECEIVER_SPEAKS = {
    Stage.GREETING: Observer._greeting_octets,
    Stage.EARLY_EHLO: Observer._greeting_octets,
    Stage.EHLO: Observer._out_of_turn_octets,
    Stage.REPLY: Observer._reply_octets,
    Stage.DECIDED: Observer._refuse,
    Stage.OPAQUE: Observer._pass_to_sender,
}


def _read_reply(lines: LineBuffer, code: bytes, refused: Reason, odd: Reason) -> bool:
    """Read on in a reply: True once its last line is complete, False if more octets are needed.

    Only the first line may carry another code and count as a refusal; later on it is odd. Heads are judged
    before their lines are complete, so that what cannot become the reply is not held until it ends. But a 421
    is read to its end: it is the last that the sender may be told.
    """
    if lines.octets_begin(_CLOSING):
        return _read_closing(lines, refused)
    if lines.at_first_line:
        grammar.check_reply_head(lines.head(grammar.REPLY_HEAD_OCTETS), code, refused, odd)
    last = lines.next_line(behind=code + b"-")
    if last is None:
        grammar.check_reply_head(lines.head(grammar.REPLY_HEAD_OCTETS), code, odd, odd)
        return False
    if not last.startswith(code + b" "):
        raise PeerProtocolError(odd, "a line of another kind within a reply")
    return True


def _read_closing(lines: LineBuffer, refused: Reason) -> bool:
    """As `_read_reply`, but it ends in a refusal: at the last line, or at what is no line of a reply."""
    try:
        line = lines.next_line(behind=_CLOSING + b"-")
    except PeerProtocolError:
        line = b""
    if line is None:
        return False
    raise PeerProtocolError(refused, str(grammar.CLOSING))


def _code(error: PeerProtocolError) -> int | None:
    refused = error.reason in (Reason.GREETING_REFUSED, Reason.EHLO_REFUSED)
    return int(error.detail) if refused else None
