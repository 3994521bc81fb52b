"""Both machines as hypothesis drives them: any order of deliveries, cuts, ends, resets, deadlines, tampering.

The rules choose what happens next; the mail servers at the two ends are `pair.Sender` and `pair.Receiver`,
and what they may see is stated as invariants that hold at every step, not only at the end. At the end all
that is left is delivered, and where nobody has interfered the dialogue is the one without gateways.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.errors import Reason
from gateway.session import commands as c
from gateway.session.receiving import CANNOT_GO_ON
from gateway.session.sending import TRY_AGAIN
from gateway.smtp.capability import VERB_LINE
from tests.pair import Pair, Pipe, Receiver, Sender, direct
from tests.playbook import EHLO, LONG_REPLY, R_KEYS, REPLY, S_KEYS, receiving, sending

SECRETS = (b"a@a.example", b"b@b.example", b"first mail", b"second mail", b"queued")
"""Of the dialogue behind the EHLO: what a listener must not see once there is a channel."""
ENVELOPE = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"
Steps = list[tuple[int, bytes]]


def lockstep() -> Steps:
    lines = [*ENVELOPE.splitlines(True), b"DATA\r\n", b"first mail\r\n.\r\n", b"QUIT\r\n"]
    return [(1, EHLO), *((2 + at, line) for at, line in enumerate(lines))]


def pipelined() -> Steps:
    return [(1, EHLO), (2, ENVELOPE + b"DATA\r\n"), (5, b"first mail\r\n.\r\n"), (6, b"QUIT\r\n")]


def chunks() -> Steps:
    """Content before any reply to its envelope."""
    mails = [ENVELOPE + b"BDAT %d LAST\r\n" % len(mail) + mail for mail in (b"first mail", b"second mail")]
    return [(1, EHLO), (2, mails[0]), (5, mails[1] + b"QUIT\r\n")]


def early() -> Steps:
    """Everything at once, before the greeting."""
    return [(0, EHLO + ENVELOPE + b"BDAT 10 LAST\r\nfirst mail"), (5, b"QUIT\r\n")]


def rash() -> Steps:
    """Content behind a DATA line that nobody has answered yet, against the rules."""
    return [(1, EHLO), (2, ENVELOPE + b"DATA\r\nfirst mail\r\n.\r\n"), (6, b"QUIT\r\n")]


def idle() -> Steps:
    return [(1, EHLO), (2, b"NOOP\r\n"), (3, b"QUIT\r\n")]


DIALOGUES = {
    "lockstep": lockstep,
    "pipelined": pipelined,
    "chunks": chunks,
    "early": early,
    "rash": rash,
    "idle": idle,
}
MAILS = {"lockstep": 1, "pipelined": 1, "chunks": 2, "early": 1, "rash": 1, "idle": 0}
SEES_THE_OFFER = ("no S", "never")
"""Where nobody takes the offer out of the reply; `test_pair` compares these with the offer taken out."""
GATEWAYS = (*["both"] * 12, "no S", "no R", "never", "never_offer", "own")


class Stepped(Pair):
    """A pair whose next move is the test's choice, and in which time passes when the test says so."""

    @property
    def pipes(self) -> list[Pipe]:
        return self._moves()

    @property
    def chance(self) -> random.Random:
        return self._chance

    def speak(self) -> None:
        self._mail_servers_speak()

    def deliver(self, pipe: Pipe, most: int) -> None:
        self._most = most
        self._move(pipe)

    @property
    def far_pipes(self) -> tuple[Pipe, Pipe]:
        return self._s_to_r, self._r_to_s

    def let_time_pass(self) -> bool:
        return self._time_passes()

    def mail_server_resets(self, sender: bool) -> None:
        """It is gone: what it has not read is lost, and its gateway is told."""
        pipe = self._to_s if sender else self._from_receiver
        pipe.octets, pipe.reset = b"", True
        if sender:
            self.sender.was_reset = True
        else:
            self.receiver.was_reset = True

    @property
    def sender_has_ended(self) -> bool:
        return self._to_s.ended

    @property
    def receiver_has_ended(self) -> bool:
        return self._from_receiver.ended

    def mail_server_ends(self, sender: bool) -> None:
        pipe = self._to_s if sender else self._from_receiver
        pipe.ended = True


class TwoGateways(RuleBasedStateMachine):
    """One SMTP session over two gateways and a wire on which somebody may act, once."""

    @initialize(
        name=st.sampled_from(sorted(DIALOGUES)),
        gateways=st.sampled_from(GATEWAYS),
        long=st.booleans(),
        seed=st.integers(0, 2**16),
    )
    def begin(self, name: str, gateways: str, long: bool, seed: int) -> None:
        self.name, self.gateways = name, gateways
        self.reply = LONG_REPLY if long else REPLY
        self.interfered = False
        self.server_acted = self.receiver_ended = False
        refusal = Reason.NEVER if gateways == "never" else None
        self.pair = Stepped(
            Sender(DIALOGUES[name]()),
            lambda: Receiver(reply=self.reply),
            random.Random(seed),
            make_s=lambda: None if gateways == "no S" else sending(refusal=refusal),
            make_r=lambda dial: (
                None
                if gateways == "no R"
                else receiving(
                    may_offer=gateways != "never_offer",
                    keys=S_KEYS if gateways == "own" else R_KEYS,
                    label=f"R {dial}",
                )
            ),
        )
        sender, receiver = Sender(DIALOGUES[name]()), Receiver(reply=self.reply)
        direct(sender, receiver)
        self.heard_directly, self.told_directly = sender.heard, receiver.heard
        self.mails = receiver.delivered
        assert len(self.mails) == MAILS[name]

    # --- What happens ---------------------------------------------------------------------------------

    @rule(which=st.integers(0, 5), most=st.sampled_from((1, 7, 60, 512, 4096)))
    def something_arrives(self, which: int, most: int) -> None:
        self.pair.speak()
        moves = self.pair.pipes
        if moves:
            self.pair.deliver(moves[which % len(moves)], most)

    @rule(count=st.integers(2, 12))
    def much_arrives(self, count: int) -> None:
        for which in range(count):
            self.something_arrives(which, 4096)
            self.check()

    @precondition(lambda self: not self.pair.pipes)
    @rule()
    def a_deadline_comes(self) -> None:
        self.pair.speak()
        if not self.pair.pipes:
            self.pair.let_time_pass()

    @precondition(lambda self: not self.interfered and not self.server_acted)
    @rule(to_receiver=st.booleans(), where=st.integers(0, 4000), mask=st.integers(1, 255))
    def an_octet_of_the_wire_is_changed(self, to_receiver: bool, where: int, mask: int) -> None:
        """Towards the sender in clear as well, where greeting and reply pass; towards the receiver in the
        channel alone: of what passes there in clear nobody can promise anything."""
        pipe = self.pair.far_pipes[0 if to_receiver else 1]
        if pipe.octets and not pipe.reset and (self._in_channel or not to_receiver):
            at = where % len(pipe.octets)
            changed = bytes((pipe.octets[at] ^ mask,))
            pipe.octets = pipe.octets[:at] + changed + pipe.octets[at + 1 :]
            self.interfered = True

    @precondition(lambda self: not self.interfered and not self.server_acted)
    @rule(
        to_receiver=st.booleans(),
        where=st.integers(0, 4000),
        words=st.sampled_from(
            (b"250 2.0.0 Ok: queued\r\n", b"RSET\r\n", b"\x82\x00\x13" + bytes(19), b"\x81", b"\n")
        ),
    )
    def octets_are_put_into_the_wire(self, to_receiver: bool, where: int, words: bytes) -> None:
        pipe = self.pair.far_pipes[0 if to_receiver else 1]
        if self._in_channel and not pipe.reset and not pipe.ended:
            at = where % (len(pipe.octets) + 1)
            pipe.octets = pipe.octets[:at] + words + pipe.octets[at:]
            self.interfered = True

    @precondition(lambda self: not self.interfered and not self.server_acted)
    @rule(to_receiver=st.booleans(), reset=st.booleans(), lost=st.booleans())
    def the_wire_is_cut(self, to_receiver: bool, reset: bool, lost: bool) -> None:
        """A FIN or a reset that no gateway sent; what was under way may be lost."""
        pipe = self.pair.far_pipes[0 if to_receiver else 1]
        if self._in_channel and not (pipe.reset or pipe.ended):
            if lost or reset:
                pipe.octets = b""
            pipe.reset, pipe.ended = reset, not reset
            self.interfered = True

    @precondition(lambda self: not self.interfered and not self.server_acted)
    @rule(sender=st.booleans(), reset=st.booleans())
    def a_mail_server_goes_away(self, sender: bool, reset: bool) -> None:
        self.server_acted = True
        self.receiver_ended = not sender and not reset
        if reset:
            self.pair.mail_server_resets(sender)
        else:
            self.pair.mail_server_ends(sender)

    # --- What must hold at every step -----------------------------------------------------------------

    @property
    def _in_channel(self) -> bool:
        """S has said its verb over the connection of now."""
        return VERB_LINE in self.pair.wire

    @invariant()
    def nothing_is_lost_doubled_altered_or_reordered(self) -> None:
        pair = self.pair
        if self.gateways not in SEES_THE_OFFER:
            heard = pair.sender.heard.removesuffix(TRY_AGAIN).removesuffix(CANNOT_GO_ON)
            # An end before the reply is complete lets pass what was held of it, lines of an offer included.
            given_up = self.server_acted and b"XNIGHTMAIL" in heard
            if not self.interfered and not given_up:
                assert self.heard_directly.startswith(heard)
        for receiver in pair.receivers:
            # A receiver that ended behind its reply is relayed to in clear, a verb under way included.
            heard = receiver.heard.partition(VERB_LINE)[0] if self.receiver_ended else receiver.heard
            if not self.interfered:
                assert self.told_directly.startswith(heard)

    @invariant()
    def every_mail_arrives_at_most_once_and_as_it_was_sent(self) -> None:
        delivered = self.pair.delivered
        assert delivered == self.mails[: len(delivered)]
        assert self.pair.sender.heard.count(b"Ok: queued") <= len(delivered)

    @invariant()
    def nothing_but_frames_leaves_behind_the_verb(self) -> None:
        if not self._in_channel:
            return
        wire = self.pair.wire
        for words in SECRETS:
            assert words not in wire
        frames_in(wire[wire.index(VERB_LINE) + len(VERB_LINE) :])

    @invariant()
    def content_waits_for_the_confirmation(self) -> None:
        """Until S has heard a record that verified, R's server has heard no content."""
        if self.pair.s is None or self.pair.s.state.value != "confirming":
            return
        for mail in (b"first mail", b"second mail"):
            assert mail not in self.pair.receiver.heard

    @invariant()
    def an_end_in_the_channel_is_one_that_a_mail_server_made(self) -> None:
        """A FIN that somebody put on the wire would else cut a session where it suits him."""
        pair = self.pair
        if self.server_acted or not self._both_upgraded:
            return
        if pair.receiver.heard_end:
            assert pair.sender_has_ended
        if pair.sender.heard_end and not pair.sender.heard.endswith(TRY_AGAIN):
            assert pair.receiver_has_ended

    @property
    def _both_upgraded(self) -> bool:
        return [one.upgraded for one in self.pair.decisions] == [True, True]

    @invariant()
    def an_alarm_has_a_reason(self) -> None:
        if not self.interfered and not self.server_acted:
            assert not [one for one in self.pair.commands if isinstance(one, c.NoteDecision) and one.alarm]

    # --- The end --------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        self._come_to_the_end()
        if self.interfered or self.server_acted:
            return
        pair = self.pair
        assert pair.receiver.heard == self.told_directly
        assert pair.delivered == self.mails
        assert not (pair.sender.was_reset or pair.receiver.was_reset)
        if self.gateways not in SEES_THE_OFFER:
            assert pair.sender.heard == self.heard_directly
        upgraded = self.gateways == "both"
        assert [one.upgraded for one in pair.decisions].count(True) == (2 if upgraded else 0)
        assert self._in_channel == upgraded

    def check(self) -> None:
        """All invariants, between two deliveries of one rule."""
        self.nothing_is_lost_doubled_altered_or_reordered()
        self.every_mail_arrives_at_most_once_and_as_it_was_sent()
        self.nothing_but_frames_leaves_behind_the_verb()
        self.content_waits_for_the_confirmation()
        self.an_end_in_the_channel_is_one_that_a_mail_server_made()
        self.an_alarm_has_a_reason()

    def _come_to_the_end(self) -> None:
        """Whatever is left, in an order of chance; time passes when nothing else can."""
        for _ in range(5_000):
            self.pair.speak()
            if moves := self.pair.pipes:
                self.pair.deliver(self.pair.chance.choice(moves), 4096)
            elif not self.pair.let_time_pass():
                return
            self.check()
        raise AssertionError("it never ends")


def frames_in(octets: bytes) -> None:
    """Whole frames, and one that is still under way: nothing else."""
    at = 0
    while at < len(octets):
        assert octets[at] in (0x81, 0x82), "an octet that is of no frame"
        at += 3 + int.from_bytes(octets[at + 1 : at + 3], "big")
    assert re.match(rb"\x81", octets) or not octets


TestTwoGateways = TwoGateways.TestCase
TestTwoGateways.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


# --- The same without a search: each dialogue in many orders, with one act at a place of chance -----------


ACTS: dict[str, Callable[[TwoGateways, random.Random], None]] = {
    "nothing": lambda two, chance: None,
    "cut": lambda two, chance: two.the_wire_is_cut(chance.random() < 0.5, False, chance.random() < 0.5),
    "reset": lambda two, chance: two.the_wire_is_cut(chance.random() < 0.5, True, True),
    "changed": lambda two, chance: two.an_octet_of_the_wire_is_changed(
        chance.random() < 0.5, chance.randrange(4000), chance.randrange(1, 256)
    ),
    "put in": lambda two, chance: two.octets_are_put_into_the_wire(
        chance.random() < 0.5, chance.randrange(4000), b"250 2.0.0 Ok: queued\r\n"
    ),
    "gone": lambda two, chance: two.a_mail_server_goes_away(chance.random() < 0.5, chance.random() < 0.5),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("name", DIALOGUES)
def test_in_many_orders(name: str, act: str) -> None:
    for seed in range(16):
        chance = random.Random(f"{name} {act} {seed}")
        two = TwoGateways()
        two.begin(name, "both", seed % 4 == 0, seed)
        for _ in range(chance.randrange(60)):
            two.something_arrives(chance.randrange(6), chance.choice((60, 512, 4096)))
            two.check()
        for _ in range(40):  # until it can be done: some acts need a channel, some need octets under way
            if act == "nothing" or two.interfered or two.server_acted:
                break
            ACTS[act](two, chance)
            two.something_arrives(chance.randrange(6), 512)
            two.check()
        two.teardown()
