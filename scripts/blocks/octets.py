"""Octet tables of everything on the wire, from the layouts that the code encodes and decodes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.crypto import params
from gateway.crypto.frames import FRAME_HEADER_OCTETS, FrameKind
from gateway.crypto.handshake import PATTERNS
from gateway.crypto.messages import (
    ANSWER_PAYLOAD,
    OFFER_PAYLOAD,
    RESUMED_ANSWER_OCTETS,
    RESUMED_ANSWER_PAYLOAD,
    RESUMED_OFFER_OCTETS,
    RESUMED_OFFER_PAYLOAD,
    STATEMENT,
    TICKET_NAME_OCTETS,
    AnswerFlags,
    Layout,
    OfferFlags,
    OfferForm,
)
from gateway.crypto.noise import IXHFS, NNPSK0, Token
from gateway.crypto.primitives import (
    AEAD_TAG_OCTETS,
    MLKEM_CIPHERTEXT_OCTETS,
    MLKEM_PUBLIC_OCTETS,
    X25519_OCTETS,
)
from gateway.crypto.records import INNER_HEADER_OCTETS, RECORD_OVERHEAD_OCTETS, RecordType
from gateway.policy.limits import (
    FRAME_BODY_OCTETS,
    PARAMS_VERSION_OCTETS,
    RECORD_CONTENT_OCTETS,
    RECORD_INNER_OCTETS,
)
from scripts.blocks.tables import table

_TOKEN_OCTETS = {
    Token.E: X25519_OCTETS,
    Token.S: X25519_OCTETS,
    Token.E1: MLKEM_PUBLIC_OCTETS,
    Token.EKEM1: MLKEM_CIPHERTEXT_OCTETS,
}
_OFFER_WORDS: Mapping[object, str] = {
    Token.E: "ephemeral X25519 key of R",
    Token.E1: "ephemeral ML-KEM-768 encapsulation key of R",
    Token.S: "static X25519 key of R",
    "identity": "Ed25519 public key of R",
    "epoch": "u32, day number of `s`",
    "flags": "u16, below",
    "signature": "Ed25519, below",
}
_ANSWER_WORDS: Mapping[object, str] = {
    Token.E: "ephemeral X25519 key of S",
    Token.EKEM1: "ML-KEM-768 ciphertext",
    Token.S: "static X25519 key of S",
}
_ANSWER_PAYLOAD_WORDS = {
    "identity": "Ed25519 public key of S",
    "epoch": "u32, day number of S's static key",
    "not_after": "u32, last day of its endorsement",
    "flags": "u16, below",
    "endorsement": "Ed25519, below",
    "address": "the address that S dialled; IPv4 as `::ffff:a.b.c.d`",
    "port": "u16, the port that S dialled",
}
_STATEMENT_WORDS = {
    "old": "Ed25519 public key, the identity that is left",
    "new": "Ed25519 public key, the identity that is taken",
    "serial": "u32, higher in each statement of the old identity",
    "by_old": 'Ed25519 by the old identity over `"nightmail statement old\\0"` and octets 0 to 67',
    "by_new": 'Ed25519 by the new identity over `"nightmail statement new\\0"` and octets 0 to 67',
}
_FLAG_WORDS = {
    "STATEMENT_FOLLOWS": "R will send a STATEMENT ([10.3](#103-rollover))",
    "KEEPS_TICKET": "the writer keeps a ticket of it, if the other side does ([4.6](#46-tickets))",
    "UNUSED": "nothing, for ever",
}
_RECORD_WORDS = {
    RecordType.PAD: ("none", "nothing"),
    RecordType.DATA: ("octets of the mail server; may be empty", "pass them"),
    RecordType.CLOSE: ("none", "this direction has ended ([9](#9-closing))"),
    RecordType.RESET: ("none", "the mail server's connection was reset"),
    RecordType.PARAMS: ("TLVs ([8.4](#84-params))", "what the writer tells about itself"),
    RecordType.STATEMENT: (
        f"{STATEMENT.octets} octets, else it does not count ([10.3](#103-rollover))",
        "an identity leads to another",
    ),
    RecordType.OPEN: ("", "reserved: MUST NOT be sent; error if received"),
    RecordType.END: ("", "reserved: MUST NOT be sent; error if received"),
}
_PARAM_WORDS = {
    "PROMISE": ("R", "any", "reserved, MUST NOT be sent: days for which R promises to keep offering"),
    "ADDRESS_CONFIRMED": ("R", "1", "u8: 1 if the dialled address is R's own, else 0"),
    "RECORD_LIMIT": (
        "both",
        "2",
        f"u16, 1 to {RECORD_CONTENT_OCTETS:,}: most content octets in a record to this side; a wish",
    ),
    "SOFTWARE": (
        "both",
        f"1 to {PARAMS_VERSION_OCTETS}",
        "octets 0x20 to 0x7E: name and version; only where the operator allows it",
    ),
    "WILLING": ("both", "any", "reserved, MUST NOT be sent: later features"),
}

Row = tuple[str, str, int]
"""Name, meaning, octets on the wire."""


def _message(
    tokens: Sequence[Token], payload: Sequence[Row], words: Mapping[object, str], has_key: bool
) -> list[Row]:
    """The rows of one message; what is behind the first key exchange is encrypted, and a tag follows it."""
    rows: list[Row] = []
    for token in tokens:
        size = _TOKEN_OCTETS.get(token)
        if size is None:
            has_key = True
            continue
        sealed = has_key and token is not Token.E
        if token is Token.EKEM1 and not sealed:
            raise ValueError("ekem1 before a key")
        name = f"`{token.value}`, encrypted, tag" if sealed else f"`{token.value}`"
        rows.append((name, words[token], size + (AEAD_TAG_OCTETS if sealed else 0)))
    return [*rows, *payload]


def _fields(layout: Layout, words: Mapping[str, str]) -> list[Row]:
    if {field.name for field in layout.fields} - words.keys():
        raise ValueError(f"{layout.name} has a field without a meaning")
    return [(field.name.replace("_", "-"), words[field.name], field.octets) for field in layout.fields]


def _both_forms(full: list[Row], short: list[Row], sizes: Mapping[OfferForm, int]) -> str:
    """One table for a message in its two forms; offsets are those of each form."""
    at_short, place = {}, 0
    for name, _, octets in short:
        at_short[name] = place
        place += octets
    rows, at = [], 0
    for name, meaning, octets in full:
        rows.append(
            [f"{octets:,}", name, meaning, f"{at:,}", f"{at_short[name]:,}" if name in at_short else "–"]
        )
        at += octets
    if (at, place) != (sizes[OfferForm.FULL], sizes[OfferForm.SHORT]):
        raise ValueError(f"{at} and {place} octets, and the code says {sizes}")
    rows.append(["", "**in all**", "", f"**{at:,}**", f"**{place:,}**"])
    return table(["octets", "field", "meaning", "at, full", "at, short"], rows)


def offer_octets() -> str:
    payload = _fields(
        OFFER_PAYLOAD, {key: word for key, word in _OFFER_WORDS.items() if isinstance(key, str)}
    )
    forms = {form: _message(PATTERNS[form].messages[0], payload, _OFFER_WORDS, False) for form in OfferForm}
    sizes = {form: form.octets for form in OfferForm}
    return _both_forms(forms[OfferForm.FULL], forms[OfferForm.SHORT], sizes)


def answer_octets() -> str:
    payload: Row = (
        "payload, encrypted, tag",
        "below",
        ANSWER_PAYLOAD.octets + AEAD_TAG_OCTETS,
    )
    forms = {
        form: _message(PATTERNS[form].messages[1], [payload], _ANSWER_WORDS, False) for form in OfferForm
    }
    sizes = {form: form.answer_octets for form in OfferForm}
    return _both_forms(forms[OfferForm.FULL], forms[OfferForm.SHORT], sizes)


def resumed_offer_octets() -> str:
    name: Row = ("name", "of the ticket", TICKET_NAME_OCTETS)
    words: Mapping[object, str] = {Token.E: "ephemeral X25519 key of R"}
    payload = _sealed(RESUMED_OFFER_PAYLOAD, "flags, encrypted, tag", "u16 ([4.3](#43-message-1-the-offer))")
    return _one_form([name, *_message(NNPSK0.messages[0], [payload], words, True)], RESUMED_OFFER_OCTETS)


def resumed_answer_octets() -> str:
    words: Mapping[object, str] = {Token.E: "ephemeral X25519 key of S"}
    fields = "flags u16, address 16, port u16, each as in [4.4](#44-message-2-the-answer)"
    payload = _sealed(RESUMED_ANSWER_PAYLOAD, "payload, encrypted, tag", fields)
    return _one_form(_message(NNPSK0.messages[1], [payload], words, True), RESUMED_ANSWER_OCTETS)


def _sealed(layout: Layout, name: str, meaning: str) -> Row:
    return (name, meaning, layout.octets + AEAD_TAG_OCTETS)


def _one_form(message: list[Row], size: int) -> str:
    rows: list[list[object]] = []
    at = 0
    for name, meaning, octets in message:
        rows.append([octets, name, meaning, at])
        at += octets
    if at != size:
        raise ValueError(f"{at} octets, and the code says {size}")
    rows.append(["", "**in all**", "", f"**{at}**"])
    return table(["octets", "field", "meaning", "at"], rows)


def answer_payload_octets() -> str:
    return _layout(ANSWER_PAYLOAD, _ANSWER_PAYLOAD_WORDS)


def statement_octets() -> str:
    return _layout(STATEMENT, _STATEMENT_WORDS)


def _layout(layout: Layout, words: Mapping[str, str]) -> str:
    rows, at = [], 0
    for name, meaning, octets in _fields(layout, words):
        rows.append([octets, name, meaning, at])
        at += octets
    rows.append(["", "**in all**", "", f"**{at}**"])
    return table(["octets", "field", "meaning", "at"], rows)


def flags() -> str:
    known = {flag.value: flag.name for flag in OfferFlags if flag.value}
    of_answer = {flag.value for flag in AnswerFlags if flag.value}
    rows = [
        [f"0x{value:04X}", name, "both" if value in of_answer else "offer", _FLAG_WORDS[str(name)]]
        for value, name in sorted(known.items())
    ]
    rows.append(["others", "", "both", "reserved: a writer MUST clear them, a reader MUST ignore them"])
    return table(["flag", "name", "in", "meaning"], rows)


def frame_types() -> str:
    lengths = ", ".join(f"{form.answer_octets:,}" for form in OfferForm) + f" or {RESUMED_ANSWER_OCTETS}"
    shortest = INNER_HEADER_OCTETS + AEAD_TAG_OCTETS
    words = {
        FrameKind.ANSWER: (
            "answer (message 2); the first frame from S, once",
            f"{lengths}, as the offer was",
        ),
        FrameKind.RECORD: ("record ([8](#8-records))", f"{shortest} to {FRAME_BODY_OCTETS:,}"),
    }
    rows = [[f"0x{kind:02X}", *words[kind]] for kind in FrameKind]
    rows.append(["any other from 0x80 up", "error", ""])
    rows.append(["below 0x80", "error: clear octets in the channel", ""])
    return table(["type", "body", "length"], rows)


def frame_octets() -> str:
    rows: list[list[object]] = [
        [1, "type", "u8, below", 0],
        [2, "length", "u16, octets of the body", 1],
        ["length", "body", "", FRAME_HEADER_OCTETS],
    ]
    return table(["octets", "field", "meaning", "at"], rows)


def record_octets() -> str:
    head = FRAME_HEADER_OCTETS
    rows: list[list[object]] = [
        [1, "type", f"u8, 0x{FrameKind.RECORD:02X}", "no", 0],
        [2, "length", "u16, octets of the body: inner and tag", "no", 1],
        [1, "inner type", "u8, [8.2](#82-types)", "yes", head],
        [2, "inner length", "u16, octets of content", "yes", head + 1],
        ["inner length", "content", "", "yes", head + INNER_HEADER_OCTETS],
        ["any number", "zeros", "padding", "yes", ""],
        [AEAD_TAG_OCTETS, "tag", "Poly1305", "", "the last ones"],
    ]
    return table(["octets", "field", "meaning", "encrypted", "at"], rows)


def record_sizes() -> str:
    if FRAME_BODY_OCTETS - AEAD_TAG_OCTETS != RECORD_INNER_OCTETS:
        raise ValueError("body, tag and inner do not agree")
    rows = [
        ["frame body", f"{FRAME_BODY_OCTETS:,} octets"],
        ["inner", f"{RECORD_INNER_OCTETS:,} octets"],
        ["content and zeros", f"{RECORD_CONTENT_OCTETS:,} octets"],
        ["what a record adds to its content", f"{RECORD_OVERHEAD_OCTETS} octets and its zeros"],
    ]
    return table(["", "at most"], rows)


def record_types() -> str:
    rows: list[list[object]] = []
    for kind in RecordType:
        if kind is not RecordType.IGNORABLE:
            rows.append([int(kind), kind.name, *_RECORD_WORDS[kind]])
    first_free = max(int(kind) for kind in _RECORD_WORDS) + 1
    low = int(RecordType.IGNORABLE)
    rows.append([f"{first_free} to 0x{low - 1:02X}", "", "", "unassigned: error if received"])
    rows.append([f"0x{low:02X} to 0xFF", "", "any", "unassigned: MUST be ignored if unknown"])
    return table(["type", "name", "content", "meaning"], rows)


def params_octets() -> str:
    rows: list[list[object]] = [
        [1, "type", "u8, below", 0],
        [2, "length", "u16, octets of the value", 1],
        ["length", "value", "", params._HEADER_OCTETS],
    ]
    return table(["octets", "field", "meaning", "at, from where the one before ends"], rows)


def params_types() -> str:
    rows = []
    for kind in params.ParamType:
        from_whom, octets, meaning = _PARAM_WORDS[kind.name]
        rows.append([f"0x{kind:02X}", kind.name, from_whom, octets, meaning])
    return table(["type", "name", "from", "octets", "value"], rows)


def message_sizes() -> str:
    rows = [
        [
            form.value,
            f"{form.octets:,}",
            f"{form.answer_octets:,}",
            f"`{PATTERNS[form].protocol_name.decode()}`",
        ]
        for form in OfferForm
    ]
    name = f"`{NNPSK0.protocol_name.decode()}`"
    rows.append(["resumed", str(RESUMED_OFFER_OCTETS), str(RESUMED_ANSWER_OCTETS), name])
    return table(["form", "offer, octets", "answer, octets", "Noise protocol name"], rows)


def noise_patterns() -> str:
    lines = []
    for pattern in (*(PATTERNS[form] for form in OfferForm), NNPSK0):
        lines += [pattern.protocol_name.decode()]
        for arrow, tokens in zip(("->", "<-"), pattern.messages, strict=True):
            lines.append(f"  {arrow} {', '.join(token.value for token in tokens)}")
    if PATTERNS[OfferForm.FULL] is not IXHFS:
        raise ValueError("the full form is IXhfs")
    return "\n".join(["```text", *lines, "```"])
