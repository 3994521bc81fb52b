"""Attacks on STARTTLS and SMTP that others have published, turned against this protocol; octets as published.

`striptls.json`, `east_smtp_testcases.json` (the cases of "NO STARTTLS"), `smtp_fake_eod.json`: see
`tests/vectors/SOURCES-smtp.md`. Where a case speaks of STARTTLS, ours speaks of our keyword or our verb.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attackers import ground, verdict
from tests.attackers.altering import (
    EhloRefused,
    OfferInTheDomainLine,
    OtherGreeting,
    StripOffer,
    lines_joined,
    mask_offer,
    mask_offer_with_a,
    one_letter,
)
from tests.attackers.attack import Attack, End, Kind
from tests.attackers.cutting import Cut
from tests.attackers.expectations import Mail, Row, Seen, retried
from tests.attackers.ground import Ground, Trial
from tests.attackers.impersonating import OwnKeys
from tests.attackers.injecting import AnswerVerb, Inject
from tests.attackers.parties import mail
from tests.lab.conftest import build_bare, slot

VECTORS = Path(__file__).parent.parent / "vectors"
CLEAR_OCTETS = "clear-octets-in-channel"


def load(name: str) -> dict[str, Any]:
    found = json.loads((VECTORS / name).read_text())
    assert isinstance(found, dict)
    return found


def in_clear(name: str, attack: Callable[[], Attack], decided: str = "offer-missing") -> Row:
    return Row(name, "", attack, True, Mail.DELIVERED, Seen.BY_ALL, decided, alarm=True)


def not_sent(name: str, attack: Callable[[], Attack], decided: str, alarm: bool) -> Row:
    return Row(name, "", attack, True, Mail.REFUSED_BY_SENDER, Seen.NOTHING, decided, alarm=alarm)


# --- striptls ---------------------------------------------------------------------------------------------


def striptls() -> list[Row]:
    """By name: what the tool does, done to our keyword and our verb."""
    said = {
        one["name"].removeprefix("SMTP."): one.get("injected_reply_octets", "").encode()
        for one in load("striptls.json")["vectors"]
    }
    verb_answered = (
        "StripWithInvalidResponseCode",
        "StripWithTemporaryError",
        "StripWithError",
    )
    rows = [in_clear("StripFromCapabilities", StripOffer)]
    for name in verb_answered:
        rows.append(retried(name, "", lambda reply=said[name]: AnswerVerb(reply), CLEAR_OCTETS))
    rows += [
        in_clear(
            "ProtocolDowngradeStripExtendedMode",
            lambda: EhloRefused(said["ProtocolDowngradeStripExtendedMode"]),
        ),
        Row("UntrustedIntercept", "", lambda: OwnKeys("intercept"), True, Mail.DELIVERED, Seen.BY_HIM,
            "upgraded-changed-peer", alarm=True),
        retried("InjectCommand", "",
                lambda: Inject(End.S, Kind.VERB, b"INJECTED_INVALID_COMMAND\r\n"), CLEAR_OCTETS),
    ]  # fmt: skip
    further = {
        "same-length X mask": mask_offer,
        "same-length mask with A": mask_offer_with_a,
        "one letter changed": one_letter,
        "keyword moved to the domain line": OfferInTheDomainLine,
        "line joined": lines_joined,
    }
    rows += [in_clear(name, attack) for name, attack in further.items()]
    rows.append(not_sent("reply cut", lambda: Cut(End.R, Kind.REPLY, 120), "ended-before-decision", False))
    return rows


LEFT_OUT_OF_STRIPTLS = {
    # There is nothing to force in: without an offer of R's nobody can answer; his own is UntrustedIntercept.
    "SMTP.InboundStarttlsProxy",
    "SMTP.InboundStarttlsProxy (one-line reply)",
}


def test_every_case_of_striptls_is_here_or_named() -> None:
    vectors = load("striptls.json")
    published = {one["name"] for one in vectors["vectors"]} - LEFT_OUT_OF_STRIPTLS
    published = {name.removeprefix("SMTP.") for name in published}
    published |= {one["name"] for one in vectors["further_tampering"]}
    assert {row.name for row in striptls()} == published


# --- NO STARTTLS ------------------------------------------------------------------------------------------


def east(case: dict[str, Any]) -> Row | None:
    """The row of one case; None where it has no meaning without TLS or certificates."""
    name: str = case["id"]
    said = [bytes.fromhex(step["hex"]) for step in case["steps"] if "hex" in step]
    behind = [step.get("expects", "") for step in case["steps"]]
    if case["attacked"] == "server":
        command = b"EHLO a.test\r\n" if "ehlo" in name or "buffering" in name else b"NOOP\r\n"
        return retried(name, "", lambda: Inject(End.S, Kind.VERB, command), CLEAR_OCTETS)
    if case["category"] in ("greeting", "quit"):
        return greeted(name, said[0])
    if case["category"] in ("ehlo", "helo", "rset") or name == "Negotiation/D_1":
        return refused(name, said[1])
    at = next((i for i, words in enumerate(behind) if words.startswith("STARTTLS")), None)
    if at is None:
        return stripped(name) if not any(b"STARTTLS" in octets for octets in said) else None
    if "O_1" in name:
        return stripped(name)
    reply = next((bytes.fromhex(step["hex"]) for step in case["steps"][at:] if "hex" in step), b"")
    takes_tls = reply.startswith(b"220") and any("tls" in step for step in case["steps"])
    if takes_tls and reply.count(b"\n") == 1:
        return None
    return retried(name, "", lambda: AnswerVerb(reply), CLEAR_OCTETS)


def greeted(name: str, greeting: bytes) -> Row | None:
    if greeting.startswith(b"220"):
        return None
    closing = greeting.startswith(b"421")
    decided = "greeting-refused" if closing else "offer-missing"
    return not_sent(name, lambda: OtherGreeting(greeting), decided, not closing)


def refused(name: str, reply: bytes) -> Row | None:
    if reply.startswith(b"250"):
        return stripped(name)
    if reply.startswith(b"421"):
        return not_sent(name, lambda: EhloRefused(reply), "ehlo-refused", False)
    return in_clear(name, lambda: EhloRefused(reply))


def stripped(name: str) -> Row:
    return in_clear(name, StripOffer)


def east_rows() -> list[Row]:
    found = (east(case) for case in load("east_smtp_testcases.json")["tests"])
    return [row for row in found if row is not None]


def test_most_cases_of_no_starttls_are_here() -> None:
    """The others need TLS within the session, or certificates."""
    published = {case["id"] for case in load("east_smtp_testcases.json")["tests"]}
    left_out = published - {row.name for row in east_rows()}
    assert left_out == {
        "Buffering/B_1",
        "Buffering/B_1-step1",
        "certificate/T_1",
        "certificate/T_2",
        "certificate/T_3",
        "certificate/T_4",
        "others/greeting/220",
        "setup",
        "setup_opportunistic_encryption",
    }


# --- On the wire ------------------------------------------------------------------------------------------

ROWS = [*striptls(), *east_rows()]


@pytest.fixture(scope="module")
def field() -> Iterator[Ground]:
    with slot() as lab:
        build_bare(lab, with_gateways=False, with_listener=False)
        with ground.opened(lab) as made:
            yield made


@pytest.fixture(scope="module")
def outcomes(field: Ground) -> dict[str, Trial]:
    trials = {}
    for row in ROWS:
        assert row.attack is not None
        trials[row.name] = field.trial(row.attack, field.target(), patience=row.patience)
    field.meet(one.target for one in trials.values())
    field.attempt(list(trials.values()))
    return trials


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_a_published_attack_achieves_no_more_than_it_must(row: Row, outcomes: dict[str, Trial]) -> None:
    verdict.check(row, outcomes[row.name])


# --- Smuggling --------------------------------------------------------------------------------------------

SMUGGLED = b"MAIL FROM:<smuggled@a.test>\r\nRCPT TO:<bob@b.test>\r\nDATA\r\nsmuggled\r\n"


def test_no_sequence_ends_the_content_early(field: Ground) -> None:
    """Whatever some server takes for an end of data: the receiver gets octet for octet what was said."""
    target = field.target()
    field.meet([target])
    vectors = load("smtp_fake_eod.json")
    true_end = bytes.fromhex(vectors["valid_end_of_data_hex"])
    # Those that hold the true end as well are the sender's own doing, with gateways or without.
    found = [bytes.fromhex(one["hex"]) for one in vectors["sequences"]]
    sequences = [octets for octets in found if true_end not in octets]
    assert len(sequences) >= 20
    trials = []
    for octets in sequences:
        one = field.trial(Attack, target)
        one.mail = mail(one.mail.name, b"body" + octets + SMUGGLED)
        trials.append(one)
    for one in field.attempt(trials):
        assert one.mails == [one.mail.content], str(one)
        assert b"DATA\r\n" + one.mail.content + b".\r\nQUIT\r\n" in bytes(one.received[0].heard)
        assert one.at_s.decided == "upgraded"
        assert b"smuggled" not in one.on_the_wire
