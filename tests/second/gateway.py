"""What both roles do: ends, the channel, clear text (docs/protocol.md, 8.5 and 9).

Sans-IO. The methods `from_near`, `from_far`, `near_ended`, `far_ended`, `near_was_reset`, `far_was_reset` and
`clock` tell what happened; `out` collects what to do, in order:

    ("near", octets), ("far", octets)      hand on
    ("end near",), ("end far",)            FIN
    ("reset near",), ("reset far",)        RST
    ("stop reading near",), ("read near",) as they say
    ("dial",)                              reset the far connection, and make a new one
    ("alarm", word), ("notice", word)      for the operator
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from tests.second import records
from tests.second.messages import read_params
from tests.second.noise import Refused
from tests.second.records import CLOSE, DATA, PARAMS, RESET, STATEMENT, Frames, Key, Writer

Do = tuple[str, bytes] | tuple[str, str] | tuple[str]


class Phase(Enum):
    OPENING = auto()
    """Greeting, EHLO and reply."""
    OFFERED = auto()
    """The offer has been made or taken; no verb yet."""
    ANSWERED = auto()
    """Behind the verb, before the peer has proven itself."""
    CHANNEL = auto()
    CLEAR = auto()
    REDIAL = auto()
    """S: dialled again; the greeting and the reply have not come yet."""
    PUT_OFF = auto()
    """S: a 421 is handed on, until it is whole; nothing of the sender is, any more."""
    DEAD = auto()


@dataclass
class Gateway:
    phase: Phase = field(default=Phase.OPENING, init=False)
    out: list[Do] = field(default_factory=list, init=False)
    refused: str | None = field(default=None, init=False)
    """The check that the peer failed last."""
    now: float = field(default=0.0, init=False)
    writer: Writer = field(init=False)
    reader: Key = field(init=False)
    frames: Frames = field(init=False)
    _read_ended: bool = field(default=False, init=False)
    """The peer's CLOSE or RESET has come."""
    _write_ended: bool = field(default=False, init=False)
    _deadline: float | None = field(default=None, init=False)

    @property
    def deadline(self) -> float | None:
        """When `clock` wants to be called."""
        if self.phase is Phase.CHANNEL:
            return self.writer.silent_at
        return None if self.phase is Phase.DEAD else self._deadline

    def say(self, what: str, argument: bytes | str = "") -> None:
        if isinstance(argument, str):
            self.out.append((what, argument) if argument else (what,))
        elif argument:
            self.out.append((what, argument))

    def clear(self) -> None:
        self.phase = Phase.CLEAR

    def near_in_channel(self, octets: bytes) -> None:
        self.say("far", self.writer.data(octets, self.now))

    def end_in_channel(self, type_: int) -> None:
        """The near side has ended, or was reset."""
        if self._write_ended:
            self.say("reset far")
            self.phase = Phase.DEAD
            return
        self.say("far", self.writer.small((type_, b"")))
        self._write_ended = True
        self.say("end far")
        if type_ == RESET:
            self.phase = Phase.DEAD

    def far_in_channel(self, octets: bytes) -> None:
        try:
            self.frames.feed(octets)
            while frame := self.frames.next():
                if self._read_ended:
                    raise Refused("octets behind the end")
                self.take_record(*self.reader.open(frame[1]))
                if self.phase is Phase.DEAD:
                    return
            if self._read_ended and self.frames.pending():
                raise Refused("octets behind the end")
        except Refused as error:
            self.refused = str(error)
            self.channel_failed()

    def take_record(self, type_: int, content: bytes) -> None:
        if type_ == DATA and content:
            self.say("far", self.writer.turn())
            self.say("near", content)
        elif type_ == CLOSE:
            self._read_ended = True
            self.say("end near")
        elif type_ == RESET:
            self._read_ended = True
            self.say("reset near")
            self.say("end far")
            self.phase = Phase.DEAD
        elif type_ == PARAMS:
            read_params(content)  # refuses what is none
        elif type_ == STATEMENT:
            self.take_statement(content)

    def take_statement(self, content: bytes) -> None:
        """R reads it and does nothing."""

    def channel_failed(self) -> None:
        self.say("reset near")
        self.say("reset far")
        self.phase = Phase.DEAD

    def silence(self) -> None:
        at = self.writer.silent_at if self.phase is Phase.CHANNEL else None
        if at is not None and self.now >= at:
            self.say("far", self.writer.silent())

    def begin_records(self, sending: bytes, receiving: bytes, rekey_after: int, full_record: int) -> None:
        self.writer = Writer(Key(sending, rekey_after), full_record)
        self.reader = Key(receiving, rekey_after)
        self.frames = Frames(records.RECORDS_ONLY)
