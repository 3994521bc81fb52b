"""Frames out of any chunking, and nothing but errors out of anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.crypto.frames import Frame, FrameKind, FrameReader, frame
from gateway.errors import LocalMisuseError, PeerProtocolError, Reason

ANSWERS = st.sampled_from([220, 1324]).map(lambda length: Frame(FrameKind.ANSWER, bytes(length)))
RECORDS = st.binary(min_size=19, max_size=400).map(lambda body: Frame(FrameKind.RECORD, body))
FRAMES = st.lists(st.one_of(RECORDS, ANSWERS), max_size=6)


def _wire(frames: list[Frame]) -> bytes:
    return b"".join(frame(each.kind, each.body) for each in frames)


@given(FRAMES, st.data())
def test_any_chunking_gives_the_same_frames(frames: list[Frame], data: st.DataObject) -> None:
    wire = _wire(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    reader = FrameReader()
    read: list[Frame] = []
    for begins, ends in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        read += reader.feed(wire[begins:ends])
    assert read == frames
    assert reader.held_octets == 0


def test_octet_by_octet_and_the_largest_frame() -> None:
    body = bytes(index % 256 for index in range(65535))
    reader = FrameReader()
    read: list[Frame] = []
    wire = frame(FrameKind.RECORD, body)
    for index in range(len(wire)):
        assert reader.held_octets == index
        read += reader.feed(wire[index : index + 1])
    assert read == [Frame(FrameKind.RECORD, body)]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_garbage_gives_frames_or_an_error_whatever_the_chunking(garbage: bytes, cuts: list[int]) -> None:
    outcomes = set()
    for chunks in ([], sorted(min(cut, len(garbage)) for cut in cuts)):
        reader = FrameReader()
        outcome: Reason | None = None
        try:
            for begins, ends in zip([0, *chunks], [*chunks, len(garbage)], strict=True):
                reader.feed(garbage[begins:ends])
        except PeerProtocolError as error:
            outcome = error.reason
        outcomes.add(outcome)
        assert reader.held_octets <= 3 + 65535
    assert len(outcomes) == 1


@pytest.mark.parametrize("octet", range(0x80))
def test_a_clear_octet_is_an_error_at_once(octet: int) -> None:
    reader = FrameReader()
    reader.feed(frame(FrameKind.RECORD, bytes(19)))
    with pytest.raises(PeerProtocolError) as caught:
        reader.feed(bytes((octet,)))
    assert caught.value.reason is Reason.CLEAR_OCTETS_IN_CHANNEL


def test_an_smtp_reply_behind_a_whole_frame_is_an_error() -> None:
    with pytest.raises(PeerProtocolError) as caught:
        FrameReader().feed(frame(FrameKind.RECORD, bytes(19)) + b"250 OK\r\n")
    assert caught.value.reason is Reason.CLEAR_OCTETS_IN_CHANNEL


@pytest.mark.parametrize("octet", [0x80, *range(0x83, 0x100)])
def test_unknown_frames_are_refused_at_their_header(octet: int) -> None:
    with pytest.raises(PeerProtocolError) as caught:
        FrameReader().feed(bytes((octet, 0, 20)))
    assert caught.value.reason is Reason.BAD_FRAME


@pytest.mark.parametrize(
    "header",
    ["820000", "820012", "810000", "8100db", "8100dd", "81052b", "81052d", "81ffff"],
)
def test_lengths_that_no_message_has_are_refused_before_their_body(header: str) -> None:
    with pytest.raises(PeerProtocolError) as caught:
        FrameReader().feed(bytes.fromhex(header))
    assert caught.value.reason is Reason.BAD_FRAME


def test_a_reader_that_failed_is_dead() -> None:
    reader = FrameReader()
    with pytest.raises(PeerProtocolError):
        reader.feed(b"x")
    with pytest.raises(LocalMisuseError):
        reader.feed(frame(FrameKind.RECORD, bytes(19)))


def test_what_is_cut_off_is_told() -> None:
    reader = FrameReader()
    wire = frame(FrameKind.RECORD, bytes(19))
    assert reader.feed(wire[:-1]) == []
    assert reader.held_octets == len(wire) - 1


def test_a_body_that_does_not_fit_is_our_mistake() -> None:
    with pytest.raises(LocalMisuseError):
        frame(FrameKind.RECORD, bytes(65536))
