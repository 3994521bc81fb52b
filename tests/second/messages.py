"""Offer, answer, PARAMS, STATEMENT: their fields, and what is checked (docs/protocol.md, 4, 8.4, 10.3)."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from tests.second import mlkem
from tests.second.curve25519 import ed25519_acceptable, ed25519_public, ed25519_sign, ed25519_verifies
from tests.second.lines import FULL_OCTETS, SHORT_OCTETS
from tests.second.noise import Initiator, Refused, Responder

STATEMENT_FOLLOWS, UNUSED = 0x0001, 0x8000
ANSWER_OCTETS = {"full": 1324, "short": 220, "resumed": 68}
LONGEST_ENDORSEMENT = 14


def fingerprint(identity: bytes) -> str:
    """As people are shown it (11)."""
    digest = hashlib.sha512(b"nightmail fingerprint\0" + identity).digest()
    text = base64.b32encode(digest[:20]).decode().lower()
    return "-".join(text[at : at + 4] for at in range(0, 32, 4))


def u16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


@dataclass(frozen=True)
class Offer:
    identity: bytes
    epoch: int
    flags: int
    full: bool


def write_offer(noise: Initiator, seed: bytes, epoch: int, flags: int) -> bytes:
    """Message 1."""
    begun = noise.begin()
    payload = ed25519_public(seed) + u32(epoch) + u16(flags)
    signature = ed25519_sign(seed, b"nightmail offer\0" + noise.state.h + payload)
    return begun + noise.state.encrypt_and_hash(payload + signature)


def read_offer(noise: Responder, message: bytes) -> Offer:
    if len(message) not in (FULL_OCTETS, SHORT_OCTETS):
        raise Refused("length of the offer")
    full = len(message) == FULL_OCTETS
    h, payload = noise.read(message, full)
    signed, signature = payload[:38], payload[38:]
    if not ed25519_acceptable(payload[:32]):
        raise Refused("identity of R")
    if not ed25519_verifies(payload[:32], b"nightmail offer\0" + h + signed, signature):
        raise Refused("signature of the offer")
    if full and not mlkem.acceptable(message[32 : 32 + mlkem.EK]):
        raise Refused("ML-KEM key")
    return Offer(
        payload[:32], int.from_bytes(payload[32:36], "big"), int.from_bytes(payload[36:38], "big"), full
    )


@dataclass(frozen=True)
class Answer:
    identity: bytes
    epoch: int
    not_after: int
    flags: int
    address: bytes
    port: int


def endorse(seed: bytes, static_public: bytes, epoch: int, not_after: int) -> bytes:
    return ed25519_sign(seed, b"nightmail static\0" + static_public + u32(epoch) + u32(not_after))


def answer_payload(answer: Answer, endorsement: bytes) -> bytes:
    """The 124 octets."""
    days = u32(answer.epoch) + u32(answer.not_after) + u16(answer.flags)
    return answer.identity + days + endorsement + answer.address + u16(answer.port)


def _answer_of(payload: bytes) -> Answer:
    epoch, not_after, flags, port = (
        int.from_bytes(payload[begin:end], "big") for begin, end in ((32, 36), (36, 40), (40, 42), (122, 124))
    )
    return Answer(payload[:32], epoch, not_after, flags, payload[106:122], port)


def read_answer(noise: Initiator, message: bytes, own: bytes, today: int) -> Answer:
    """Checks in the order of 4.4."""
    if len(message) != ANSWER_OCTETS["full" if noise.kem_seed else "short"]:
        raise Refused("length of the answer")
    static, payload = noise.finish(message)
    answer = _answer_of(payload)
    if not ed25519_acceptable(answer.identity):
        raise Refused("identity of S")
    if answer.identity == own:
        raise Refused("own identity")
    if not (
        answer.not_after <= answer.epoch + LONGEST_ENDORSEMENT
        and answer.epoch - 1 <= today <= answer.not_after
    ):
        raise Refused("dates of the endorsement")
    signed = b"nightmail static\0" + static + payload[32:40]
    if not ed25519_verifies(answer.identity, signed, payload[42:106]):
        raise Refused("endorsement")
    return answer


def tlv(type_: int, value: bytes) -> bytes:
    return bytes([type_]) + u16(len(value)) + value


def read_params(content: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    while content:
        type_, length = content[0], int.from_bytes(content[1:3], "big")
        value = content[3 : 3 + length]
        if len(content) < 3 or len(value) < length or type_ in values:
            raise Refused("PARAMS")
        values[type_], content = value, content[3 + length :]
    if values.get(2, b"\0") not in (b"\0", b"\1"):
        raise Refused("PARAMS")
    if len(limit := values.get(3, b"\0\1")) != 2 or not 1 <= int.from_bytes(limit, "big") <= 65516:
        raise Refused("PARAMS")
    if not re.fullmatch(rb"[ -~]{1,64}", values.get(4, b"x")):
        raise Refused("PARAMS")
    return values


@dataclass(frozen=True)
class Statement:
    old: bytes
    new: bytes
    serial: int


def write_statement(old_seed: bytes, new_seed: bytes, serial: int) -> bytes:
    """The 196 octets."""
    signed = ed25519_public(old_seed) + ed25519_public(new_seed) + u32(serial)
    old = ed25519_sign(old_seed, b"nightmail statement old\0" + signed)
    return signed + old + ed25519_sign(new_seed, b"nightmail statement new\0" + signed)


def read_statement(content: bytes) -> Statement | None:
    """None for one that cannot count (10.3, condition 1)."""
    old, new, signed = content[:32], content[32:64], content[:68]
    if len(content) != 196 or old == new or not (ed25519_acceptable(old) and ed25519_acceptable(new)):
        return None
    if not ed25519_verifies(old, b"nightmail statement old\0" + signed, content[68:132]):
        return None
    if not ed25519_verifies(new, b"nightmail statement new\0" + signed, content[132:]):
        return None
    return Statement(old, new, int.from_bytes(content[64:68], "big"))
