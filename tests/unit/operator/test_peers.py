"""Naming a peer, and showing it."""

import json

import pytest

from gateway.crypto.keys import IdentityKey
from gateway.operator.peers import as_json, chosen, destination, fingerprint, in_full, in_one_line
from gateway.peers.pins import Acceptance, Destination, Pin, PinnedIdentity

NOW = 1_800_000_000
A = IdentityKey.from_seed(b"a" * 32).public
B = IdentityKey.from_seed(b"b" * 32).public


def known(identity: bytes, acceptance: Acceptance, full: bool = True) -> PinnedIdentity:
    return PinnedIdentity(identity, 20_000, NOW, NOW + 60, 2, acceptance, full)


ANNOUNCED = PinnedIdentity(B.octets, 0, NOW, NOW, 0, Acceptance.STATEMENT, False)
PIN = Pin(
    Destination("2001:db8::7", 25),
    (known(A.octets, Acceptance.FIRST_USE), known(B.octets, Acceptance.NOT_YET, full=False)),
)


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.7", "192.0.2.7", 25),
        ("192.0.2.7:2525", "192.0.2.7", 2525),
        ("2001:db8::7", "2001:db8::7", 25),
        ("2001:DB8:0::7", "2001:db8::7", 25),
        ("[2001:db8::7]", "2001:db8::7", 25),
        ("[2001:db8::7]:26", "2001:db8::7", 26),
        ("::ffff:192.0.2.7", "192.0.2.7", 25),
        ("[::FFFF:192.0.2.7]:26", "192.0.2.7", 26),
    ],
)
def test_destination(text: str, address: str, port: int) -> None:
    assert destination(text) == Destination(address, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mx.example.org",
        "mx.example.org:25",
        "192.0.2.7:",
        "192.0.2.7:0",
        "192.0.2.7:65536",
        "192.0.2.7:\u0662\u0665",
        "[2001:db8::7]:" + "1" * 5000,
        "[192.0.2.7",
        "1.2.3",
    ],
)
def test_no_destination(text: str) -> None:
    assert destination(text) is None


def test_what_is_shown_is_what_is_asked_for() -> None:
    """`str` of a destination, as `peers list` prints it, names it again."""
    assert destination(str(PIN.destination)) == PIN.destination


def test_chosen_by_the_beginning_of_the_fingerprint() -> None:
    assert chosen(PIN, B.fingerprint) == [PIN.identities[1]]
    assert chosen(PIN, B.fingerprint[:6].upper()) == [PIN.identities[1]]
    assert chosen(PIN, B.fingerprint[:3]) == []
    assert chosen(PIN, "zzzz") == []
    assert chosen(PIN, "") == []


def test_shown() -> None:
    assert in_one_line(PIN) == (
        "[2001:db8::7]:25  1 identity, 1 SEEN BUT NOT ACCEPTED, last seen 2027-01-15 08:01 UTC"
    )
    text = "\n".join(in_full(PIN))
    assert A.fingerprint in text
    assert "SEEN, NOT ACCEPTED" in text
    assert "without post-quantum key" in text


def test_of_an_announced_identity_no_offers_are_told() -> None:
    """None has been seen: it is no weaker one."""
    lines = list(in_full(Pin(PIN.destination, (known(A.octets, Acceptance.FIRST_USE), ANNOUNCED))))
    assert lines[-3:] == [
        f"  {B.fingerprint}",
        "    accepted: an accepted identity has led here, announced and not seen yet",
        "    announced 2027-01-15 08:00 UTC",
    ]


def test_json() -> None:
    found = json.loads(json.dumps(as_json(PIN)))
    assert [one["fingerprint"] for one in found["identities"]] == [A.fingerprint, B.fingerprint]
    assert [one["accepted"] for one in found["identities"]] == [True, False]


@pytest.mark.parametrize("acceptance", Acceptance)
def test_every_acceptance_has_words(acceptance: Acceptance) -> None:
    assert any(
        "ccepted" in line or "ACCEPTED" in line
        for line in in_full(Pin(PIN.destination, (known(A.octets, acceptance),)))
    )


def test_damaged_identity_is_shown_as_such() -> None:
    assert fingerprint(bytes(32)) == "(no valid identity)"
