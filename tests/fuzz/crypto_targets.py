"""The crypto room: frames, records behind the AEAD, both messages behind Noise, PARAMS, STATEMENT.

The fuzzer cannot forge a tag or a signature, so these targets hold the keys and seal what it wants said.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.crypto.frames import FRAME_HEADER_OCTETS, FrameKind, FrameReader, frame, frame_header
from gateway.crypto.handshake import _PROOF, PATTERNS, OfferForm, TrafficCiphers
from gateway.crypto.keys import Ephemerals, IdentityPublic, Label, StaticKey
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
    OfferFlags,
)
from gateway.crypto.noise import NNPSK0, CipherState, HandshakeState, NoiseRole
from gateway.crypto.params import Params
from gateway.crypto.primitives import X25519_OCTETS, X25519Private
from gateway.crypto.records import Direction, Record, RecordLayer, RecordType
from gateway.crypto.resumption import ReceivingResumption, SendingResumption, ticket_name
from gateway.crypto.statement import read_statement
from gateway.crypto.tickets import Ticket
from gateway.errors import PeerProtocolError, Reason
from tests.fuzz.target import Cursor, Target, allowed, pieces
from tests.unit.crypto.pairs import (
    PROLOGUE,
    R_IDENTITY,
    R_STATIC,
    S_ENDORSED,
    S_IDENTITY,
    TODAY,
    entropy_for_testing_only,
    handshaken,
    receiving,
    sending,
)
from tests.unit.crypto.pairs import (
    octets as drawn,
)

_LONGEST_FRAME = 3 + 65535


def frames(octets: bytes) -> None:
    """However they are cut, the same frames come out, and no octet is lost."""
    at = Cursor(octets)
    size = at.u8()
    said = at.rest()
    reader = FrameReader()
    seen, gone = b"", 0
    for piece in pieces(said, size):
        gone += len(piece)
        try:
            new = reader.feed(piece)
        except PeerProtocolError as error:
            assert error.reason in (Reason.BAD_FRAME, Reason.CLEAR_OCTETS_IN_CHANNEL)
            return
        seen += b"".join(frame(one.kind, one.body) for one in new)
        assert said[:gone].startswith(seen) and len(seen) + reader.held_octets == gone
        assert reader.held_octets < _LONGEST_FRAME


_RESULT = handshaken().at_sending
_KEY = drawn("a traffic key of the fuzzer's", 32)


def _layer() -> tuple[RecordLayer, CipherState]:
    """A layer that opens what the second seals; the handshake behind it was done once."""
    result = replace(_RESULT, ciphers=TrafficCiphers(_KEY, _KEY), proof=_PROOF)
    return RecordLayer(result), CipherState(_KEY)


def records(octets: bytes) -> None:
    """A sequence of records with any inner plaintext, some with a tag that does not verify."""
    at = Cursor(octets)
    layer, cipher = _layer()
    while at.more:
        choice = at.u8()
        inner = at.take(at.u16() if choice & 1 else at.u8())
        if choice & 2:  # a true header over what the fuzzer wants inside, and padding
            inner = bytes((choice >> 3,)) + len(inner).to_bytes(2, "big") + inner + bytes(at.u8())
        header = frame_header(FrameKind.RECORD, len(inner) + 16)
        body = cipher.encrypt_with_ad(header, inner)
        if choice & 4 and at.u8() == 0:
            body = body[:-1] + bytes((body[-1] ^ 1,))
        try:
            record = layer.open(body)
        except PeerProtocolError as error:
            assert error.reason in (Reason.BAD_TAG, Reason.BAD_RECORD, Reason.OCTETS_AFTER_CLOSE)
            assert layer.receives is Direction.DEAD
            return
        _check_record(record, inner)


def _check_record(record: Record, inner: bytes) -> None:
    length = int.from_bytes(inner[1:3], "big")
    assert 3 + length <= len(inner) and not inner[3 + length :].strip(b"\0")
    if inner[0] >= RecordType.IGNORABLE:
        assert record == Record(RecordType.IGNORABLE, b"")
    else:
        assert (int(record.kind), record.content) == (inner[0], inner[3 : 3 + length])
    if record.kind is RecordType.PARAMS:
        allowed(lambda: Params.decode(record.content))
    elif record.kind is RecordType.STATEMENT:
        allowed(lambda: read_statement(record.content))


def params(octets: bytes) -> None:
    """What was decoded encodes to what decodes to the same."""
    decoded = allowed(lambda: Params.decode(octets))
    if decoded is not None:
        assert Params.decode(decoded.encode()) == decoded
        assert decoded.software is None or decoded.software.isprintable()


def statement(octets: bytes) -> None:
    """Any octets, or fields of the fuzzer's with both signatures true or one of them."""
    at = Cursor(octets)
    choice = at.u8()
    content = at.rest()
    if choice & 1 and len(content) >= STATEMENT.octets:
        signed = R_IDENTITY.public.octets + S_IDENTITY.public.octets + content[:4]
        by_old = R_IDENTITY.sign(Label.STATEMENT_OLD, signed) if choice & 2 else content[4:68]
        by_new = S_IDENTITY.sign(Label.STATEMENT_NEW, signed) if choice & 4 else content[68:132]
        content = signed + by_old + by_new
    read = allowed(lambda: read_statement(content))
    if read is not None:
        assert read.old != read.new and len(content) == STATEMENT.octets


def message1(octets: bytes) -> None:
    """An offer: any octets, or any payload behind true tokens, signed or not."""
    at = Cursor(octets)
    choice = at.u8()
    said = at.rest()
    offer = said
    if choice & 1:
        form = OfferForm.FULL if choice & 2 else OfferForm.SHORT
        e, e1 = Ephemerals.draw(entropy_for_testing_only("fuzzed R")).take()
        noise = HandshakeState(PATTERNS[form], NoiseRole.INITIATOR, PROLOGUE, R_STATIC.private, e, e1)
        tokens = noise.write_tokens()
        payload = said[: OFFER_PAYLOAD.octets] if choice & 4 else said
        if choice & 8:
            unsigned = R_IDENTITY.public.octets + payload[32:38].ljust(6, b"\0")
            payload = unsigned + R_IDENTITY.sign(Label.OFFER, noise.h + unsigned)
        offer = tokens + noise.write_payload(payload)
    reader = sending()
    read = allowed(lambda: reader.read_offer(offer))
    if read is not None:
        assert read.identity == R_IDENTITY.public, "nobody else can sign"
        assert len(offer) == read.form.octets


def message2(octets: bytes) -> None:
    """An answer: any octets, or any payload behind true tokens, endorsed or not."""
    at = Cursor(octets)
    choice = at.u8()
    said = at.rest()
    form = OfferForm.FULL if choice & 2 else OfferForm.SHORT
    at_r = receiving()
    offer = at_r.make_offer(form)
    answer = said
    if choice & 1:
        ephemeral = X25519Private(drawn("fuzzed S", 32))
        static: StaticKey = S_ENDORSED.static
        noise = HandshakeState(PATTERNS[form], NoiseRole.RESPONDER, PROLOGUE, static.private, ephemeral)
        noise.read_payload(noise.read_tokens(offer))
        tokens = noise.write_tokens()
        payload = said[: ANSWER_PAYLOAD.octets].ljust(ANSWER_PAYLOAD.octets, b"\0") if choice & 4 else said
        if choice & 8:
            dates = payload[32:40].ljust(8, b"\0")
            if choice & 16:
                dates = TODAY.to_bytes(4, "big") + (TODAY + said[0] if said else TODAY).to_bytes(4, "big")
            endorsement = S_IDENTITY.sign(Label.STATIC, static.public + dates)
            payload = S_IDENTITY.public.octets + dates + payload[40:42] + endorsement + payload[106:]
        answer = tokens + noise.write_payload(payload)
    result = allowed(lambda: at_r.read_answer(answer, TODAY))
    if result is not None:
        assert result.identity == S_IDENTITY.public, "nobody else can endorse"
        assert result.epoch - 1 <= TODAY <= result.epoch + 14
        assert len(str(result.dialled)) > 0


_NAME, _SECRET = drawn("name of a ticket", 16), drawn("secret of a ticket", 32)
R_TICKET = Ticket(_NAME, _SECRET, S_IDENTITY.public, TODAY, None)
S_TICKET = Ticket(_NAME, _SECRET, R_IDENTITY.public, TODAY, None)
_OTHER = Ticket(drawn("name of another", 16), drawn("secret of another", 32), R_IDENTITY.public, TODAY, None)


def e_of_r() -> Ephemerals:
    return Ephemerals.draw_for_answer(entropy_for_testing_only("resumed R"))


def e_of_s() -> Ephemerals:
    return Ephemerals.draw_for_answer(entropy_for_testing_only("resumed S"))


def _psk(role: NoiseRole, secret: bytes, ephemerals: Ephemerals, public: bytes) -> HandshakeState:
    """Noise, which may tell an ephemeral key that is not its own: of small order, say."""
    e, _ = ephemerals.take()
    e.public = public if len(public) == X25519_OCTETS else e.public
    return HandshakeState(NNPSK0, role, PROLOGUE, None, e, psk=secret)


def _true_offer(ticket: Ticket = R_TICKET, flags: int = OfferFlags.KEEPS_TICKET) -> bytes:
    return ReceivingResumption(ticket, e_of_r(), PROLOGUE).offer(flags)


_OFFER = _true_offer()


def resumed1(octets: bytes) -> None:
    """An offer with a ticket: any octets, or any payload made with the ticket that S has, or with another."""
    at = Cursor(octets)
    choice = at.u8()
    said = at.rest()
    offer = said
    if choice & 1:
        ticket = R_TICKET if choice & 2 else _OTHER
        payload = said[: RESUMED_OFFER_PAYLOAD.octets] if choice & 4 else said
        named = _OTHER if choice & 32 else R_TICKET if choice & 8 else ticket
        public = said[RESUMED_OFFER_PAYLOAD.octets :] if choice & 16 else b""
        noise = _psk(NoiseRole.INITIATOR, ticket.secret, e_of_r(), public)
        offer = named.name + noise.write_tokens() + noise.write_payload(payload)
    read = allowed(lambda: SendingResumption(S_TICKET, e_of_s(), PROLOGUE).read_offer(offer))
    if read is not None:
        assert choice & 3 == 3 or offer == _OFFER, "nobody else has the ticket"
        assert ticket_name(offer) == S_TICKET.name and len(offer) == RESUMED_OFFER_OCTETS
        assert (read.identity, read.epoch, read.form) == (R_IDENTITY.public, TODAY, OfferForm.FULL)
        assert choice & 1 == 0 or read.flags == int.from_bytes(payload, "big")


def resumed2(octets: bytes) -> None:
    """An answer with a ticket, likewise; also to another offer than R's of now."""
    at = Cursor(octets)
    choice = at.u8()
    said = at.rest()
    flags = OfferFlags.NONE if choice & 8 else OfferFlags.KEEPS_TICKET
    at_r = ReceivingResumption(R_TICKET, e_of_r(), PROLOGUE)
    offer = at_r.offer(flags)
    answer = said
    if choice & 1:
        ticket = R_TICKET if choice & 2 else _OTHER
        payload = said[: RESUMED_ANSWER_PAYLOAD.octets] if choice & 4 else said
        public = said[RESUMED_ANSWER_PAYLOAD.octets :] if choice & 16 else b""
        noise = _psk(NoiseRole.RESPONDER, ticket.secret, e_of_s(), public)
        read = _true_offer(ticket, OfferFlags.UNUSED) if choice & 32 or ticket is _OTHER else offer
        noise.read_payload(noise.read_tokens(read[TICKET_NAME_OCTETS:]))
        answer = noise.write_tokens() + noise.write_payload(payload)
    result = allowed(lambda: at_r.read_answer(answer, TODAY))
    if result is not None:
        assert choice & 35 == 3 or not choice & 1, "nobody else has ticket and offer"
        assert (result.identity, result.form, result.resumed) == (S_IDENTITY.public, OfferForm.FULL, True)
        assert len(answer) == RESUMED_ANSWER_OCTETS and len(str(result.dialled)) > 0
        both = not choice & 8 and bool(result.flags & AnswerFlags.KEEPS_TICKET)
        assert (result.ticket is not None) == both
        assert result.ticket is None or result.ticket.name != R_TICKET.name


def identity(octets: bytes) -> None:
    """Any octets as an Ed25519 identity, and as a fingerprint."""
    public = allowed(lambda: IdentityPublic(octets))
    if public is not None:
        assert len(public.fingerprint) == 39
        allowed(lambda: public.verify(Label.OFFER, octets, octets + octets))


_NOISE, _RESUMPTION = "gateway.crypto.noise", "gateway.crypto.resumption"
TARGETS = (
    Target(
        "frame", frames, ("gateway.crypto.frames",), words=(b"\x81\x05\x2c", b"\x81\x00\xdc", b"\x82\x00\x13")
    ),
    Target("record", records, ("gateway.crypto.records", "gateway.crypto.params"), most_octets=8192),
    Target(
        "params",
        params,
        ("gateway.crypto.params",),
        words=(b"\x02\x00\x01\x01", b"\x03\x00\x02", b"\x04\x00"),
    ),
    Target("statement", statement, ("gateway.crypto.statement",), most_octets=512),
    Target(
        "message1",
        message1,
        ("gateway.crypto.handshake", _NOISE, "gateway.crypto.messages"),
        most_octets=2048,
    ),
    Target(
        "message2", message2, ("gateway.crypto.handshake", _NOISE, "gateway.crypto.keys"), most_octets=2048
    ),
    Target("resumed1", resumed1, (_RESUMPTION, _NOISE), most_octets=256),
    Target("resumed2", resumed2, (_RESUMPTION, _NOISE), most_octets=256),
    Target("identity", identity, ("gateway.crypto.keys",), most_octets=64),
)
assert FRAME_HEADER_OCTETS == 3
