"""PARAMS there and back; unknown ones ignored, malformed ones refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.crypto.params import Params
from gateway.errors import LocalMisuseError, PeerProtocolError, Reason

KNOWN = st.builds(
    Params,
    dialled_address_confirmed=st.sampled_from([None, True, False]),
    record_limit=st.none() | st.integers(1, 65516),
    software=st.none()
    | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=64),
)


@given(KNOWN)
def test_there_and_back(params: Params) -> None:
    assert Params.decode(params.encode()) == params


def test_octets() -> None:
    params = Params(dialled_address_confirmed=True, record_limit=16384, software="nightmail 0.1")
    assert params.encode() == b"\x02\0\x01\x01\x03\0\x02\x40\0\x04\0\x0dnightmail 0.1"
    assert Params().encode() == b""


@given(st.sampled_from([0, 1, 5, 6, 0x7F, 0xFF]), st.binary(max_size=40))
def test_unknown_ones_are_ignored(kind: int, value: bytes) -> None:
    unknown = bytes((kind,)) + len(value).to_bytes(2, "big") + value
    assert Params.decode(unknown + b"\x02\0\x01\x00") == Params(dialled_address_confirmed=False)


@pytest.mark.parametrize(
    "content",
    [
        b"\x02",
        b"\x02\0",
        b"\x02\0\x01",
        b"\x02\0\x02\x01",
        b"\x09\xff\xff",
        b"\x02\0\0",
        b"\x02\0\x01\x02",
        b"\x02\0\x02\0\x01",
        b"\x03\0\x01\x01",
        b"\x03\0\x02\0\0",
        b"\x03\0\x02\xff\xff",
        b"\x04\0\0",
        b"\x04\0\x01\n",
        b"\x04\0\x01\xff",
        b"\x04\0\x41" + b"a" * 65,
        b"\x02\0\x01\x01\x02\0\x01\x01",
        b"\x09\0\0\x09\0\0",
    ],
)
def test_malformed_ones_are_refused(content: bytes) -> None:
    with pytest.raises(PeerProtocolError) as caught:
        Params.decode(content)
    assert caught.value.reason is Reason.BAD_PARAMS


@given(st.binary(max_size=60))
def test_garbage_gives_params_or_an_error(content: bytes) -> None:
    try:
        Params.decode(content)
    except PeerProtocolError as error:
        assert error.reason is Reason.BAD_PARAMS


@pytest.mark.parametrize(
    "params", [Params(record_limit=0), Params(record_limit=65517), Params(software=""), Params(software="ä")]
)
def test_what_does_not_fit_is_our_mistake(params: Params) -> None:
    with pytest.raises(LocalMisuseError):
        params.encode()
