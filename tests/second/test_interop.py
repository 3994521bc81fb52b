"""The second implementation and the product talk to each other, each as S and as R.

What the mail servers see is what they would see without gateways; what a listener sees is what the text says,
to the octet.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.crypto.records import RecordType
from gateway.session.events import EndReceived, ResetReceived, Side
from gateway.session.sending import SendingSession
from tests.pair import Pair, Receiver, Sender
from tests.playbook import EHLO, GREETING, LONG_REPLY, REPLY, always_ignorable, receiving, sending
from tests.second import lines
from tests.second.dressed import Alone, Dressed, second_r, second_s
from tests.second.line import Line, frames
from tests.second.records import FULL_RECORD, PAD, padme
from tests.spoken import MAIL, Steps, dialogues, directly, seen

SOME = settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Way:
    """Who is S and who is R."""

    name: str
    s: Callable[..., Any]
    r: Callable[..., Any]


WAYS = [Way("second S", second_s, receiving), Way("second R", sending, second_r)]
BOTH_WAYS = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
BOTH_FORMS = pytest.mark.parametrize("reply", [REPLY, LONG_REPLY], ids=["full", "short"])


def pair_of(way: Way, steps: Steps = MAIL, reply: bytes = REPLY, seed: int = 0, **more: Any) -> Pair:
    return Pair(
        Sender(steps),
        lambda: Receiver(reply=reply),
        random.Random(seed),
        make_s=way.s,
        make_r=lambda dial: way.r(label=f"R {dial}"),
        **more,
    )


def is_upgraded(pair: Pair) -> bool:
    """Over one connection, and nothing of the dialogue can be read on the wire."""
    hidden = not any(word in pair.wire + pair.wire_back for word in (b"@a.example", b"queued", b"QUIT\r\n"))
    return hidden and pair.dials == 1 and pair.wire.startswith(EHLO + lines.VERB)


# --- Dialogues ----------------------------------------------------------------------------------------------


@BOTH_WAYS
@BOTH_FORMS
@SOME
@given(steps=dialogues(), seed=st.integers(0, 2**32))
def test_any_dialogue_is_the_direct_one(way: Way, reply: bytes, steps: Steps, seed: int) -> None:
    """Cut anywhere, in any order of arrival."""
    pair = pair_of(way, steps, reply, seed).run()
    assert seen(pair.sender, pair.receivers) == directly(steps, reply=reply)
    assert not (pair.sender.was_reset or pair.receiver.was_reset)
    assert is_upgraded(pair)


@BOTH_WAYS
@SOME
@given(steps=dialogues(), seed=st.integers(0, 2**32))
def test_so_is_one_whose_sender_does_not_wait(way: Way, steps: Steps, seed: int) -> None:
    early: Steps = [(0, EHLO), *steps[1:]]
    pair = pair_of(way, early, seed=seed).run()
    assert seen(pair.sender, pair.receivers) == directly(early)
    assert is_upgraded(pair)


@BOTH_WAYS
@SOME
@given(seed=st.integers(0, 2**32), line=st.integers(0, 2**32), reply=st.sampled_from((REPLY, LONG_REPLY)))
def test_one_octet_of_the_wire_is_changed(way: Way, seed: int, line: int, reply: bytes) -> None:
    """Never a lie, never a mail twice: what the sender has been told is delivered has been, once."""
    place = random.Random(line)
    to_receiver, at = place.random() < 0.5, place.randrange(3500)
    mask = 1 << place.randrange(8)

    def flip(towards: bool, gone: int, octets: bytes) -> bytes:
        index = at - gone
        if towards is not to_receiver or not 0 <= index < len(octets):
            return octets
        return octets[:index] + bytes([octets[index] ^ mask]) + octets[index + 1 :]

    pair = pair_of(way, reply=reply, seed=seed, tamper=flip).run()
    told = pair.sender.heard.count(b"queued")
    assert pair.delivered in ([], [b"hello"])
    assert told <= len(pair.delivered)
    assert all(b"hello" not in wire for wire in pair.wires)


@BOTH_WAYS
def test_sources_of_more_than_one_full_record(way: Way) -> None:
    content = random.Random(1).randbytes(150_000)
    steps: Steps = [*MAIL[:2], (4, b"BDAT %d LAST\r\n" % len(content) + content), MAIL[3]]
    pair = pair_of(way, steps, most_octets=70_000).run()
    assert pair.delivered == [content]
    assert is_upgraded(pair)


@BOTH_WAYS
def test_what_is_to_be_ignored_is_ignored(way: Way) -> None:
    """Unknown types with content, and flags that mean nothing, from either side."""
    odd = ((0x40, b"?"), (0xFF, b""), (PAD, b""))
    if way.s is second_s:
        pair = Pair(
            Sender(MAIL),
            make_s=lambda: second_s(extra=odd, flags=0xFFFF),  # type: ignore[arg-type,return-value]
            make_r=lambda dial: receiving(entropy=always_ignorable("R")),
        ).run()
    else:
        pair = Pair(
            Sender(MAIL),
            make_s=lambda: sending(entropy=always_ignorable("S")),
            make_r=lambda dial: second_r(extra=odd, flags=0xFFFE),  # type: ignore[arg-type,return-value]
        ).run()
    assert seen(pair.sender, pair.receivers) == directly(MAIL)
    assert is_upgraded(pair)


# --- Two gateways without mail servers ----------------------------------------------------------------------


def line_of(way: Way, reply: bytes = REPLY) -> Line:
    return Line(way.s(), way.r(), reply)


@BOTH_WAYS
@BOTH_FORMS
def test_the_offer_is_where_the_text_says(way: Way, reply: bytes) -> None:
    """The size rule, the two forms and all their lines, whoever writes them; both take them out again."""
    r = Alone(way.r())
    r.from_near(GREETING).from_far(EHLO)
    r.from_near(reply)
    offer = r.far[len(GREETING) + len(reply) :]
    assert len(offer) == (1892 if reply is REPLY else 245)
    line = line_of(way, reply)
    assert line.s.near == GREETING + reply
    line.opened()
    assert line.r.near == EHLO + b"MAIL\r\n"


@pytest.mark.parametrize("length", [618, 619, 620, 1998, 1999, 2000, 2001])
def test_the_size_rule_at_its_edges(length: int) -> None:
    filling = b"250-%b\r\n" % (b"A" * 200)
    reply = b"250-mx.b.example\r\n"
    while len(reply) + len(filling) + 8 < length:
        reply += filling
    reply += b"250 " + b"B" * (length - len(reply) - 6) + b"\r\n"
    assert len(reply) == length
    lengths = []
    for r in (receiving(), second_r()):
        one = Alone(r).from_near(GREETING).from_far(EHLO).from_near(reply)
        lengths.append(len(one.far) - len(GREETING) - length)
    assert lengths[0] == lengths[1] == (1892 if length < 620 else 245 if length < 2000 else 0)


# --- Padding ------------------------------------------------------------------------------------------------

FLIGHTS: list[tuple[list[int], list[list[int]]]] = [
    ([30], [[512]]),
    ([1000], [[1024]]),
    ([1003], [[1088]]),
    ([30, 30], [[512], [512]]),
    ([20_000], [[16_406], [4_074]]),
    ([16_500], [[], [16_406, 1_002]]),
    ([10_000_000], [[16_406] * 607, [16_406] * 16 + [2_678]]),
]
"""The table of docs/protocol.md, 8.6: octets of the mail server, frames on the wire by write."""


def spoken(one: Alone, sizes: list[int]) -> list[list[int]]:
    writes = []
    for size in sizes:
        one.far = b""
        one.from_near(bytes(size))
        writes.append(frames(one.far))
    quiet = 0
    while one.machine.deadline is not None and quiet < 3:
        one.far, quiet = b"", quiet + 1
        one.time_passes()
        if one.far:
            writes.append(frames(one.far))
    return writes


@pytest.mark.parametrize(("sizes", "expected"), FLIGHTS[:-1], ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("who", ["S", "R"])
def test_both_pad_as_the_text_says(sizes: list[int], expected: list[list[int]], who: str) -> None:
    for way in WAYS:
        line = line_of(way).opened()
        one, other = (line.s, line.r) if who == "S" else (line.r, line.s)
        # What the other side says ends the flight that has begun.
        other.from_near(b"!")
        line.back() if who == "S" else line.forth()
        assert spoken(one, sizes) == expected, way.name


def test_the_largest_flight_of_the_text() -> None:
    sizes, expected = FLIGHTS[-1]
    line = line_of(WAYS[1]).opened()
    line.r.from_near(b"!")
    line.back()
    assert spoken(line.s, sizes) == expected


@SOME
@given(
    st.lists(
        st.tuples(st.sampled_from(("S", "R", "silence")), st.integers(1, 40) | st.integers(1, 40_000)),
        max_size=6,
    ),
    st.sampled_from(("S", "R")),
)
def test_both_write_the_same_frames(turns: list[tuple[str, int]], who: str) -> None:
    """The same octets, turns and silences give the same lengths on the wire, to the octet."""
    writes: list[list[list[int]]] = []
    for way in WAYS:
        line = line_of(way).opened()
        writes.append([])
        for speaker, size in [*turns, ("silence", 0)]:
            if speaker == "silence":
                for one in (line.s, line.r):
                    while one.machine.deadline is not None:
                        one.time_passes()
            else:
                (line.s if speaker == "S" else line.r).from_near(bytes(size))
            there, back = line.forth(), line.back()
            writes[-1].append(frames(there if who == "S" else back))
    assert writes[0] == writes[1]


@BOTH_WAYS
def test_the_first_flight_is_padded_behind_verb_and_answer(way: Way) -> None:
    line = line_of(way)
    line.s.from_near(bytes(100))
    there = line.forth()
    assert sum(frames(there[len(lines.VERB) :])[1:]) == 512
    assert sum(frames(line.back())) == 512
    line.s.from_near(b"".join(b"NOOP %d\r\n" % number for number in range(3000)))
    assert padme(sum(frames(line.s.far))) == sum(frames(line.s.far)) or line.s.machine.deadline is not None


# --- Rekeying -----------------------------------------------------------------------------------------------


@BOTH_WAYS
def test_both_rekey_after_so_many_records(way: Way) -> None:
    """More than 16,384 records, which the one seals and the other opens; and the dialogue goes on."""
    line = line_of(way).opened()
    one = line.s
    if isinstance(one.machine, Dressed):
        one.machine.gateway.writer.full_record = 1
        one.from_near(b"a" * 16_500)
        one.time_passes()
        one.machine.gateway.writer.full_record = FULL_RECORD
    else:
        assert isinstance(one.machine, SendingSession)
        assert one.machine._channel is not None
        records = one.machine._channel._records
        one.far += b"".join(records.seal(RecordType.PAD) for _ in range(16_500))
    assert len(frames(one.far)) >= 16_500
    line.forth()
    one.from_near(b"behind")
    line.forth()
    line.r.from_near(b"reply")
    line.back()
    assert line.r.near.endswith(b"behind")
    assert line.s.near.endswith(b"reply")
    assert not line.r.was_reset


# --- Ends ---------------------------------------------------------------------------------------------------


@BOTH_WAYS
@pytest.mark.parametrize("who", ["S", "R"])
def test_ends_and_resets_arrive_as_what_they_were(way: Way, who: str) -> None:
    for event, side_of in ((EndReceived(Side.NEAR), "ended"), (ResetReceived(Side.NEAR), "was_reset")):
        line = line_of(way).opened()
        one, other = (line.s, line.r) if who == "S" else (line.r, line.s)
        one.happens(event)
        line.forth() if who == "S" else line.back()
        assert Side.NEAR in getattr(other, side_of)
        assert (Side.NEAR in other.was_reset) == (side_of == "was_reset")
        if side_of == "ended":  # the other direction goes on
            other.from_near(b"still here")
            line.back() if who == "S" else line.forth()
            assert one.near.endswith(b"still here")


@BOTH_WAYS
@pytest.mark.parametrize("who", ["S", "R"])
def test_an_end_that_came_in_no_record_is_none(way: Way, who: str) -> None:
    line = line_of(way).opened()
    other = line.r if who == "S" else line.s
    other.far_ends()
    assert other.was_reset == set(Side)
    assert Side.NEAR not in other.ended


# --- Dialling again -----------------------------------------------------------------------------------------


def another_greeting(first: bytes, then: bytes, reply: bytes = REPLY) -> Callable[[], Receiver]:
    greetings = [first]
    return lambda: Receiver(greetings.pop() if greetings else then, reply)


@BOTH_WAYS
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_handshake_that_fails_is_tried_again(way: Way, times: int) -> None:
    """The answer does not reach R whole, on the first connection or on each."""

    class Tampered(Pair):
        def _dial(self) -> None:
            super()._dial()
            tamper = self._tamper
            if tamper and self.dials <= times:
                put = self._s_to_r.put

                def damaged(octets: bytes) -> None:
                    at = octets.find(lines.VERB)
                    put(
                        octets
                        if at < 0
                        else octets[: at + 40] + bytes([octets[at + 40] ^ 1]) + octets[at + 41 :]
                    )

                self._s_to_r.put = damaged  # type: ignore[assignment, method-assign]

    pair = Tampered(
        Sender(MAIL),
        make_s=way.s,
        make_r=lambda dial: way.r(label=f"R {dial}"),
        tamper=lambda towards, gone, octets: octets,
    ).run()
    assert seen(pair.sender, pair.receivers) == directly(MAIL)
    assert pair.dials == min(times, 2) + 1
    assert pair.delivered == [b"hello"]
    assert (b"@a.example" in pair.wire) == (times > 1)
    assert not any(b"hello" in wire for wire in pair.wires)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("then", "same"),
    [
        (b"220 mx.b.example ESMTP another id\r\n", True),
        (b"220 other.example ESMTP ready 4711\r\n", False),
        (b"421 mx.b.example ESMTP ready 4711\r\n", False),
    ],
)
def test_only_the_same_mail_server_will_do(way: Way, then: bytes, same: bool) -> None:
    answer_at = len(EHLO) + len(lines.VERB) + 50

    def flip(towards: bool, gone: int, octets: bytes) -> bytes:
        at = answer_at - gone
        if not towards or not 0 <= at < len(octets):
            return octets
        return octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :]

    pair = Pair(
        Sender(MAIL),
        another_greeting(GREETING, then),
        make_s=way.s,
        make_r=lambda dial: way.r(label=f"R {dial}"),
        tamper=flip,
    ).run()
    assert pair.dials == 2
    if same:
        assert pair.delivered == [b"hello"]
        assert b"@a.example" not in pair.wire
    else:
        assert pair.delivered == []
        assert pair.sender.heard.startswith(GREETING + REPLY + b"421 4.7.0")
        assert pair.sender.heard_end


def test_the_product_has_no_part_in_the_second_implementation() -> None:
    """Neither code of `gateway` nor its libraries of primitives."""
    here = Path(__file__).parent
    theirs = ("dressed", "crafted", "line", "resuming", "meeting")
    own = [path for path in here.glob("*.py") if not path.stem.startswith(("test_", *theirs))]
    assert len(own) >= 9
    for path in own:
        found = set(re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
        assert not found & {"gateway", "nacl", "cryptography"}, path
