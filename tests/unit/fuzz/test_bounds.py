"""Time and memory of every parser for large inputs, in one piece and in many: linear, and within its limits.

Time is CPU time of this process, and what is asked is how it grows: four times the octets may take six times
as long, not sixteen. Memory is what Python's allocator had at most, beyond the input.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import time
import tracemalloc
from collections.abc import Callable

import pytest

from gateway.crypto.frames import FrameKind, FrameReader, frame_header
from gateway.crypto.params import Params
from gateway.crypto.statement import read_statement
from gateway.errors import PeerProtocolError, Reason
from gateway.intercept.syn import parse_syn
from gateway.policy import limits
from gateway.session.first_flight import FirstFlight
from gateway.smtp.buffer import LineBuffer
from gateway.smtp.capability import carries_keyword, host_name, split_offer
from gateway.smtp.events import Role
from gateway.smtp.firstflight import ContentScan
from gateway.smtp.observer import Observer
from tests.fuzz.target import pieces
from tests.playbook import EHLO, GREETING, Playbook, receiving, sending

LARGE = 1024 * 1024


def _ignoring(work: Callable[[], object]) -> None:
    with contextlib.suppress(PeerProtocolError):
        work()


def _observed(octets: bytes, size: int) -> None:
    for role in Role:
        for place in range(3):
            observer = Observer(role)
            if place:
                observer.sender_octets(EHLO)
            if place > 1:
                observer.receiver_octets(GREETING)
            for piece in pieces(octets, size):
                if observer.stage.value == "decided":
                    break
                observer.receiver_octets(piece)
                if observer.stage.value != "decided":
                    observer.sender_octets(piece)


def _framed(octets: bytes, size: int) -> None:
    reader = FrameReader()
    for piece in pieces(octets, size):
        reader.feed(piece)


def _scanned(octets: bytes, size: int) -> None:
    scan = ContentScan()
    for piece in pieces(octets, size):
        scan.feed(piece)


def _lines(octets: bytes, size: int) -> None:
    lines = LineBuffer(limits.EHLO_REPLY_OCTETS, Reason.ODD_REPLY)
    for piece in pieces(octets, size):
        lines.add(piece)
        while lines.next_line() is not None:
            pass


def _capability(octets: bytes, size: int) -> None:
    split_offer(octets), carries_keyword(octets), host_name(octets)


Parser = Callable[[bytes, int], object]
PARSERS: dict[str, Parser] = {
    "observer": _observed,
    "frames": _framed,
    "content": _scanned,
    "lines": _lines,
    "capability": _capability,
    "params": lambda octets, size: Params.decode(octets),
    "statement": lambda octets, size: read_statement(octets),
    "syn": lambda octets, size: parse_syn(octets),
}

_RECORD = frame_header(FrameKind.RECORD, 19) + bytes(19)
HOSTILE: dict[str, bytes] = {
    "zeros": b"\0",
    "blanks": b"\n ",
    "one run of blanks": b" ",
    "line ends": b"\r\n",
    "CRs": b"\r",
    "lines of a reply": b"250-XNIGHTMAIL 1 1/9 AAAA\r\n",
    "one line of a reply": b"250 XNIGHTMAIL ",
    "verbs half said": b"\r\nBDA",
    "DATA lines without end": b"\r\nDATA \r",
    "letters": b"A",
    "frames": _RECORD,
    "one frame of the largest kind": frame_header(FrameKind.RECORD, 65535),
    "parameters": b"\xff\0\0",
    "high octets": b"\xff",
}


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    _ignoring(work)
    return time.process_time() - began


def _grows_too_fast(parse: Parser, unit: bytes, most: int, size: int) -> bool:
    quarter, whole = (unit * (count // len(unit)) for count in (most // 4, most))
    for _ in range(3):  # others use this machine too
        short, long = (_seconds(functools.partial(parse, octets, size)) for octets in (quarter, whole))
        if long < 6 * short + 0.05:
            return False
    return True


# Octet by octet less of it: each costs a call, and a first flight has 64 KiB.
@pytest.mark.parametrize(("size", "most"), [(0, 256 * 1024), (1461, 256 * 1024), (1, 8 * 1024)])
@pytest.mark.parametrize("parser", PARSERS)
def test_time_grows_with_the_octets_and_no_faster(parser: str, size: int, most: int) -> None:
    for what, unit in HOSTILE.items():
        assert not _grows_too_fast(PARSERS[parser], unit, most, size), what


@pytest.mark.parametrize("parser", PARSERS)
def test_a_mebioctet_in_one_piece(parser: str) -> None:
    parse = PARSERS[parser]
    for what, unit in HOSTILE.items():
        octets = unit * (LARGE // len(unit))
        assert _seconds(functools.partial(parse, octets, 0)) < 1.0, what


@pytest.mark.parametrize("parser", ["observer", "frames", "lines"])
def test_memory_is_that_of_the_limits_however_much_comes(parser: str) -> None:
    """In pieces as a socket gives them: what was passed on is not kept."""
    parse = PARSERS[parser]
    for what, unit in HOSTILE.items():
        octets = unit * (LARGE // len(unit))
        gc.collect()
        tracemalloc.start()
        try:
            _ignoring(functools.partial(parse, octets, 4096))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        most = 4 * (limits.GREETING_OCTETS + limits.FIRST_FLIGHT_OCTETS + limits.FRAME_BODY_OCTETS)
        assert peak < most, f"{what}: {peak} octets"


def test_a_first_flight_octet_by_octet() -> None:
    """64 KiB is all that it ever holds; half of it content that waits, which is copied for each octet."""
    for unit in (b"NOOP\r\n", b"BDAT 1 LAST\r\n"):
        flight = FirstFlight()
        flight.begin()
        began = time.process_time()
        for piece in pieces(unit * (limits.FIRST_FLIGHT_OCTETS // len(unit) + 1), 1):
            if not flight.is_full:
                flight.add(piece)
        assert time.process_time() - began < 3.0
        assert flight.is_full


@pytest.mark.parametrize("make", [sending, receiving])
def test_a_machine_holds_no_more_than_its_limits(make: Callable[[], object]) -> None:
    """A sender that never stops behind its EHLO is paused; a receiver that never ends its reply is let go."""
    book = Playbook(make())  # type: ignore[arg-type]
    sender, receiver = (book.near, book.far) if make is sending else (book.far, book.near)
    receiver(GREETING)
    sender(EHLO)
    for _ in range(LARGE // 4096):
        if make is sending and book.paused:
            break
        if book.relayed:
            break
        sender(b"NOOP\r\n" * 682)
    else:
        raise AssertionError("it takes everything")
    book = Playbook(make())  # type: ignore[arg-type]
    sender, receiver = (book.near, book.far) if make is sending else (book.far, book.near)
    receiver(GREETING)
    sender(EHLO)
    said = 0
    while not book.relayed:
        receiver(b"250-" + b"x" * 4000 + b"\r\n")
        said += 4006
        assert said <= limits.EHLO_REPLY_OCTETS + 4006
