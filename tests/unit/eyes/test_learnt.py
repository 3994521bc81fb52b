"""What a listener has learnt of sessions made by hand; and that it claims nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.eyes import learnt
from gateway.eyes.learnt import Listener, SessionLearnt, Sight
from gateway.eyes.reading import LINE_OCTETS, Reader
from gateway.eyes.wire import ACK, SYN, Assembler, Endpoint, Segment

CLIENT = Endpoint("10.11.0.10", 40025)
SERVER = Endpoint("10.12.0.10", 25)
OPENING = [(False, b"220 mx\r\n"), (True, b"EHLO a\r\n"), (False, b"250 SIZE\r\n")]
MAIL = [
    (True, b"MAIL FROM:<alice@a.test> SIZE=9\r\nRCPT TO:<bob@b.test>\r\nrcpt to:<ben@b.test>\r\nDATA\r\n"),
    (False, b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
    (True, b"Subject: moonlit heron\r\n\r\nThe word is salt-marsh.\r\n.\r\nQUIT\r\n"),
    (False, b"250 ok\r\n221 bye\r\n"),
]


def frame(octets: int) -> bytes:
    return b"\x82" + octets.to_bytes(2, "big") + bytes(octets)


SEALED = [(True, b"XNIGHTMAIL\r\n" + frame(900) + frame(60)), (False, frame(90)), (True, frame(500))]


def heard(pieces: list[tuple[bool, bytes]], *, without: int | None = None) -> tuple[SessionLearnt, Listener]:
    assembler, listener = Assembler(), Listener()
    sequence = {True: 1, False: 1}
    spoken = [(True, b"", SYN), (False, b"", SYN | ACK), *((up, octets, ACK) for up, octets in pieces)]
    for number, (up, octets, flags) in enumerate(spoken):
        ends = (CLIENT, SERVER) if up else (SERVER, CLIENT)
        segment = Segment(100.0 + number, *ends, flags, sequence[up], octets)
        sequence[up] += len(octets) + bool(flags & SYN)
        if number != without:
            listener.take(segment, assembler.take(segment))
    listener.finish()
    return (listener.learnt or [SessionLearnt(CLIENT, SERVER, 0, 0)])[0], listener


def test_in_clear_all_is_learnt() -> None:
    session, _ = heard(OPENING + MAIL)
    assert session.sight is Sight.CLEAR
    assert session.senders == ["alice@a.test"]
    assert session.recipients == ["bob@b.test", "ben@b.test"]
    assert session.subjects == ["moonlit heron"]
    assert list(session.kept_words) == ["Subject", "moonlit", "heron", "The", "word", "is", "salt-marsh"]
    assert session.words == 7
    assert (session.began, session.ended) == (100.0, 108.0)
    assert session.octets_up == sum(len(octets) for up, octets in OPENING + MAIL if up)
    assert session.whole


def test_between_gateways_volumes_alone() -> None:
    session, _ = heard(OPENING + SEALED)
    assert session.sight is Sight.NIGHTMAIL
    assert (session.senders, session.recipients, session.words) == ([], [], 0)
    assert (session.sealed_up, session.sealed_down) == (903 + 63 + 503, 93)


def test_clear_text_after_the_verb_is_never_called_sealed() -> None:
    session, _ = heard([*OPENING, *SEALED, (True, b"MAIL FROM:<alice@a.test>\r\n")])
    assert session.sight is Sight.CLEAR
    assert session.senders == ["alice@a.test"]


def test_clear_text_after_starttls_is_never_called_sealed() -> None:
    tls = [(True, b"STARTTLS\r\n"), (False, b"220 go\r\n"), (True, b"\x16\x03\x01\x00\x05hello")]
    failed = [(False, b"\x15\x03\x01\x00\x02\x02\x28"), (True, b"MAIL FROM:<alice@a.test>\r\n")]
    session, _ = heard(OPENING + tls + failed)
    assert session.sight is Sight.CLEAR
    assert session.senders == ["alice@a.test"]
    assert (session.sealed_up, session.sealed_down) == (10, 7)


def test_tls_from_the_first_octet_on_is_mail_that_was_sealed() -> None:
    hello, answer = b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x03\x00\x02ok\x17\x03\x03\x00\x03yes"
    session, _ = heard([(True, hello[:3]), (True, hello[3:]), (False, answer)])
    assert session.sight is Sight.TLS
    assert (session.sealed_up, session.sealed_down) == (len(hello), len(answer))


def test_tls_and_passwords() -> None:
    tls = [(True, b"STARTTLS\r\n"), (False, b"220 go\r\n"), (True, b"\x16\x03\x01hello")]
    assert heard(OPENING + tls)[0].sight is Sight.TLS
    session, _ = heard([*OPENING, (True, b"AUTH PLAIN AGEAYg==\r\n")])
    assert session.credentials
    assert "saw passwords pass" in learnt.sentence([session])


def test_nothing_is_claimed_of_what_was_not_heard() -> None:
    session, _ = heard(OPENING + MAIL, without=5)
    assert not session.whole
    _, listener = heard(OPENING + MAIL, without=0)
    assert (listener.learnt, len(listener.unplaced)) == ([], 1)
    assert "learnt nothing" in learnt.sentence([])


@pytest.mark.parametrize(
    ("address", "shown"), [("alice@a.test", "a***@a.test"), ("", "<>"), ("root", "r***"), ("@", "***@")]
)
def test_masks(address: str, shown: str) -> None:
    assert learnt.masked(address) == shown


def test_json_shows_people_only_if_asked() -> None:
    session, _ = heard(OPENING + MAIL)
    hidden, shown = (str(learnt.as_json(session, show=show)) for show in (False, True))
    for word in ("alice", "bob", "moonlit", "salt-marsh"):
        assert word not in hidden
        assert word in shown


def test_what_strangers_write_is_no_command_to_a_terminal() -> None:
    session, _ = heard([*OPENING, (True, b"MAIL FROM:<\x1b[31m@a.test>\r\n")])
    assert session.senders == ["?[31m@a.test"]


def test_the_sentence() -> None:
    clear, sealed = heard(OPENING + MAIL)[0], heard(OPENING + SEALED)[0]
    assert learnt.sentence([clear, sealed]) == (
        "In 1 session of 2 the listener read 1 sender, 2 recipients and 7 words of mail; "
        "of 1 sealed session it learnt which servers spoke, when, and how much."
    )
    assert learnt.sentence([sealed]).startswith("Of 1 session the listener learnt")


def test_a_long_line_is_read_in_pieces_however_much_comes_at_once() -> None:
    """What waited behind a lost packet comes as one; the time that it took rose with its square."""
    line = b"x" * (3 * LINE_OCTETS + 7)
    found = Reader().feed(True, line + b"\r\nQUIT\r\n")
    assert b"".join(piece.octets for piece in found) == line + b"QUIT"
    assert max(len(piece.octets) for piece in found) <= LINE_OCTETS


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(
    [b"BDAT ", b"BDAT 5", b"BDAT 99999999999999999999 LAST", b"\r\n", b"354 ", b"220 x", b"STARTTLS",
     b"XNIGHTMAIL", b"\x82\x00\x05ab", b".", b"\xff" * 9, b"x" * (LINE_OCTETS + 5)]
)), max_size=30))  # fmt: skip
def test_any_octets_have_an_answer_and_none_is_lost(pieces: list[tuple[bool, bytes]]) -> None:
    reader = Reader()
    found = [piece for up, octets in pieces for piece in reader.feed(up, octets)] + reader.finish()
    told = sum(len(piece.octets) + piece.sealed for piece in found)
    said = sum(len(octets) for _, octets in pieces)
    # Line ends are not told, and the header of a frame that has not come whole is.
    assert said - 2 * len(found) <= told <= said
