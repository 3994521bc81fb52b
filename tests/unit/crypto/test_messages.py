"""The tables of fields: sizes as the protocol names them, both ways, and what does not fit."""

from __future__ import annotations

import pytest

from gateway.crypto.messages import (
    ANSWER_PAYLOAD,
    OFFER_PAYLOAD,
    STATEMENT,
    DialledAddress,
    Layout,
    OfferForm,
    prologue,
)
from gateway.errors import LocalMisuseError, PeerProtocolError

LAYOUTS = (OFFER_PAYLOAD, ANSWER_PAYLOAD, STATEMENT)
by_name = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)


def test_sizes() -> None:
    assert [layout.octets for layout in LAYOUTS] == [102, 124, 196]
    assert [(form.octets, form.answer_octets) for form in OfferForm] == [(1350, 1324), (166, 220)]


def test_the_form_follows_from_the_length_alone() -> None:
    assert OfferForm.of_offer(bytes(1350)) is OfferForm.FULL
    assert OfferForm.of_offer(bytes(166)) is OfferForm.SHORT
    for length in (0, 165, 167, 1349, 1351):
        with pytest.raises(PeerProtocolError):
            OfferForm.of_offer(bytes(length))


@by_name
def test_encode_and_decode(layout: Layout) -> None:
    message = bytes(index % 251 for index in range(layout.octets))
    values = layout.decode(message)
    assert list(values) == [field.name for field in layout.fields]
    assert layout.encode(values) == message


@by_name
def test_every_other_length_is_refused(layout: Layout) -> None:
    for length in [*range(layout.octets), layout.octets + 1]:
        with pytest.raises(PeerProtocolError):
            layout.decode(bytes(length))


def test_numbers_are_big_endian() -> None:
    values = ANSWER_PAYLOAD.decode(bytes(32) + b"\x01\x02\x03\x04" + bytes(ANSWER_PAYLOAD.octets - 36))
    assert values["epoch"] == 0x01020304


@by_name
def test_what_does_not_fit_is_our_mistake(layout: Layout) -> None:
    good = layout.decode(bytes(layout.octets))
    for field in layout.fields:
        wrong: list[bytes | int] = [
            bytes(field.octets + 1),
            bytes(field.octets - 1),
            -1,
            1 << 8 * field.octets,
        ]
        for value in wrong:
            with pytest.raises(LocalMisuseError):
                layout.encode(good | {field.name: value})
    with pytest.raises(LocalMisuseError):
        layout.encode({})
    with pytest.raises(LocalMisuseError):
        layout.encode(good | {"more": 1})


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("192.0.2.1", bytes(10) + b"\xff\xff\xc0\x00\x02\x01"),
        ("2001:db8::1", b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
    ],
)
def test_dialled_addresses(text: str, octets: bytes) -> None:
    dialled = DialledAddress.from_text(text, 25)
    assert dialled == DialledAddress(octets, 25)
    assert dialled.address == text
    assert str(dialled) == f"[{text}]:25"


@pytest.mark.parametrize(("octets", "port"), [(bytes(4), 25), (bytes(16), -1), (bytes(16), 65536)])
def test_addresses_that_cannot_be(octets: bytes, port: int) -> None:
    with pytest.raises(LocalMisuseError):
        DialledAddress(octets, port)


def test_prologue_tells_where_one_side_ends() -> None:
    assert prologue(b"ab", b"c") == b"Nightmail 1\0\0\0\0\x02ab\0\0\0\x01c"
    assert prologue(b"a", b"bc") != prologue(b"ab", b"c")
