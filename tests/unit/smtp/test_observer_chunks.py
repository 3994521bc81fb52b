"""The observer with any octets, in any chunks, in any order: nothing is lost, nothing is altered."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gateway.smtp.events import EhloReply, Role
from gateway.smtp.observer import Observer
from tests.unit.smtp.watch import BOTH, EHLO, GREETING, REPLY, R, S, Speech, Watch

RECEIVER_SAYS = st.sampled_from(
    [
        GREETING,
        REPLY,
        b"220-a\r\n",
        b"220 b\r\n",
        b"250-c\r\n",
        b"250 d\r\n",
        b"\r",
        b"\n",
        b"500 e\r\n",
        b"2",
    ]
)
SENDER_SAYS = st.sampled_from([EHLO, b"ehlo a\r\n", b"HELO b\r\n", b"EH", b"MAIL\r\n", b"\r", b"\n", b"x"])
CHUNK = st.one_of(
    st.tuples(st.just(R), st.one_of(RECEIVER_SAYS, st.binary(max_size=6))),
    st.tuples(st.just(S), st.one_of(SENDER_SAYS, st.binary(max_size=6))),
)


@BOTH
@given(speeches=st.lists(CHUNK, max_size=12))
def test_nothing_is_lost_or_altered(role: Role, speeches: list[Speech]) -> None:
    done = Watch(Observer(role))
    for from_sender, octets in speeches:
        if isinstance(done.verdict, EhloReply):
            return
        done.speak(from_sender, octets)
        done.check_books()


@BOTH
@given(
    streams=st.tuples(st.lists(RECEIVER_SAYS, max_size=6), st.lists(SENDER_SAYS, max_size=4)),
    cut_receiver=st.lists(st.integers(0, 200), max_size=6),
    cut_sender=st.lists(st.integers(0, 80), max_size=4),
    order=st.randoms(use_true_random=False),
)
def test_nothing_is_lost_with_any_chunking_and_interleaving(
    role: Role,
    streams: tuple[list[bytes], list[bytes]],
    cut_receiver: list[int],
    cut_sender: list[int],
    order: object,
) -> None:
    parts: list[list[Speech]] = []
    for from_sender, said, cuts in ((R, streams[0], cut_receiver), (S, streams[1], cut_sender)):
        octets = b"".join(said)
        edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
        parts.append([(from_sender, octets[a:b]) for a, b in itertools.pairwise(edges)])
    speeches: list[Speech] = []
    while any(parts):
        speeches.append(order.choice([part for part in parts if part]).pop(0))  # type: ignore[attr-defined]
    done = Watch(Observer(role))
    for from_sender, octets in speeches:
        if isinstance(done.verdict, EhloReply):
            return
        done.speak(from_sender, octets)
        done.check_books()


@BOTH
@given(greeting_cuts=st.lists(st.integers(0, 26)), reply_cuts=st.lists(st.integers(0, 60)))
def test_a_good_dialogue_is_understood_with_any_chunking(
    role: Role, greeting_cuts: list[int], reply_cuts: list[int]
) -> None:
    done = Watch(Observer(role))
    for octets, cuts, from_sender in ((GREETING, greeting_cuts, R), (EHLO, [], S), (REPLY, reply_cuts, R)):
        edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
        for a, b in itertools.pairwise(edges):
            if octets[a:b]:
                done.speak(from_sender, octets[a:b])
    assert done.verdict == EhloReply(REPLY)
    done.check_books()
