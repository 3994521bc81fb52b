"""The one table: what each attack on the wire is, and what must come of it.

The tests run every row between two real gateways and hold it against sender, receiver, wire, logs and alarm
bell; `docs/attackers.md` shows it to people (`python -m tests.attackers.expectations` writes it).
A row's words are the gateway's own reasons. `pinned`: the sending gateway has met this destination before.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.policy import limits
from tests.attackers.altering import (
    ChangeLarge,
    ChangeLetter,
    ChangeOctet,
    EhloRefused,
    HeloInstead,
    MadeUpTicket,
    MaskGreeting,
    OfferInTheDomainLine,
    OtherIdentity,
    RemoveE1,
    ShiftEpoch,
    StripOffer,
    lines_joined,
    mask_offer,
    mask_offer_with_a,
    one_letter,
)
from tests.attackers.attack import Attack, End, Kind
from tests.attackers.cutting import Cut, CutInContent, How
from tests.attackers.impersonating import OwnKeys
from tests.attackers.injecting import COMMANDS, REPLIES, AnswerVerb, Inject, InjectAtEnd
from tests.attackers.parties import REPLY
from tests.attackers.replaying import ContentTurned, Later, Twice
from tests.playbook import identity

DOCUMENT = Path(__file__).parents[2] / "docs" / "attackers.md"
GENERATED = ("<!-- table of attacks -->", "<!-- end of table -->")


class Mail(enum.Enum):
    """What becomes of the mail. Never altered, never twice."""

    DELIVERED = "delivered"
    QUEUED = "queued"
    """With the sender; nothing at the receiver."""
    REFUSED_BY_SENDER = "not sent"
    """The sender's own reading of what it was shown; it stays in its queue."""


class Seen(enum.Enum):
    """What a listener, or he himself, can read of envelope and content."""

    NOTHING = "nothing"
    ENVELOPE = "the envelope, on the wire"
    BY_ALL = "all, on the wire"
    BY_HIM = "all, he alone"


@dataclass(frozen=True)
class Row:
    """One attack. Words that depend on how segments arrive stand as `one|other`."""

    name: str
    does: str
    attack: Callable[[], Attack] | None
    """None: it takes more than one session; the test of that name stages it."""
    pinned: bool
    mail: Mail
    seen: Seen
    decided: str
    alarm: bool = False
    """Of the sending gateway, with the reason `decided`."""
    failures: tuple[str, ...] = ()
    """What S logs of failed handshakes, in order."""
    channel: str = ""
    """How a channel that stood already ended, at the gateway that noticed; also where there need be none."""
    torn_instead: bool = False
    """If R's first record is there before the attack is: then the channel ends, and the mail waits."""
    may_wait: bool = False
    """R may still be busy with the cut connection when S dials again: then the mail waits, with the alarm."""
    large: bool = False
    """Needs content of several records."""
    patience: float = 45.0
    thinks: float = 0.0
    his_own: bool = False
    """The receiver gets a mail of his too, as it would from anybody."""
    ticket: bool = False
    """R's first offer is made with one."""


CHUNK = 200
"""An octet of the first offer line that lies within the offer's own octets (behind the receiver's lines)."""
LINE = len(REPLY) + len(b"250 XNIGHTMAIL 1 1/1 ")
MADE_UP = limits.TICKETS_FORGIVEN + limits.DIALS_PER_SESSION - 1
"""Failures of a session whose offers are all made with tickets that nobody has."""
NAME, SEALED = LINE + 4, LINE + 40
"""Octets of an offer with a ticket: in the name, and behind it. A full one's first line reaches over both."""


def lost(name: str, does: str, attack: Callable[[], Attack]) -> list[Row]:
    """Attacks that leave no offer: a pinned destination rings, an unknown one looks like any other."""
    return [
        Row(f"{name}", does, attack, True, Mail.DELIVERED, Seen.BY_ALL, "offer-missing", alarm=True),
        Row(f"{name}, first contact", does, attack, False, Mail.DELIVERED, Seen.BY_ALL, "no-offer"),
    ]


def retried(name: str, does: str, attack: Callable[[], Attack] | None, *failures: str, **words: Any) -> Row:
    """Attacks on the first connection that S survives by a second one."""
    return Row(name, does, attack, True, Mail.DELIVERED, Seen.NOTHING, "upgraded", failures=failures, **words)


def torn(name: str, does: str, attack: Callable[[], Attack], channel: str) -> Row:
    """Attacks on a channel that stands: it ends, and the sender tries again later."""
    return Row(name, does, attack, True, Mail.QUEUED, Seen.NOTHING, "upgraded", channel=channel, large=True)


def unconfirmed(name: str, does: str, attack: Callable[[], Attack], channel: str) -> Row:
    """Attacks on what stands behind message 2: R ends the channel before S has heard of it. S dials again."""
    return retried(
        name, does, attack, "far-closed-during-handshake", channel=channel, torn_instead=True, large=True
    )


def _taken_out() -> list[Row]:
    refused = b'502 Error: command "EHLO" not implemented\r\n'

    def refuse() -> Attack:
        return EhloRefused(refused)

    def closing() -> Attack:
        return EhloRefused(b"421 4.3.2 Closing\r\n")

    return [
        *lost("strip the offer", "takes the offer lines out of the reply", StripOffer),
        *lost("mask the offer", "overwrites the keyword with X", mask_offer),
        *lost("mask the offer with A", "overwrites the keyword with XXXXXXXXXA", mask_offer_with_a),
        *lost("one letter of the keyword", "XNIGHTMAIX in place of XNIGHTMAIL", one_letter),
        *lost("offer in the domain line", "moves the offer lines to the front", OfferInTheDomainLine),
        *lost("lines joined", "takes out the line end before the offer", lines_joined),
        *clear("refuse EHLO", "answers EHLO with 502 himself", refuse, "offer-missing", "ehlo-refused"),
        *clear("HELO for EHLO", "turns EHLO into HELO on its way", HeloInstead, "offer-missing", "no-offer"),
        *clear("mask the greeting", "overwrites the greeting with asterisks, so that the sender says HELO",
               MaskGreeting, "offer-missing", "helo"),
        Row("close at EHLO", "answers EHLO with 421 himself", closing, True,
            Mail.REFUSED_BY_SENDER, Seen.NOTHING, "ehlo-refused"),
    ]  # fmt: skip


def _changed() -> list[Row]:
    reply, greeting = Kind.REPLY, Kind.GREETING

    def octet(origin: End, kind: Kind, at: int, **words: int) -> Callable[[], Attack]:
        return lambda: ChangeOctet(origin, kind, at, **words)

    return [
        retried("octet of the offer", "changes one octet of the offer", lambda: ChangeLetter(CHUNK),
                "bad-signature"),
        Row("octet of the offer, always", "the same on each connection",
            lambda: ChangeLetter(CHUNK, 9), True, Mail.DELIVERED, Seen.BY_ALL,
            "handshake-failed", alarm=True, failures=("bad-signature", "bad-signature")),
        Row("octet of the reply", "changes one octet of the receiver's own reply", octet(End.R, reply, 6),
            True, Mail.REFUSED_BY_SENDER, Seen.NOTHING, "redial-differs", alarm=True,
            failures=("bad-signature",)),
        Row("octet of the greeting's name", "changes the receiver's name in the greeting",
            octet(End.R, greeting, 5), True, Mail.REFUSED_BY_SENDER, Seen.NOTHING, "redial-differs",
            alarm=True, failures=("bad-signature",)),
        retried("octet of the greeting's text", "changes the greeting behind the name",
                octet(End.R, greeting, 25), "bad-signature"),
        retried("octet of the EHLO", "changes one octet of the sender's EHLO", octet(End.S, Kind.EHLO, 7),
                "bad-signature"),
        retried("octet of the verb", "changes one octet of the verb", octet(End.S, Kind.VERB, 3),
                "clear-octets-in-channel"),
        retried("octet of message 2", "changes one octet of message 2", octet(End.S, Kind.ANSWER, 700),
                "clear-octets-in-channel"),
        retried("octet of R's first record", "changes one octet of the record that confirms R",
                octet(End.R, Kind.RECORD, 9), "bad-tag"),
        unconfirmed("octet of S's first record", "changes one octet of the record behind message 2",
                    octet(End.S, Kind.RECORD, 9), "bad-tag"),
        torn("octet of the content", "changes one octet of a record with content", lambda: ChangeLarge(5000),
             "bad-tag"),
        torn("length of a content record", "changes the length in a record's header", lambda: ChangeLarge(1),
             "bad-frame|bad-tag|clear-octets-in-channel"),
        torn("type of a content record", "changes the type in a record's header", lambda: ChangeLarge(0),
             "bad-frame"),
        torn("octet of R's second record", "changes one octet of the record with the reply to MAIL",
             octet(End.R, Kind.RECORD, 9, number=1), "bad-tag"),
        retried("remove e1", "makes a short offer of a full one", RemoveE1, "bad-signature"),
        retried("raise the epoch", "a later day in the offer", lambda: ShiftEpoch(1), "bad-signature"),
        retried("lower the epoch", "an earlier day in the offer", lambda: ShiftEpoch(-1), "bad-signature"),
        retried("another identity in the offer", "puts another identity's key into the offer",
                lambda: OtherIdentity(identity("another").public.octets), "bad-signature"),
    ]  # fmt: skip


def _cut() -> list[Row]:
    def cut(origin: End, kind: Kind, at: int, how: How, dials: int = 1) -> Callable[[], Attack]:
        return lambda: Cut(origin, kind, at, how=how, dials=dials)

    late = "handshake-timeout"
    gone = "far-closed-during-handshake"
    return [
        Row("cut the reply", "ends both sides within the offer", cut(End.R, Kind.REPLY, 300, How.FIN), True,
            Mail.REFUSED_BY_SENDER, Seen.NOTHING, "ended-before-decision"),
        Row("reset within the reply", "resets both sides within the offer",
            cut(End.R, Kind.REPLY, 300, How.RST), True,
            Mail.REFUSED_BY_SENDER, Seen.NOTHING, "ended-before-decision"),
        retried("cut the verb", "ends both sides within the verb", cut(End.S, Kind.VERB, 5, How.FIN), gone,
                may_wait=True),
        retried("cut message 2", "ends both sides within message 2", cut(End.S, Kind.ANSWER, 500, How.FIN),
                gone, may_wait=True),
        retried("reset within message 2", "resets both sides within message 2",
                cut(End.S, Kind.ANSWER, 500, How.RST), gone, may_wait=True),
        retried("cut R's first record", "ends both sides within R's first record",
                cut(End.R, Kind.RECORD, 20, How.FIN), gone, channel="end-without-close|", may_wait=True),
        torn("close without CLOSE", "ends both sides in the middle of the content",
             lambda: CutInContent(0, How.FIN), "end-without-close"),
        torn("close within a record", "the same within a record", lambda: CutInContent(5000, How.FIN),
             "end-without-close"),
        torn("reset in the content", "resets both sides in the middle of the content",
             lambda: CutInContent(0, How.RST), ""),
        Row("stall before the greeting", "lets nothing of the receiver through",
            cut(End.R, Kind.GREETING, 0, How.SILENCE), True, Mail.REFUSED_BY_SENDER, Seen.NOTHING,
            "ended-before-decision", patience=3.0),
        Row("stall within the reply", "stops in the middle of the offer",
            cut(End.R, Kind.REPLY, 700, How.SILENCE), True, Mail.REFUSED_BY_SENDER, Seen.NOTHING,
            "ended-before-decision", patience=3.0),
        retried("stall before the verb", "lets the verb not through, nor anything behind it",
                cut(End.S, Kind.VERB, 0, How.SILENCE), late),
        retried("stall behind the verb", "lets nothing behind the verb through",
                cut(End.S, Kind.ANSWER, 0, How.SILENCE), late),
        retried("stall within message 2", "stops in the middle of message 2",
                cut(End.S, Kind.ANSWER, 500, How.SILENCE), late),
        retried("stall before R's first record", "lets nothing of R through",
                cut(End.R, Kind.RECORD, 0, How.SILENCE), late),
        Row("stall before R's first record, always", "the same on each connection",
            cut(End.R, Kind.RECORD, 0, How.SILENCE, 9), True, Mail.DELIVERED, Seen.BY_ALL, "handshake-failed",
            alarm=True, failures=(late, late)),
        Row("stall in the channel", "stops in the middle of the content",
            lambda: CutInContent(100, How.SILENCE), True, Mail.QUEUED, Seen.NOTHING, "upgraded", large=True,
            patience=5.0),
    ]  # fmt: skip


def _injected() -> list[Row]:
    def put(origin: End, kind: Kind, octets: bytes, **words: bool) -> Callable[[], Attack]:
        return lambda: Inject(origin, kind, octets, **words)

    clear_octets = "clear-octets-in-channel"
    rows = []
    for apart, where in ((False, "in one segment"), (True, "in a segment of its own")):
        rows += [
            retried(f"commands before the verb, {where}", "puts a whole mail of his own before the verb",
                    put(End.S, Kind.VERB, COMMANDS, before=True, apart=apart), clear_octets, his_own=True),
            retried(f"commands behind the verb, {where}", "the same behind the verb",
                    put(End.S, Kind.VERB, COMMANDS, apart=apart), clear_octets),
            retried(f"commands behind message 2, {where}", "the same behind message 2",
                    put(End.S, Kind.ANSWER, COMMANDS, apart=apart), clear_octets, torn_instead=True),
            Row(f"commands behind the last record, {where}", "the same behind S's CLOSE",
                lambda apart=apart: InjectAtEnd(End.S, COMMANDS, apart=apart),
                True, Mail.DELIVERED, Seen.NOTHING, "upgraded", channel=clear_octets + "|"),
            Row(f"reply behind the reply, {where}", "puts a reply behind the one with the offer",
                put(End.R, Kind.REPLY, REPLIES, apart=apart), True, Mail.REFUSED_BY_SENDER, Seen.ENVELOPE,
                "no-verb|offer-missing" if apart else "offer-missing", alarm=True, thinks=3.0),
            retried(f"reply before R's first record, {where}", "puts a reply before R's first record",
                    put(End.R, Kind.RECORD, REPLIES, before=True, apart=apart), clear_octets),
            retried(f"reply behind R's first record, {where}", "puts a reply behind R's first record",
                    put(End.R, Kind.RECORD, REPLIES, apart=apart), clear_octets, torn_instead=True),
            Row(f"reply behind the last record, {where}", "puts a reply behind R's CLOSE",
                lambda apart=apart: InjectAtEnd(End.R, REPLIES, apart=apart),
                # S may not have said its own CLOSE, if its sender has not closed: R finds that missing.
                True, Mail.DELIVERED, Seen.NOTHING, "upgraded", channel=clear_octets + "|end-without-close|"),
        ]  # fmt: skip
    for reply in (b"250 2.0.0 Ok\r\n", b"421 4.3.2 Closing\r\n", b"454 4.7.0 TLS not available\r\n",
                  b"501 Syntax error\r\n", b"200 STRIPTLS\r\n", b"220 Go ahead\r\n"):  # fmt: skip
        code = reply[:3].decode()
        rows.append(
            retried(f"answer the verb with {code}", f"answers the verb with {code} himself",
                    lambda reply=reply: AnswerVerb(reply), clear_octets)
        )  # fmt: skip
    for times, word in ((1, "once"), (2, "twice"), (9, "always")):
        failures = (clear_octets,) * min(times, 2)

        def fail(times: int = times) -> Attack:
            return AnswerVerb(b"454 4.7.0 No\r\n", times)

        does = f"makes the handshake fail {word}"
        if times == 1:
            rows.append(retried(f"fail {word}", does, fail, *failures))
        else:
            rows.append(Row(f"fail {word}", does, fail, True, Mail.DELIVERED, Seen.BY_ALL,
                            "handshake-failed", alarm=True, failures=failures))  # fmt: skip
    return rows


def _repeated() -> list[Row]:
    def twice(origin: End, kind: Kind, *, number: int = 0) -> Callable[[], Attack]:
        return lambda: Twice(origin, kind, number=number)

    def later(origin: End, kind: Kind, *, number: int = 0) -> Callable[[], Attack]:
        return lambda: Later(origin, kind, number=number)

    clear_octets = "clear-octets-in-channel"
    return [
        retried("verb twice", "says the verb twice", twice(End.S, Kind.VERB), clear_octets),
        unconfirmed("message 2 twice", "says message 2 twice", twice(End.S, Kind.ANSWER), "bad-frame"),
        unconfirmed("S's first record twice", "says S's first record twice", twice(End.S, Kind.RECORD),
                    "bad-tag"),
        torn("R's first record twice", "says R's first record twice", twice(End.R, Kind.RECORD), "bad-tag"),
        torn("content twice", "says a record of the content twice", lambda: ContentTurned("doubled"),
             "bad-tag"),
        torn("content out of order", "turns two records of the content", lambda: ContentTurned("swapped"),
             "bad-tag"),
        torn("content left out", "takes out a record of the content", lambda: ContentTurned("dropped"),
             "bad-tag"),
        retried("message 2 before the verb", "turns verb and message 2", later(End.S, Kind.VERB),
                clear_octets),
        retried("record before message 2", "turns message 2 and the record behind it",
                later(End.S, Kind.ANSWER), clear_octets),
        retried("R's first two records", "turns R's first and second record", later(End.R, Kind.RECORD),
                "bad-tag"),
    ]  # fmt: skip


def _with_ticket() -> list[Row]:
    """Where R's first offer is one with a ticket. The second dial's never is."""
    clear_octets, silence = "clear-octets-in-channel", How.SILENCE

    def again(name: str, does: str, attack: Callable[[], Attack] | None, failure: str) -> Row:
        return retried(f"{name}, with a ticket", does, attack, failure, ticket=True)

    return [
        again("octet of the offer", "changes one octet of the offer", lambda: ChangeLetter(SEALED),
              "bad-offer"),
        again("octet of the name", "changes the ticket's name", lambda: ChangeLetter(NAME), "ticket-unknown"),
        Row("octet of the offer, always, with a ticket", "the same on each connection",
            lambda: ChangeLetter(SEALED, 9), True, Mail.DELIVERED, Seen.BY_ALL, "handshake-failed",
            alarm=True, failures=("bad-offer", "bad-signature"), ticket=True),
        Row("made-up tickets", "shows offers with tickets of his own making", MadeUpTicket, True,
            Mail.DELIVERED, Seen.BY_ALL, "handshake-failed", alarm=True,
            failures=("ticket-unknown",) * MADE_UP, ticket=True),
        Row("strip the offer, with a ticket", "takes the offer line out of the reply", StripOffer, True,
            Mail.DELIVERED, Seen.BY_ALL, "offer-missing", alarm=True, ticket=True),
        again("octet of the EHLO", "changes one octet of the sender's EHLO",
              lambda: ChangeOctet(End.S, Kind.EHLO, 7), "bad-offer"),
        again("octet of message 2", "changes one octet of message 2",
              lambda: ChangeOctet(End.S, Kind.ANSWER, 50), clear_octets),
        again("octet of R's first record", "changes one octet of the record that confirms R",
              lambda: ChangeOctet(End.R, Kind.RECORD, 9), "bad-tag"),
        again("stall before R's first record", "lets nothing of R through",
              lambda: Cut(End.R, Kind.RECORD, 0, how=silence), "handshake-timeout"),
        again("stall behind the verb", "lets nothing behind the verb through",
              lambda: Cut(End.S, Kind.ANSWER, 0, how=silence), "handshake-timeout"),
        again("offer from before", "shows the offer of an earlier session", None, "ticket-unknown"),
        again("message 2 from before", "shows R the message 2 of an earlier session", None, clear_octets),
    ]  # fmt: skip


def _impersonated() -> list[Row]:
    return [
        Row("own keys, first contact", "stands in the middle with keys of his own", lambda: OwnKeys("first"),
            False, Mail.DELIVERED, Seen.BY_HIM, "upgraded-new-peer"),
        Row("own keys", "the same at a destination that is known", lambda: OwnKeys("later"),
            True, Mail.DELIVERED, Seen.BY_HIM, "upgraded-changed-peer", alarm=True),
    ]  # fmt: skip


def clear(name: str, does: str, attack: Callable[[], Attack], pinned: str, unknown: str) -> list[Row]:
    return [
        Row(name, does, attack, True, Mail.DELIVERED, Seen.BY_ALL, pinned, alarm=True),
        Row(f"{name}, first contact", does, attack, False, Mail.DELIVERED, Seen.BY_ALL, unknown),
    ]


def _staged() -> list[Row]:
    clear_octets = "clear-octets-in-channel"
    return [
        retried("offer from before", "shows the offer of an earlier session", None, clear_octets),
        Row("offer from before, always", "the same on each connection", None, True, Mail.DELIVERED,
            Seen.BY_ALL, "handshake-failed", alarm=True, failures=(clear_octets, clear_octets)),
        retried("message 2 from before", "shows R the message 2 of an earlier session", None, clear_octets),
        retried("R's record from before", "shows S R's first record of an earlier session", None, "bad-tag"),
        retried("offer of another gateway", "shows the offer of another honest gateway", None, clear_octets),
        Row("the sender's own offer", "shows S an offer by S's own gateway", None, True, Mail.DELIVERED,
            Seen.BY_ALL, "own-identity", alarm=True),
        Row("led to another address", "leads S's connection to another address of R's site", None, True,
            Mail.DELIVERED, Seen.NOTHING, "upgraded"),
    ]  # fmt: skip


ROWS = [*_taken_out(), *_changed(), *_cut(), *_injected(), *_repeated(), *_impersonated(), *_staged(),
        *_with_ticket()]  # fmt: skip
BY_NAME = {row.name: row for row in ROWS}


# --- For people -------------------------------------------------------------------------------------------


def table() -> str:
    """The rows as `docs/attackers.md` has them."""
    lines = [
        "| he | destination | mail | readable | S decides | alarm | on the way |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        way = [f"`{reason}`" for reason in row.failures]
        way += [f"`{reason}`" for reason in row.channel.split("|") if reason]
        mail = (
            row.mail.value
            + (" or queued" if row.torn_instead or row.may_wait else "")
            + (", and his" if row.his_own else "")
        )
        decided = " or ".join(f"`{reason}`" for reason in row.decided.split("|"))
        lines.append(
            f"| {row.name}: {row.does} | {'known' if row.pinned else 'unknown'} | {mail} | {row.seen.value} "
            f"| {decided} | {'rings' if row.alarm else '–'} | {', '.join(way) or '–'} |"
        )
    return "\n".join(lines) + "\n"


def document(old: str) -> str:
    """The document with its table made anew."""
    begin, end = (re.escape(mark) for mark in GENERATED)
    block = f"{GENERATED[0]}\n{table()}{GENERATED[1]}"
    return re.sub(f"{begin}.*?{end}", lambda _: block, old, flags=re.DOTALL)


if __name__ == "__main__":
    DOCUMENT.write_text(document(DOCUMENT.read_text()))
