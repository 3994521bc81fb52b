"""Both gateways' machines at once: what the mail servers see is what they would see of each other directly.

Any dialogue, cut anywhere, in any order of arrival; and with one octet of the wire changed, in either
direction: never a lie, never a mail twice.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.crypto.handshake import OfferForm
from gateway.crypto.padding import padme
from gateway.errors import Reason
from gateway.policy import limits
from gateway.session import commands as c
from gateway.session.events import DeadlineReached, Side
from gateway.session.receiving import ReceivingSession
from gateway.session.sending import TRY_AGAIN
from gateway.smtp.capability import VERB_LINE, OfferSize, offer_fits, split_offer
from tests.pair import Pair, Receiver, Sender
from tests.playbook import (
    EHLO,
    GREETING,
    LONG_REPLY,
    R_KEYS,
    REPLY,
    S_KEYS,
    FarReceivingGateway,
    receiving,
    sending,
)
from tests.spoken import Steps, dialogues, directly, seen

VECTORS = Path(__file__).parents[2] / "vectors"
SOME = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
MORE = settings(SOME, max_examples=60)


# --- Nobody in between changes anything ---------------------------------------------------------------------


@MORE
@given(dialogues(), st.integers(0, 2**32), st.sampled_from((REPLY, LONG_REPLY)))
def test_an_upgraded_dialogue_is_the_direct_one(steps: Steps, seed: int, reply: bytes) -> None:
    pair = Pair(Sender(steps), lambda: Receiver(reply=reply), random.Random(seed)).run()
    assert seen(pair.sender, pair.receivers) == directly(steps, reply=reply)
    assert not (pair.sender.was_reset or pair.receiver.was_reset)
    assert [d.upgraded for d in pair.decisions] == [True, True]
    assert pair.dials == 1
    assert VERB_LINE in pair.wire
    for word in (b"a@a.example", b"queued", b"QUIT\r\n"):
        assert word not in pair.wire + pair.wire_back


@SOME
@given(dialogues(), st.integers(0, 2**32))
def test_early_talkers_see_the_direct_dialogue(steps: Steps, seed: int) -> None:
    """The EHLO before the greeting; its followers behind it unasked, held at S."""
    early = [(0, EHLO), (0, b"MAIL FROM:<a@a.example>\r\n"), (3, b"QUIT\r\n")] if seed % 2 else steps
    early = [(0, EHLO), *early[1:]]
    pair = Pair(Sender(early), chance=random.Random(seed)).run()
    assert seen(pair.sender, pair.receivers) == directly(early)
    assert [d.upgraded for d in pair.decisions] == [True, True]


def signed_later(dial: int) -> ReceivingSession:
    """As in a worker: the signature comes when it comes, and whatever else happens meanwhile."""
    return ReceivingSession(receiving(label=f"R {dial}")._context)


@SOME
@given(dialogues(), st.integers(0, 2**32), st.booleans(), st.booleans())
def test_a_signature_that_comes_when_it_comes_changes_nothing(
    steps: Steps, seed: int, with_s: bool, early: bool
) -> None:
    if early:
        steps = [(0, EHLO), (0, b"MAIL FROM:<a@a.example>\r\n"), (3, b"QUIT\r\n")]
    pair = Pair(
        Sender(steps),
        chance=random.Random(seed),
        make_s=sending if with_s else lambda: None,
        make_r=signed_later,
    ).run()
    reply = pair.sender.replies[1]
    split = split_offer(reply)
    assert split.offer is None or not with_s
    pair.sender.heard = pair.sender.heard.replace(reply, split.stripped)
    assert seen(pair.sender, pair.receivers) == directly(steps)
    if with_s:
        assert [d.upgraded for d in pair.decisions] == [True, True]


@SOME
@given(dialogues(), st.integers(0, 2**32), st.sampled_from(("no R", "no S", "never", "never_offer", "own")))
def test_a_dialogue_that_is_not_upgraded_is_the_direct_one(steps: Steps, seed: int, why: str) -> None:
    pair = Pair(
        Sender(steps),
        chance=random.Random(seed),
        make_s=lambda: None if why == "no S" else sending(refusal=Reason.NEVER if why == "never" else None),
        make_r=lambda dial: (
            None
            if why == "no R"
            else receiving(may_offer=why != "never_offer", keys=S_KEYS if why == "own" else R_KEYS)
        ),
    ).run()
    sender_heard, *others = seen(pair.sender, pair.receivers)
    expected_heard, *expected = directly(steps)
    assert others == expected
    assert without_offer(sender_heard) == expected_heard  # type: ignore[arg-type]
    if why not in ("no S", "never"):
        assert sender_heard == expected_heard
    assert not any(d.upgraded or d.alarm for d in pair.decisions)


def without_offer(heard: bytes) -> bytes:
    """What a sender without a gateway hears of an R: the reply with the offer in it."""
    at = len(GREETING)
    end = heard.index(b"\r\n250 ", at) + 2
    end = heard.index(b"\r\n", end) + 2
    return heard[:at] + split_offer(heard[at:end]).stripped + heard[end:]


VECTOR_REPLIES = [
    (bytes.fromhex(entry["greeting_hex"] or GREETING.hex()), bytes.fromhex(entry["ehlo_hex"] or REPLY.hex()))
    for entry in json.loads((VECTORS / "ehlo_replies.json").read_text())["entries"]
]


@pytest.mark.parametrize("with_r", [True, False])
def test_every_known_mail_server_is_heard_as_it_speaks(with_r: bool) -> None:
    """With a gateway behind it or without, clean replies and odd ones."""
    steps = [(1, EHLO), (2, b"NOOP\r\n"), (3, b"QUIT\r\n")]
    upgraded = 0
    for number, (greeting, reply) in enumerate(VECTOR_REPLIES):
        pair = Pair(
            Sender(steps),
            lambda greeting=greeting, reply=reply: Receiver(greeting, reply),
            random.Random(number),
            make_r=lambda dial: receiving() if with_r else None,
        ).run()
        if reply.splitlines()[-1][3:4] == b"-":
            continue  # a printed reply that never ends: it is held for as long as its sender waits for it
        assert seen(pair.sender, pair.receivers) == directly(steps, greeting, reply), greeting
        both = [decision.upgraded for decision in pair.decisions] == [True, True]
        clean = greeting.startswith(b"220") and reply.startswith(b"250") and reply.endswith(b"\r\n")
        if with_r and clean and pair.decisions[0].reason not in (Reason.ODD_GREETING, Reason.ODD_REPLY):
            assert both == (offer_fits(reply) is not None), reply
        upgraded += both
    assert (upgraded > 100) == with_r


# --- What a listener sees of it ----------------------------------------------------------------------------


class Listener:
    """Adds up the flights of one gateway's channel: by its writes, its turns and its silences alone."""

    def __init__(self, pair: Pair, name: str, begins_behind: int) -> None:
        """`begins_behind`: octets of its first write in the channel that are no records."""
        self.flights: list[int] = []
        self._size = 0
        in_channel = silent = False
        for whose, what in pair.log:
            if whose != name:
                continue
            silent = isinstance(what, DeadlineReached) or (silent and isinstance(what, c.SendOctets))
            if not in_channel:
                skip = begins_behind
                in_channel = self._opens(what)
                if not in_channel:
                    continue
            if isinstance(what, c.SendOctets) and what.side is Side.NEAR:
                self._ends()
            elif isinstance(what, c.SendOctets) and what.side is Side.FAR:
                self._size += len(what.octets) - skip
                skip = 0
                if silent:
                    self._ends()
                elif self._size < limits.LARGE_FLIGHT_OCTETS:
                    assert self._size == padme(self._size) >= limits.FLIGHT_FLOOR_OCTETS
        self._ends()

    @staticmethod
    def _opens(what: object) -> bool:
        if not isinstance(what, c.SendOctets) or what.side is not Side.FAR:
            return False
        return what.octets.startswith((VERB_LINE, b"\x82"))

    def _ends(self) -> None:
        if self._size:
            assert self._size == padme(self._size) >= limits.FLIGHT_FLOOR_OCTETS
            self.flights.append(self._size)
        self._size = 0


@MORE
@given(dialogues(), st.integers(0, 2**32), st.sampled_from((REPLY, LONG_REPLY)))
def test_only_padme_steps_are_seen_of_any_dialogue(steps: Steps, seed: int, reply: bytes) -> None:
    pair = Pair(Sender(steps), lambda: Receiver(reply=reply), random.Random(seed), most_octets=65_536).run()
    assert [d.upgraded for d in pair.decisions] == [True, True]
    form = OfferForm.FULL if offer_fits(reply) is OfferSize.FULL else OfferForm.SHORT
    assert Listener(pair, "S", len(VERB_LINE) + 3 + form.answer_octets).flights
    assert Listener(pair, "R", 0).flights


def test_a_large_mail_is_one_flight_of_one_padme_step() -> None:
    """Read in pieces of any size, with less than 5 ms between them, it shows its padded size alone."""
    content = bytes(300_000)
    steps = [(1, EHLO), (2, b"BDAT %d LAST\r\n" % len(content) + content), (3, b"QUIT\r\n")]
    pair = Pair(Sender(steps), chance=random.Random(7), most_octets=65_536).run()
    assert pair.delivered == [content]
    largest = max(Listener(pair, "S", len(VERB_LINE) + 3 + OfferForm.FULL.answer_octets).flights)
    assert padme(len(content)) <= largest <= padme(len(content)) * 1.07


# --- One octet of the wire is changed -----------------------------------------------------------------------

MAIL_STEPS: Steps = [
    (1, EHLO),
    (2, b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nBDAT 5 LAST\r\nhello"),
    (5, b"QUIT\r\n"),
]


class Flip:
    """Changes one octet of the first connection; `did` tells whether it came to that."""

    def __init__(self, to_receiver: bool, at: int, mask: int) -> None:
        self._to_receiver, self._at, self._mask = to_receiver, at, mask
        self.did = False

    def __call__(self, to_receiver: bool, gone: int, octets: bytes) -> bytes:
        at = self._at - gone
        if to_receiver is not self._to_receiver or not 0 <= at < len(octets):
            return octets
        self.did = True
        return octets[:at] + bytes((octets[at] ^ self._mask,)) + octets[at + 1 :]


def _lengths() -> tuple[int, int]:
    pair = Pair(Sender(MAIL_STEPS)).run()
    return len(pair.wire), len(pair.wire_back)


WIRE, WIRE_BACK = _lengths()
CLEAR_BACK = len(FarReceivingGateway().reply) + len(GREETING)


class ByReference(Receiver):
    """Fetches what a BURL names (RFC 4468), and has taken the mail with that."""

    def _command(self, line: bytes) -> None:
        if line.startswith(b"BURL "):
            self._deliver(line)
        else:
            super()._command(line)


def test_a_mail_that_is_taken_by_reference_arrives_once() -> None:
    """R's first record is damaged: what has gone out by then goes out again over the second connection."""
    steps = [(1, EHLO), (2, MAIL_STEPS[1][1].split(b"BDAT")[0] + b"BURL imap://x LAST\r\n"), (5, b"QUIT\r\n")]
    pair = Pair(Sender(steps), ByReference, tamper=Flip(to_receiver=False, at=CLEAR_BACK, mask=0x80)).run()
    assert (pair.dials, pair.delivered) == (2, [b"BURL imap://x LAST"])


@MORE
@given(st.booleans(), st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.integers(0, 2**32))
def test_one_changed_octet_never_makes_a_lie(to_receiver: bool, where: float, mask: int, seed: int) -> None:
    at = int(where * (WIRE if to_receiver else WIRE_BACK))
    flip = Flip(to_receiver, at, mask)
    pair = Pair(Sender(MAIL_STEPS), chance=random.Random(seed), tamper=flip).run()
    check_the_truth(pair)
    if flip.did and not to_receiver and at < CLEAR_BACK:
        assert all(not d.upgraded or pair.dials > 1 for d in pair.decisions if d.alarm)
    if flip.did and to_receiver and at >= len(EHLO) + len(VERB_LINE):
        assert_all_is_well_or_told(pair)


def check_the_truth(pair: Pair) -> None:
    """Delivered once or not at all, as it was sent; told as delivered only if it was."""
    assert pair.delivered in ([], [b"hello"])
    queued = pair.sender.heard.count(b"250 2.0.0 Ok: queued")
    assert queued <= len(pair.delivered)


def assert_all_is_well_or_told(pair: Pair) -> None:
    expected = directly(MAIL_STEPS)
    well = (pair.sender.heard, pair.delivered) == (expected[0], [b"hello"])
    heard = pair.sender.heard.removesuffix(TRY_AGAIN)
    told = pair.sender.was_reset or heard != pair.sender.heard
    assert well or told or stalled(pair)
    assert isinstance(expected[0], bytes)
    assert expected[0].startswith(heard)


def stalled(pair: Pair) -> bool:
    """A changed length: a frame that never becomes whole. The mail servers' own timers end that."""
    machines = [machine for machine in (pair.s, pair.r) if machine is not None]
    channels = [machine._channel for machine in machines if machine.state.value == "channel"]
    return any(channel is not None and channel._frames.held_octets > 0 for channel in channels)


@pytest.mark.parametrize("to_receiver", [True, False])
def test_one_changed_octet_all_along_the_channel(to_receiver: bool) -> None:
    """From the verb on (or from the end of the reply on), every so many octets, one bit."""
    begin, end = (len(EHLO), WIRE) if to_receiver else (CLEAR_BACK, WIRE_BACK)
    step = 19 if to_receiver else 9
    changed = 0
    for at in range(begin, end, step):
        flip = Flip(to_receiver, at, 0x10)
        pair = Pair(Sender(MAIL_STEPS), chance=random.Random(at), tamper=flip).run()
        if not flip.did:
            continue  # so cut, the flight took fewer records
        changed += 1
        check_the_truth(pair)
        assert_all_is_well_or_told(pair)
        told = [
            x
            for x in pair.commands
            if isinstance(x, c.NoteFact) or (isinstance(x, c.NoteDecision) and x.alarm)
        ]
        assert told or stalled(pair) or at < len(EHLO) + len(VERB_LINE), f"nobody was told of octet {at}"
    assert changed > 40


class Cut:
    """Everything behind a place of the first connection is lost: the wire falls silent."""

    def __init__(self, to_receiver: bool, at: int) -> None:
        self._to_receiver, self._at = to_receiver, at

    def __call__(self, to_receiver: bool, gone: int, octets: bytes) -> bytes:
        return octets[: max(self._at - gone, 0)] if to_receiver is self._to_receiver else octets


@SOME
@given(st.booleans(), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32))
def test_a_wire_that_falls_silent_never_makes_a_lie(to_receiver: bool, where: float, seed: int) -> None:
    at = int(where * (WIRE if to_receiver else WIRE_BACK))
    pair = Pair(Sender(MAIL_STEPS), chance=random.Random(seed), tamper=Cut(to_receiver, at)).run()
    check_the_truth(pair)


class Insert:
    """Clear octets put in at one place of the first connection."""

    def __init__(self, to_receiver: bool, at: int, octets: bytes) -> None:
        self._to_receiver, self._at, self._octets = to_receiver, at, octets
        self.did = False

    def __call__(self, to_receiver: bool, gone: int, octets: bytes) -> bytes:
        at = self._at - gone
        if self.did or to_receiver is not self._to_receiver or not 0 <= at < len(octets):
            return octets
        self.did = True
        return octets[:at] + self._octets + octets[at:]


@SOME
@given(st.integers(0, 2**32), st.data())
def test_a_forged_reply_behind_the_verb_never_reaches_the_sender(seed: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(CLEAR_BACK, WIRE_BACK - 1))
    forged = Insert(False, at, b"250 2.0.0 Ok: queued\r\n")
    pair = Pair(Sender(MAIL_STEPS), chance=random.Random(seed), tamper=forged).run()
    check_the_truth(pair)
    assert_all_is_well_or_told(pair)


@SOME
@given(st.integers(0, 2**32), st.data())
def test_a_forged_command_in_the_channel_never_reaches_the_receiver(seed: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(len(EHLO) + len(VERB_LINE), WIRE - 1))
    forged = Insert(True, at, b"RCPT TO:<eve@e.example>\r\n")
    pair = Pair(Sender(MAIL_STEPS), chance=random.Random(seed), tamper=forged).run()
    check_the_truth(pair)
    assert not any(b"eve@e" in receiver.heard for receiver in pair.receivers)
