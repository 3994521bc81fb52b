"""The observer: the reason of every refusal, and that no octet is ever altered, lost or held too long."""

from __future__ import annotations

import pytest

from gateway.errors import LocalMisuseError, Reason
from gateway.policy import limits
from gateway.smtp.dialogue import Stage
from gateway.smtp.events import EhloReply, Passed, Role, Unparsed
from gateway.smtp.observer import Observer
from tests.unit.smtp.watch import BOTH, EHLO, GREETING, REPLY, R, S, Speech, Watch, octet_by_octet, watch

# --- The usual way ------------------------------------------------------------------------------------


@BOTH
def test_greeting_and_ehlo_pass_at_once_and_the_reply_is_held(role: Role) -> None:
    observer = Observer(role)
    assert observer.stage is Stage.GREETING
    assert observer.receiver_octets(GREETING) == [Passed(False, GREETING)]
    assert observer.stage is Stage.EHLO
    assert observer.sender_octets(EHLO) == [Passed(True, EHLO)]
    assert observer.stage is Stage.REPLY
    assert observer.receiver_octets(REPLY[:30]) == []
    assert observer.receiver_octets(REPLY[30:]) == [EhloReply(REPLY)]
    assert observer.stage is Stage.DECIDED
    assert observer.greeting == GREETING
    assert observer.seen_from_sender == EHLO
    assert observer.held_from_sender == b""


@BOTH
@pytest.mark.parametrize("greeting", [GREETING, b"220 \r\n", b"220-mx wait\r\n220-\r\n220 mx ready\r\n"])
@pytest.mark.parametrize("ehlo", [EHLO, b"ehlo x\r\n", b"EHLO  [192.0.2.1] and more\r\n"])
@pytest.mark.parametrize("reply", [REPLY, b"250 mx\r\n", b"250-\r\n250 \r\n"])
def test_octet_by_octet_is_the_same(role: Role, greeting: bytes, ehlo: bytes, reply: bytes) -> None:
    slow = watch(role, *octet_by_octet(R, greeting), *octet_by_octet(S, ehlo), *octet_by_octet(R, reply))
    assert slow.verdict == EhloReply(reply)
    assert slow.observer.greeting == greeting
    assert slow.observer.seen_from_sender == ehlo


@BOTH
def test_every_octet_of_greeting_and_ehlo_passes_at_once(role: Role) -> None:
    observer = Observer(role)
    for at in range(len(GREETING)):
        assert observer.receiver_octets(GREETING[at : at + 1]) == [Passed(False, GREETING[at : at + 1])]
    for at in range(len(EHLO)):
        assert observer.sender_octets(EHLO[at : at + 1]) == [Passed(True, EHLO[at : at + 1])]


@BOTH
def test_the_greeting_is_not_told_before_it_is_complete(role: Role) -> None:
    observer = Observer(role)
    observer.receiver_octets(b"220-mx\r\n220 rea")
    assert observer.greeting == b""
    observer.receiver_octets(b"dy\r\n")
    assert observer.greeting == b"220-mx\r\n220 ready\r\n"


@BOTH
def test_no_octets_are_no_observation(role: Role) -> None:
    observer = Observer(role)
    assert observer.sender_octets(b"") == observer.receiver_octets(b"") == []
    assert observer.stage is Stage.GREETING


# --- Refusals -----------------------------------------------------------------------------------------

GREETINGS_REFUSED = [
    (b"554 no\r\n", Reason.GREETING_REFUSED, 554),
    (b"421-busy\r\n421 bye\r\n", Reason.GREETING_REFUSED, 421),
    (b"554\r\n", Reason.GREETING_REFUSED, 554),
    (b"220\r\n", Reason.ODD_GREETING, None),
    (b"220***2***0\r\n", Reason.ODD_GREETING, None),
    (b"220 mx\n", Reason.ODD_GREETING, None),
    (b"220 mx\rx\r\n", Reason.ODD_GREETING, None),
    (b"220 m\0x\r\n", Reason.ODD_GREETING, None),
    (b"220-mx\r\n554 no\r\n", Reason.ODD_GREETING, None),
    (b"220-mx\r\nready\r\n", Reason.ODD_GREETING, None),
    (b"\r\n", Reason.ODD_GREETING, None),
    (b"* OK IMAP\r\n", Reason.ODD_GREETING, None),
    (b"220 mx\r\n\r\n", Reason.ODD_GREETING, None),
    (b"220 mx\r\n4", Reason.ODD_GREETING, None),
    (b"220 mx\r\n250 Ok\r\n", Reason.ODD_GREETING, None),
    (b"220-" + b"x" * limits.GREETING_OCTETS, Reason.ODD_GREETING, None),
    (b"220-x\r\n" * (limits.GREETING_OCTETS // 7 + 1), Reason.ODD_GREETING, None),
]
COMMANDS_REFUSED = [
    (b"HELO x\r\n", Reason.HELO),
    (b"helo", Reason.HELO),
    (b"M", Reason.NOT_EHLO),
    (b"LHLO x\r\n", Reason.NOT_EHLO),
    (b"\r\n", Reason.NOT_EHLO),
    (b"GET / HTTP/1.1\r\n", Reason.NOT_EHLO),
    (b"EHLO\r\n", Reason.ODD_COMMAND),
    (b"EHLO \r\n", Reason.ODD_COMMAND),
    (b"EHLO x\n", Reason.ODD_COMMAND),
    (b"EHLO x\ry\r\n", Reason.ODD_COMMAND),
    (b"EHLO x\0\r\n", Reason.ODD_COMMAND),
    (b"EHLO " + b"x" * limits.EHLO_LINE_OCTETS, Reason.ODD_COMMAND),
]
REPLIES_REFUSED = [
    (b"500 what\r\n", Reason.EHLO_REFUSED, 500),
    (b"421 busy\r\n", Reason.EHLO_REFUSED, 421),
    (b"550-no\r\n550 no\r\n", Reason.EHLO_REFUSED, 550),
    (b"250\r\n", Reason.ODD_REPLY, None),
    (b"250\tmx\r\n", Reason.ODD_REPLY, None),
    (b"250-mx\r\n250\r\n", Reason.ODD_REPLY, None),
    (b"250-mx\r\n250\n", Reason.ODD_REPLY, None),
    (b"250-mx\r\n500 no\r\n", Reason.ODD_REPLY, None),
    (b"250-mx\r\nSIZE\r\n", Reason.ODD_REPLY, None),
    (b"250-mx\r\n\r\n", Reason.ODD_REPLY, None),
    (b"250-mx\n250 x\r\n", Reason.ODD_REPLY, None),
    (b"250 mx\r\r\n", Reason.ODD_REPLY, None),
    (b"250 m\0x\r\n", Reason.ODD_REPLY, None),
    (b"x\r\n", Reason.ODD_REPLY, None),
    (b"250-" + b"x" * limits.EHLO_REPLY_OCTETS, Reason.ODD_REPLY, None),
    (b"250-x\r\n" * (limits.EHLO_REPLY_OCTETS // 7 + 1), Reason.ODD_REPLY, None),
]


@BOTH
@pytest.mark.parametrize(("greeting", "reason", "code"), GREETINGS_REFUSED)
def test_greetings_that_are_refused(role: Role, greeting: bytes, reason: Reason, code: int | None) -> None:
    assert watch(role, (R, greeting)).verdict == Unparsed(reason, code)
    assert watch(role, *octet_by_octet(R, greeting)).verdict == Unparsed(reason, code)


@BOTH
def test_a_421_for_a_sender_that_idles_behind_the_greeting_is_told_as_one(role: Role) -> None:
    idle = watch(role, (R, GREETING), (R, b"421 4.4.2 Timeout\r\n"))
    assert idle.verdict == Unparsed(Reason.ODD_GREETING, 421)


@BOTH
@pytest.mark.parametrize(("command", "reason"), COMMANDS_REFUSED)
def test_first_commands_that_are_refused(role: Role, command: bytes, reason: Reason) -> None:
    assert watch(role, (R, GREETING), (S, command)).verdict == Unparsed(reason)
    assert watch(role, (R, GREETING), *octet_by_octet(S, command)).verdict == Unparsed(reason)


@BOTH
@pytest.mark.parametrize(("reply", "reason", "code"), REPLIES_REFUSED)
def test_replies_that_are_refused(role: Role, reply: bytes, reason: Reason, code: int | None) -> None:
    assert watch(role, (R, GREETING), (S, EHLO), (R, reply)).verdict == Unparsed(reason, code)
    slow = watch(role, (R, GREETING), (S, EHLO), *octet_by_octet(R, reply))
    assert slow.verdict == Unparsed(reason, code)
    assert slow.observer.receiver_octets(b"more") == [Passed(False, b"more")]
    assert slow.observer.sender_octets(b"more") == [Passed(True, b"more")]


@BOTH
def test_octets_behind_the_last_line_of_the_reply_are_odd(role: Role) -> None:
    done = watch(role, (R, GREETING), (S, EHLO), (R, REPLY + b"2"))
    assert done.verdict == Unparsed(Reason.ODD_REPLY)
    assert done.passed[R] == GREETING + REPLY + b"2"


@BOTH
def test_what_cannot_become_a_reply_is_released_at_its_fourth_octet(role: Role) -> None:
    """A server that refuses slowly, or speaks another protocol, is not held until its line ends."""
    observer = Observer(role)
    observer.receiver_octets(GREETING)
    observer.sender_octets(EHLO)
    assert observer.receiver_octets(b"500") == []
    assert observer.receiver_octets(b" ") == [Passed(False, b"500 "), Unparsed(Reason.EHLO_REFUSED, 500)]


@BOTH
@pytest.mark.parametrize("line", [b"SIZE", b"500 ", b"250\t", b"2500"])
def test_nor_is_a_later_line_that_cannot_become_one(role: Role, line: bytes) -> None:
    observer = Observer(role)
    observer.receiver_octets(GREETING)
    observer.sender_octets(EHLO)
    assert observer.receiver_octets(b"250-mx\r\n" + line[:3]) == []
    assert observer.receiver_octets(line[3:]) == [
        Passed(False, b"250-mx\r\n" + line),
        Unparsed(Reason.ODD_REPLY),
    ]


@BOTH
def test_limits_are_reached_exactly(role: Role) -> None:
    greeting = b"220 " + b"x" * (limits.GREETING_OCTETS - 6) + b"\r\n"
    ehlo = b"EHLO " + b"x" * (limits.EHLO_LINE_OCTETS - 7) + b"\r\n"
    reply = b"250 " + b"x" * (limits.EHLO_REPLY_OCTETS - 6) + b"\r\n"
    assert watch(role, (R, greeting), (S, ehlo), (R, reply)).verdict == EhloReply(reply)


# --- Early talkers and pipelining ---------------------------------------------------------------------


@BOTH
def test_an_early_ehlo_passes_at_once(role: Role) -> None:
    observer = Observer(role)
    assert observer.sender_octets(EHLO) == [Passed(True, EHLO)]
    assert observer.stage is Stage.EARLY_EHLO
    assert observer.receiver_octets(GREETING) == [Passed(False, GREETING)]
    assert observer.greeting == GREETING
    assert observer.receiver_octets(REPLY) == [EhloReply(REPLY)]


@BOTH
def test_behind_an_early_ehlo_greeting_and_reply_may_share_a_read(role: Role) -> None:
    observer = Observer(role)
    observer.sender_octets(EHLO)
    assert observer.receiver_octets(GREETING + REPLY) == [Passed(False, GREETING), EhloReply(REPLY)]
    assert observer.greeting == GREETING


@BOTH
@pytest.mark.parametrize(
    ("early", "reason"),
    [
        (b"HELO x\r\n", Reason.HELO),
        (b"GET / HTTP/1.0\r\n", Reason.EARLY_TALKER),
        (b"EHLO\r\n", Reason.EARLY_TALKER),
    ],
)
def test_early_octets_that_are_no_ehlo_are_opaque_at_once(role: Role, early: bytes, reason: Reason) -> None:
    observer = Observer(role)
    assert observer.sender_octets(early) == [Passed(True, early), Unparsed(reason)]


@pytest.mark.parametrize("early", [True, False])
def test_the_sending_gateway_holds_what_is_behind_the_ehlo(early: bool) -> None:
    observer = Observer(Role.SENDING)
    if not early:
        observer.receiver_octets(GREETING)
    assert observer.sender_octets(EHLO + b"MAIL FROM:<a@b>\r\n") == [Passed(True, EHLO)]
    assert observer.sender_octets(b"RCPT") == []
    assert observer.held_from_sender == b"MAIL FROM:<a@b>\r\nRCPT"
    assert observer.seen_from_sender == EHLO
    if early:
        observer.receiver_octets(GREETING)
    assert observer.receiver_octets(REPLY) == [EhloReply(REPLY)]
    assert observer.held_from_sender == b"MAIL FROM:<a@b>\r\nRCPT"


@pytest.mark.parametrize("refusal", [b"500 no\r\n", b"250\r\n", REPLY + b"x"])
def test_what_is_held_is_released_before_the_refusal(refusal: bytes) -> None:
    observer = Observer(Role.SENDING)
    observer.receiver_octets(GREETING)
    observer.sender_octets(EHLO + b"NOOP\r\n")
    observations = observer.receiver_octets(refusal)
    assert observations[:-1] == [Passed(False, refusal), Passed(True, b"NOOP\r\n")]
    assert isinstance(observations[-1], Unparsed)
    assert observer.held_from_sender == b""


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("one_read", [True, False])
def test_the_receiving_gateway_passes_what_is_behind_the_ehlo(early: bool, one_read: bool) -> None:
    greeting: list[Speech] = [] if early else [(R, GREETING)]
    behind = b"MAIL FROM:<a@b>\r\n"
    said: list[Speech] = [(S, EHLO + behind)] if one_read else [(S, EHLO), (S, behind)]
    done = watch(Role.RECEIVING, *greeting, *said)
    assert done.verdict == Unparsed(Reason.PIPELINED_BEHIND_EHLO)
    assert done.passed[S] == EHLO + behind


def test_the_receiving_gateway_releases_a_held_reply_when_the_sender_pipelines() -> None:
    done = watch(Role.RECEIVING, (R, GREETING), (S, EHLO), (R, b"250-mx"), (S, b"MAIL"))
    assert done.verdict == Unparsed(Reason.PIPELINED_BEHIND_EHLO)
    assert done.passed[R] == GREETING + b"250-mx"


def test_the_sender_is_not_read_for_ever() -> None:
    observer = Observer(Role.SENDING)
    observer.sender_octets(EHLO)
    observer.sender_octets(b"x" * (limits.FIRST_FLIGHT_OCTETS - 1))
    assert observer.may_read_sender
    observer.sender_octets(b"x")
    assert not observer.may_read_sender
    assert len(observer.held_from_sender) == limits.FIRST_FLIGHT_OCTETS


# --- Giving up, misuse, memory ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speeches", "released"),
    [
        ([], []),
        ([(R, b"220 m")], []),
        ([(R, GREETING), (S, b"EHL")], []),
        ([(R, GREETING), (S, EHLO), (R, b"250-mx\r\n25")], [Passed(False, b"250-mx\r\n25")]),
        (
            [(R, GREETING), (S, EHLO + b"NOOP"), (R, b"250-")],
            [Passed(False, b"250-"), Passed(True, b"NOOP")],
        ),
        ([(S, EHLO + b"NOOP")], [Passed(True, b"NOOP")]),
        ([(R, GREETING), (S, EHLO + b"NOOP"), (R, REPLY)], [Passed(True, b"NOOP")]),
        ([(R, b"554 no\r\n")], []),
    ],
)
def test_giving_up_releases_everything_once(speeches: list[Speech], released: list[Passed]) -> None:
    observer = Watch(Observer(Role.SENDING)).speeches(speeches).observer
    assert observer.give_up() == released
    assert observer.stage is Stage.OPAQUE
    assert observer.give_up() == []
    assert observer.receiver_octets(b"x") == [Passed(False, b"x")]


@BOTH
def test_once_decided_it_takes_nothing_more(role: Role) -> None:
    observer = watch(role, (R, GREETING), (S, EHLO), (R, REPLY)).observer
    with pytest.raises(LocalMisuseError):
        observer.sender_octets(b"MAIL")
    with pytest.raises(LocalMisuseError):
        observer.receiver_octets(b"250")
    assert observer.stage is Stage.DECIDED


@BOTH
@pytest.mark.parametrize(
    ("before", "endless", "bound"),
    [
        ([], (R, b"220-" + b"x" * 1000), limits.GREETING_OCTETS),
        ([], (R, b"220-x\r\n" * 100), limits.GREETING_OCTETS),
        ([(R, GREETING)], (S, b"EHLO " + b"x" * 100), limits.EHLO_LINE_OCTETS),
        ([(R, GREETING), (S, EHLO)], (R, b"250-" + b"x" * 1000), limits.EHLO_REPLY_OCTETS),
        ([(R, GREETING), (S, EHLO)], (R, b"250-x\r\n" * 100), limits.EHLO_REPLY_OCTETS),
    ],
)
def test_memory_is_bounded_for_endless_talk(
    role: Role, before: list[Speech], endless: Speech, bound: int
) -> None:
    done = Watch(Observer(role)).speeches(before)
    from_sender, octets = endless
    for turn in range(300):
        more = octets if turn == 0 or b"\n" in octets else b"x" * len(octets)
        done.speak(from_sender, more)
        observer = done.observer
        kept = max(len(observer._greeting), len(observer._ehlo), len(observer._reply))
        assert kept <= bound + len(octets)
    assert isinstance(done.verdict, Unparsed)
    done.check_books()


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(
    ("before", "from_sender", "octets"),
    [
        ([], True, b"GET /"),
        ([(False, GREETING)], True, b"MAIL"),
        ([], False, b"SSH-2.0"),
        ([(True, EHLO)], False, b"554 "),
    ],
)
def test_what_has_passed_is_not_kept_in_an_opaque_session(
    role: Role, before: list[Speech], from_sender: bool, octets: bytes
) -> None:
    """Thousands of such sessions may be open for hours, each with the 64 KiB of its first read."""
    done = Watch(Observer(role)).speeches([*before, (from_sender, octets + bytes(limits.READ_OCTETS))])
    assert isinstance(done.verdict, Unparsed)
    observer = done.observer
    kept = len(observer._greeting) + len(observer._ehlo) + len(observer._reply)
    assert kept <= limits.EHLO_LINE_OCTETS
    done.check_books()


@pytest.mark.parametrize("said", [b"421 x\r\n", b"421x\r\n", b"421 x\n", b"421-x\r\n250 y\r\n", b"421\r\n"])
def test_what_begins_as_a_421_is_one_whatever_follows(said: bytes) -> None:
    """Whoever put the rest in must not make anything else of it."""
    done = Watch(Observer(Role.SENDING)).speeches([(False, GREETING), (True, EHLO), (False, said)])
    assert done.verdict == Unparsed(Reason.EHLO_REFUSED, 421)
    done.check_books()


def test_a_421_is_read_to_its_end() -> None:
    done = Watch(Observer(Role.SENDING)).speeches(
        [(False, GREETING), (True, EHLO), (False, b"421-x\r\n421 ")]
    )
    assert done.observer.stage is Stage.REPLY
    done.speak(False, b"y\r\n")
    assert done.verdict == Unparsed(Reason.EHLO_REFUSED, 421)
