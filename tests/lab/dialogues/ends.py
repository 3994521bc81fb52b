"""Dialogues that one side ends or resets, at every place."""

from __future__ import annotations

from typing import Any

from gateway.errors import Reason
from tests.lab.dialogues.words import (
    BOTH_END,
    DONE,
    EHLO,
    ENVELOPE,
    FLIGHT,
    FLIGHT_REPLY,
    GREETING,
    IN_DATA,
    RECEIVER,
    REPLY,
    SENDER,
    SENDER_LEAVES,
    Dialogue,
    Steps,
    bdat,
    c,
    mail,
    noise,
    opened,
    s,
)
from tests.lab.steps import Close, End, HearEnd, HearReset, Reset, Say

NEVER_DECIDED = Reason.ENDED_BEFORE_DECISION


def _states() -> list[tuple[str, Steps, dict[str, Any], dict[str, Any]]]:
    """Each with the decisions that follow where one party ends, and where one resets."""
    never = {"sending": NEVER_DECIDED, "receiving": NEVER_DECIDED}
    answered = {"sending": NEVER_DECIDED, "out": Reason.NO_OFFER}
    return [
        ("before the greeting", (), never, never),
        ("in the greeting", (s(b"220-mta-b.b.test\r\n220-"),), never, never),
        ("after the greeting", (s(GREETING),), never, never),
        ("in the ehlo", (s(GREETING), c(b"EHLO mta")), never, never),
        ("after the ehlo", (s(GREETING), c(EHLO)), never, never),
        (
            "after the reply",
            opened(),
            {**answered, "receiving": Reason.NO_VERB},
            {**answered, "receiving": NEVER_DECIDED, "inward": NEVER_DECIDED},
        ),
        ("in the envelope", (*opened(), *ENVELOPE), {}, {"inward": Reason.NO_VERB}),
        ("in the data", IN_DATA, {}, {}),
        ("after a mail", (*opened(), *mail()), {}, {}),
        ("after the quit", (*opened(), *mail(), c(b"QUIT\r\n")), {}, {}),
    ]


def ends() -> list[Dialogue]:
    dialogues = []
    for where, steps, if_ended, if_reset in _states():
        last_words = b"451 4.3.0 last words\r\n"
        dialogues += [
            Dialogue(
                f"sender half-closes {where}",
                (*steps, End(SENDER), HearEnd(RECEIVER), s(last_words), End(RECEIVER), HearEnd(SENDER)),
                **if_ended,
            ),
            Dialogue(
                f"receiver half-closes {where}",
                (*steps, End(RECEIVER), HearEnd(SENDER), c(b"NOOP\r\n"), End(SENDER), HearEnd(RECEIVER)),
                **if_ended,
            ),
            Dialogue(
                f"sender resets {where}",
                (*steps, Reset(SENDER), HearReset(RECEIVER)),
                may_end_unbegun=not steps,
                **if_reset,
            ),
            Dialogue(
                f"receiver resets {where}",
                (*steps, Reset(RECEIVER), HearReset(SENDER)),
                may_end_unbegun=not steps,
                **if_reset,
            ),
        ]
    return [*dialogues, *_other_ends()]


def _other_ends() -> list[Dialogue]:
    return [
        Dialogue(
            "receiver half-closes in the reply",
            (
                s(GREETING),
                c(EHLO),
                Say(RECEIVER, REPLY[:40], heard=False),
                End(RECEIVER),
                HearEnd(SENDER),
                *SENDER_LEAVES[:2],
            ),
            NEVER_DECIDED,
            NEVER_DECIDED,
        ),
        Dialogue(
            "sender half-closes behind its first flight",
            (
                *opened(),
                Say(SENDER, FLIGHT + bdat(noise(7, 30_000)) + b"QUIT\r\n", heard=False),
                End(SENDER),
                HearEnd(RECEIVER),
                s(FLIGHT_REPLY + DONE + b"221 Bye\r\n"),
                End(RECEIVER),
                HearEnd(SENDER),
            ),
        ),
        Dialogue("421 in the data", (*IN_DATA, s(b"421 4.3.0 Going down\r\n"), *BOTH_END)),
        Dialogue(
            "421 in the data, and closed",
            (
                *IN_DATA,
                s(b"421 4.3.0 Going down\r\n"),
                Close(RECEIVER),
                HearEnd(SENDER),
                Say(SENDER, b"more of the mail\r\n", heard=False),
                HearReset(SENDER),
            ),
        ),
        Dialogue(
            "receiver closes after its reply to mail",
            (*opened(), *ENVELOPE, Close(RECEIVER), HearEnd(SENDER), End(SENDER)),
        ),
        Dialogue(
            "sender closes after its quit",
            (*opened(), *mail(), Say(SENDER, b"QUIT\r\n"), Close(SENDER), HearEnd(RECEIVER), End(RECEIVER)),
        ),
    ]
