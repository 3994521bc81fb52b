"""An observer of two mail servers, and the books that are kept of what it lets pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gateway.smtp.dialogue import Stage
from gateway.smtp.events import EhloReply, Observation, Passed, Role, Unparsed
from gateway.smtp.observer import Observer

GREETING = b"220 mx.example.org ESMTP\r\n"
EHLO = b"EHLO client.example.org\r\n"
REPLY = b"250-mx.example.org\r\n250-SIZE 1000\r\n250 DSN\r\n"
BOTH = pytest.mark.parametrize("role", list(Role))

Speech = tuple[bool, bytes]  # from the sender?, octets
S, R = True, False


@dataclass
class Watch:
    """An observer with its books: what was fed and what became of it."""

    observer: Observer
    fed: dict[bool, bytearray] = field(default_factory=lambda: {S: bytearray(), R: bytearray()})
    passed: dict[bool, bytearray] = field(default_factory=lambda: {S: bytearray(), R: bytearray()})
    reply: bytes = b""
    verdict: Unparsed | EhloReply | None = None

    def speak(self, from_sender: bool, octets: bytes) -> list[Observation]:
        self.fed[from_sender] += octets
        observer = self.observer
        observations = observer.sender_octets(octets) if from_sender else observer.receiver_octets(octets)
        for at, one in enumerate(observations):
            if isinstance(one, Passed):
                assert one.octets
                self.passed[one.to_receiver] += one.octets
            else:
                assert at == len(observations) - 1, "a verdict comes last"
                assert self.verdict is None, "one verdict"
                self.verdict = one
        if isinstance(self.verdict, EhloReply):
            self.reply = self.verdict.octets
        return observations

    def speeches(self, speeches: list[Speech]) -> Watch:
        for from_sender, octets in speeches:
            if isinstance(self.verdict, EhloReply):
                break
            self.speak(from_sender, octets)
        return self

    def check_books(self) -> None:
        held_reply = bytes(self.observer._reply.octets)
        assert self.passed[S] + self.observer.held_from_sender == self.fed[S]
        assert self.passed[R] + held_reply + self.reply == self.fed[R]
        if isinstance(self.verdict, Unparsed):
            assert self.observer.stage is Stage.OPAQUE
            assert not self.observer.held_from_sender
            assert not held_reply


def watch(role: Role, *speeches: Speech) -> Watch:
    done = Watch(Observer(role)).speeches(list(speeches))
    done.check_books()
    return done


def octet_by_octet(from_sender: bool, octets: bytes) -> list[Speech]:
    return [(from_sender, octets[at : at + 1]) for at in range(len(octets))]
