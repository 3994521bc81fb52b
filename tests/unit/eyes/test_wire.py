"""Segments put in order, round trips counted, words found; and a capture file read."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from gateway.errors import EnvironmentFailureError
from gateway.eyes import wire
from gateway.eyes.capture import LINK_LINUX_COOKED
from gateway.eyes.wire import ACK, FIN, RST, SYN, Assembler, Endpoint, Segment, WireSession

CLIENT = Endpoint("10.11.0.10", 40025)
SERVER = Endpoint("10.12.0.10", 25)
FIRST_UP = 1_000
FIRST_DOWN = 77_000


class Talk:
    """Writes segments of one connection with true sequence numbers."""

    def __init__(self, first_up: int = FIRST_UP, first_down: int = FIRST_DOWN) -> None:
        self.next = {True: first_up, False: first_down}
        self.time = 0.0
        self.segments: list[Segment] = []
        self.say(True, b"", SYN)
        self.say(False, b"", SYN | ACK)

    def say(self, to_server: bool, octets: bytes, flags: int = ACK) -> Segment:
        self.time += 0.001
        source, destination = (CLIENT, SERVER) if to_server else (SERVER, CLIENT)
        ack = self.next[not to_server] % 2**32 if flags & ACK else None
        segment = Segment(self.time, source, destination, flags, self.next[to_server] % 2**32, octets, ack)
        self.next[to_server] += len(octets) + bool(flags & (SYN | FIN))
        self.segments.append(segment)
        return segment


def session_of(segments: list[Segment]) -> WireSession:
    assembler = Assembler()
    for segment in segments:
        assembler.take(segment)
    (session,) = assembler.sessions
    return session


def test_both_directions_in_order() -> None:
    talk = Talk()
    talk.say(False, b"220 hi\r\n")
    talk.say(True, b"EHLO a\r\n")
    session = session_of(talk.segments)
    assert (session.client, session.server) == (CLIENT, SERVER)
    assert session.from_client == b"EHLO a\r\n"
    assert session.from_server == b"220 hi\r\n"
    assert session.complete
    assert not session.was_reset


@pytest.mark.parametrize("first", [FIRST_UP, 2**32 - 5_000])
def test_any_order_overlap_and_repetition_give_the_same_octets(first: int) -> None:
    dice = random.Random(1)
    text = bytes(dice.randrange(256) for _ in range(20_000))
    talk = Talk(first)
    begin = talk.next[True]
    pieces = []
    position = 0
    while position < len(text):
        length = dice.randrange(1, 900)
        # Each piece reaches back over the last one, and some come twice.
        start = max(0, position - dice.randrange(0, 100))
        pieces.append((start, text[start : position + length]))
        position += length
    pieces += dice.sample(pieces, 10)
    # Late by a few, as on a lossy line; a capture is never in random order as a whole.
    pieces.sort(key=lambda piece: piece[0] + dice.randrange(0, 4_000))
    segments = talk.segments + [
        Segment(1.0, CLIENT, SERVER, ACK, (begin + start) % 2**32, octets) for start, octets in pieces
    ]
    session = session_of(segments)
    assert session.from_client == text
    assert session.complete


def test_a_hole_is_told() -> None:
    talk = Talk()
    talk.say(True, b"EHLO a\r\n")
    lost = talk.say(True, b"MAIL FROM:<x@a.test>\r\n")
    talk.say(True, b"DATA\r\n")
    session = session_of([segment for segment in talk.segments if segment is not lost])
    assert session.from_client == b"EHLO a\r\n"
    assert not session.complete


def heard_without(lost: Segment, talk: Talk) -> WireSession:
    return session_of([segment for segment in talk.segments if segment is not lost])


@pytest.mark.parametrize("flags", [FIN | ACK, ACK], ids=["ended", "acknowledged"])
@pytest.mark.parametrize("up", [True, False])
def test_a_hole_with_nothing_behind_it_is_told(flags: int, up: bool) -> None:
    talk = Talk()
    talk.say(up, b"EHLO a\r\n")
    lost = talk.say(up, b"all that there was to hear\r\n")
    talk.say(up == bool(flags & FIN), b"", flags)
    assert heard_without(lost, talk).complete is False
    assert session_of(talk.segments).complete


def test_an_end_that_was_acknowledged_is_no_hole() -> None:
    talk = clear_dialogue()
    talk.say(True, b"")
    talk.say(False, b"", RST | ACK)
    assert session_of(talk.segments).complete


def test_a_direction_whose_beginning_was_not_heard_is_a_hole() -> None:
    talk = clear_dialogue()
    assert heard_without(talk.segments[1], talk).complete is False
    only_up = [segment for segment in talk.segments if segment.source == CLIENT]
    assert session_of(only_up).complete is False
    assert session_of(talk.segments[:1]).complete, "nobody has answered"


def test_nothing_is_done_for_what_waits_behind_a_hole() -> None:
    class Untouched(dict[int, bytes]):
        def __iter__(self) -> Iterator[int]:
            raise AssertionError("looked through, for nothing: with each packet, as many times as there are")

        items = __iter__  # type: ignore[assignment]

    direction = wire.Direction(base=0, early=Untouched())
    assert direction.take(100, b"behind a hole") == b""
    assert not direction.complete


@pytest.mark.parametrize(("up", "down"), [(3_000_000_000, 2_000_000_000), (FIRST_UP + 40, 9)])
def test_two_connections_with_the_same_ports_at_once_are_told_apart(up: int, down: int) -> None:
    """A capture of all interfaces of a gateway; on the mail server itself one kernel chooses the numbers."""
    inside, outside = clear_dialogue(), sealed_dialogue(first=(up, down))
    assembler = Assembler()
    mixed = [one for both in itertools.zip_longest(inside.segments, outside.segments) for one in both if one]
    for segment in mixed:
        assembler.take(segment)
    first, second = assembler.sessions
    assert first.from_client == b"EHLO a\r\nMAIL\r\nRCPT\r\nDATA\r\ntext\r\n.\r\nQUIT\r\n"
    assert second.from_client.startswith(b"EHLO a\r\nXNIGHTMAIL\r\n" + frame(900))
    assert first.complete
    assert second.complete


def test_same_ports_again_is_another_session_and_a_repeated_syn_is_not() -> None:
    first, second = Talk(), Talk(first_up=9_999_999)
    assembler = Assembler()
    for segment in [first.segments[0], *first.segments, *second.segments]:
        assembler.take(segment)
    assert len(assembler.sessions) == 2


def test_a_connection_whose_beginning_was_not_seen_is_left_out() -> None:
    assert Assembler().take(Talk().say(True, b"DATA\r\n")) is None


def test_a_reset_is_seen() -> None:
    talk = Talk()
    talk.say(False, b"", RST)
    assert session_of(talk.segments).was_reset


def clear_dialogue() -> Talk:
    talk = Talk()
    talk.say(False, b"220 hi\r\n")
    talk.say(True, b"EHLO a\r\n")
    talk.say(False, b"250-b\r\n")
    talk.say(False, b"250 SIZE\r\n")
    talk.say(True, b"MAIL\r\nRCPT\r\nDATA\r\n")
    talk.say(False, b"250 ok\r\n250 ok\r\n354 go\r\n")
    talk.say(True, b"text\r\n")
    talk.say(True, b".\r\nQUIT\r\n")
    talk.say(False, b"250 ok\r\n221 bye\r\n")
    talk.say(True, b"", FIN | ACK)
    talk.say(False, b"", FIN | ACK)
    return talk


def test_round_trips_are_the_times_the_client_waited() -> None:
    assert wire.round_trips(session_of(clear_dialogue().segments)) == 3


def test_retransmissions_are_no_round_trips() -> None:
    talk = clear_dialogue()
    again = [
        Segment(9.0, s.source, s.destination, s.flags, s.seq, s.octets) for s in talk.segments if s.octets
    ]
    assert wire.round_trips(session_of(talk.segments + again)) == 3


def frame(octets: int) -> bytes:
    return b"\x82" + octets.to_bytes(2, "big") + bytes(octets)


def sealed_dialogue(*, starttls_like: bool = False, first: tuple[int, int] = (FIRST_UP, FIRST_DOWN)) -> Talk:
    talk = Talk(*first)
    talk.say(False, b"220 hi\r\n")
    talk.say(True, b"EHLO a\r\n")
    talk.say(False, b"250-b\r\n250 XNIGHTMAIL 1 1/1 xyz\r\n")
    if starttls_like:
        talk.say(True, b"STARTTLS\r\n")
        talk.say(False, b"220 go\r\n")
    talk.say(True, b"XNIGHTMAIL\r\n" + frame(900) + frame(60))
    talk.say(False, frame(90))
    talk.say(True, frame(500))
    talk.say(False, frame(70))
    talk.say(True, frame(19))
    talk.say(False, frame(19))
    return talk


def test_the_last_record_of_a_direction_only_ends_it() -> None:
    assert wire.round_trips(session_of(sealed_dialogue().segments)) == 3


def test_an_extra_round_trip_is_counted() -> None:
    assert wire.round_trips(session_of(sealed_dialogue(starttls_like=True).segments)) == 4


def test_a_last_record_that_came_along_with_the_last_words_counts_with_them() -> None:
    talk = Talk()
    talk.say(False, b"220 hi\r\n")
    talk.say(True, b"EHLO a\r\n")
    talk.say(False, b"250 XNIGHTMAIL 1 1/1 xyz\r\n")
    talk.say(True, b"XNIGHTMAIL\r\n" + frame(900))
    talk.say(False, frame(90) + frame(19))
    talk.say(True, frame(19))
    assert wire.round_trips(session_of(talk.segments)) == 2


def test_words_are_found_over_packet_borders_and_in_any_case() -> None:
    talk = Talk()
    talk.say(True, b"subject: MOON")
    talk.say(True, b"LIT\r\n")
    session = session_of(talk.segments)
    assert wire.found_words(session, {"subject": b"moonlit", "body": b"sun"}) == {"subject"}


def pcap_of(segments: list[Segment], path: Path) -> Path:
    """Written by hand, so that the reader is not tested against its own library."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, LINK_LINUX_COOKED))
        for frame_octets, when in _frames(segments):
            file.write(
                struct.pack("<IIII", int(when), int(when % 1 * 1e6), len(frame_octets), len(frame_octets))
            )
            file.write(frame_octets)
    return path


def _frames(segments: list[Segment]) -> Iterator[tuple[bytes, float]]:
    for segment in segments:
        six = ":" in segment.source.address
        head = IPv6 if six else IP
        packet = (
            head(src=segment.source.address, dst=segment.destination.address)
            / TCP(
                sport=segment.source.port,
                dport=segment.destination.port,
                flags=segment.flags,
                seq=segment.seq,
                ack=segment.ack or 0,
            )
            / segment.octets
        )
        yield bytes(14) + (b"\x86\xdd" if six else b"\x08\x00") + bytes(packet), segment.time
    yield bytes(14) + b"\x08\x06" + bytes(28), 99.0  # ARP


@pytest.mark.parametrize("six", [False, True])
def test_a_capture_file_is_read(tmp_path: Path, six: bool) -> None:
    talk = clear_dialogue()
    if six:
        other = {CLIENT: Endpoint("2001:db8:11::10", 40025), SERVER: Endpoint("2001:db8:12::10", 25)}
        talk.segments = [
            Segment(s.time, other[s.source], other[s.destination], s.flags, s.seq, s.octets, s.ack)
            for s in talk.segments
        ]
    (session,) = wire.sessions(pcap_of(talk.segments, tmp_path / "x.pcap"))
    assert session.from_client.startswith(b"EHLO a\r\nMAIL")
    assert session.from_server.endswith(b"221 bye\r\n")
    assert session.complete
    assert session.began == pytest.approx(0.001, abs=1e-5)


def test_what_began_too_early_is_left_out(tmp_path: Path) -> None:
    assert wire.sessions(pcap_of(clear_dialogue().segments, tmp_path / "x.pcap"), since=0.0015) == []


def test_another_link_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 147)
    path.write_bytes(head + struct.pack("<IIII", 1, 0, 4, 4) + b"1234")
    with pytest.raises(EnvironmentFailureError, match="link type 147"):
        wire.sessions(path)


def test_what_is_no_capture_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    for octets in (b"", b"\xd4", b"hello, world, this is a text\n" * 9, b"\x1f\x8b\x00\x00rubbish"):
        path.write_bytes(octets)
        with pytest.raises(EnvironmentFailureError, match="no capture file"):
            wire.sessions(path)
    with pytest.raises(EnvironmentFailureError, match="cannot be read: No such file"):
        wire.sessions(tmp_path / "none.pcap")
    with pytest.raises(EnvironmentFailureError, match="cannot be read: Is a directory"):
        wire.sessions(tmp_path)


def ng_block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def ng_of(frames: list[tuple[bytes, float]], link: int) -> bytes:
    """A pcapng file, by its specification."""
    file = ng_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    file += ng_block(1, struct.pack("<HHI", link, 0, 262_144))
    for octets, when in frames:
        high, low = divmod(int(when * 1e6), 2**32)
        file += ng_block(6, struct.pack("<IIIII", 0, high, low, len(octets), len(octets)) + octets)
    return file


LINKS = {
    "ethernet": (1, bytes(12) + b"\x08\x00"),
    "vlan": (1, bytes(12) + b"\x81\x00\x00\x07\x08\x00"),
    "vlan in vlan": (1, bytes(12) + b"\x88\xa8\x00\x07\x81\x00\x00\x07\x08\x00"),
    "raw": (101, b""),
    "loopback": (0, b"\x02\0\0\0"),
    "cooked": (113, bytes(14) + b"\x08\x00"),
    "cooked, vlan": (113, bytes(14) + b"\x81\x00\x00\x07\x08\x00"),
    "cooked 2": (276, b"\x08\x00" + bytes(18)),
}


@pytest.mark.parametrize("name", LINKS)
def test_captures_of_every_usual_tool_are_read(tmp_path: Path, name: str) -> None:
    link, before = LINKS[name]
    # Frames of Ethernet are filled up to 60 octets: that is no octet of the session.
    frames = [
        ((before + octets[16:]).ljust(60, b"\0") if link == 1 else before + octets[16:], when)
        for octets, when in _frames(clear_dialogue().segments)
        if octets[14:16] == b"\x08\x00"
    ]
    path = tmp_path / "x.pcapng"
    path.write_bytes(ng_of(frames, link))
    (session,) = wire.sessions(path)
    assert session.from_client == b"EHLO a\r\nMAIL\r\nRCPT\r\nDATA\r\ntext\r\n.\r\nQUIT\r\n"
    assert session.complete
    assert session.began == pytest.approx(0.001, abs=1e-5)


def test_the_largest_packet_is_read_to_its_last_octet(tmp_path: Path) -> None:
    talk = Talk()
    talk.say(True, b"x" * 65_495)
    talk.say(True, b"QUIT\r\n")
    (session,) = wire.sessions(pcap_of(talk.segments, tmp_path / "x.pcap"))
    assert session.from_client.endswith(b"xQUIT\r\n")


def test_a_capture_whose_times_say_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    octets = next(_frames(clear_dialogue().segments))[0][16:]
    path.write_bytes(ng_of([], 101) + ng_block(3, struct.pack("<I", len(octets)) + octets))
    with pytest.raises(EnvironmentFailureError, match="a capture without times"):
        wire.sessions(path)
    path.write_bytes(ng_of([(octets, 300_000_000_000.0)], 101))
    with pytest.raises(EnvironmentFailureError, match="damaged"):
        wire.sessions(path)


@given(st.binary(max_size=300), st.integers(0, 300), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_damaged_capture_is_read_or_refused(junk: bytes, at: int, ng: bool) -> None:
    frames = [(octets[16:], when) for octets, when in _frames(clear_dialogue().segments)]
    whole = (
        ng_of(frames, 101)
        if ng
        else PCAP_RAW
        + b"".join(struct.pack("<IIII", 1, 0, len(octets), len(octets)) + octets for octets, _ in frames)
    )
    damaged = io.BytesIO(whole[:at] + junk + whole[at + len(junk) :])
    with contextlib.suppress(EnvironmentFailureError):
        for _ in wire.segments(damaged):
            pass


def test_packets_that_are_cut_off_are_passed_over(tmp_path: Path) -> None:
    whole = [octets[16:] for octets, _ in _frames(clear_dialogue().segments)]
    cut = [octets[:size] for octets in whole[:2] for size in range(len(octets))]
    path = tmp_path / "x.pcap"
    path.write_bytes(PCAP_RAW + b"".join(_record(octets) for octets in [*cut, *whole]))
    assert wire.sessions(path)[-1].from_client.startswith(b"EHLO a\r\n")


def _record(octets: bytes) -> bytes:
    return struct.pack("<IIII", 1, 0, len(octets), len(octets)) + octets


@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
def test_a_damaged_stream_is_not_taken_for_its_end(tmp_path: Path, damage: str) -> None:
    # Of noise, which is packed as it is: so it is read in many pieces.
    packed = gzip.compress(
        PCAP_RAW + b"".join(_record(random.Random(at).randbytes(999)) for at in range(300))
    )
    half = len(packed) // 2
    path = tmp_path / "x.pcap.gz"
    path.write_bytes(packed[:half] + (b"" if damage == "cut off" else b"\xff" * half))
    with pytest.raises(EnvironmentFailureError, match="a damaged capture file"):
        list(wire.segments(path))


PCAP_RAW = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 101)


def test_what_was_forgotten_does_not_come_again() -> None:
    talk = clear_dialogue()
    again = [
        Segment(9.0, s.source, s.destination, s.flags, s.seq, s.octets) for s in talk.segments if s.octets
    ]
    assembler = Assembler()
    said = b""
    for segment in [*talk.segments, *again]:
        found = assembler.take(segment)
        assert found is not None
        session, packet = found
        said += packet.fresh if packet.to_server else b""
        session.forget()
    assert said == b"EHLO a\r\nMAIL\r\nRCPT\r\nDATA\r\ntext\r\n.\r\nQUIT\r\n"
    assert session.complete
    assert session.packets == []
