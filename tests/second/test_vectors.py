"""The second implementation reads and makes the handshakes and records of the published vectors."""

from __future__ import annotations

from typing import Any

import pytest

from tests.second import chacha, lines, noise
from tests.second.curve25519 import ed25519_public, x25519_public
from tests.second.messages import (
    Answer,
    Statement,
    answer_payload,
    endorse,
    fingerprint,
    read_answer,
    read_offer,
    read_statement,
    write_offer,
    write_statement,
)
from tests.second.records import FLOOR, RECORDS_ONLY, Frames, Key, padme
from tests.second.tickets import KEEPS_TICKET, NAME, ResumingInitiator, ResumingResponder, Ticket
from tests.second.vectors import octets, vectors

HANDSHAKES = vectors("nightmail")["vectors"]
RESUMED = vectors("nightmail")["resumed"]


def initiator(vector: dict[str, Any]) -> noise.Initiator:
    said = lines.prologue((vector["greeting"] + vector["reply"]).encode(), vector["from_sender"].encode())
    assert said.hex() == vector["prologue"]
    static, ephemeral = octets(vector, "r_static", "r_ephemeral")
    seed = vector["kem_seed_d_z"]
    return noise.Initiator(said, static, ephemeral, bytes.fromhex(seed) if seed else None)


@pytest.mark.parametrize("vector", HANDSHAKES, ids=lambda vector: str(vector["form"]))
def test_a_published_handshake(vector: dict[str, Any]) -> None:
    r = initiator(vector)
    r_seed, s_seed, offer, answer = octets(vector, "r_identity_seed", "s_identity_seed", "offer", "answer")
    flags = int.from_bytes(offer[-66:-64], "big")
    assert write_offer(r, r_seed, vector["today"], flags) == offer

    static, ephemeral = octets(vector, "s_static", "s_ephemeral")
    s = noise.Responder(r.prologue, static, ephemeral, bytes.fromhex(vector["m"] or ""))
    assert read_offer(s, offer).identity == ed25519_public(r_seed)
    reply = vector["reply"].encode()
    assert lines.take_offer(lines.add_offer(reply, offer)) == (reply, offer)
    days = vector["today"], vector["not_after"]
    endorsement = endorse(s_seed, x25519_public(static), *days)
    assert endorsement.hex() == vector["endorsement"]
    address = bytes.fromhex(vector["dialled_address"])
    said = Answer(ed25519_public(s_seed), *days, 0, address, vector["dialled_port"])
    assert s.answer(answer_payload(said, endorsement)) == answer

    read = read_answer(r, answer, ed25519_public(r_seed), vector["today"])
    assert read == said
    for one in (r, s):
        assert one.state.h.hex() == vector["handshake_hash"]
        assert [key.hex() for key in one.state.split()] == [vector["key_r_to_s"], vector["key_s_to_r"]]


def test_a_published_ticket() -> None:
    """Of the full handshake above, but that both sides keep tickets."""
    [vector] = [one for one in HANDSHAKES if one["form"] == "full"]
    flags, today = RESUMED["flags"], vector["today"]
    assert flags == KEEPS_TICKET
    r_seed, s_seed, static, ephemeral, m = octets(
        vector, "r_identity_seed", "s_identity_seed", "s_static", "s_ephemeral", "m"
    )
    r, s = initiator(vector), noise.Responder(bytes.fromhex(vector["prologue"]), static, ephemeral, m)
    offer, answer = octets(RESUMED["before"], "offer", "answer")
    assert write_offer(r, r_seed, today, flags) == offer
    assert read_offer(s, offer).flags == flags
    days = today, vector["not_after"]
    dialled = bytes.fromhex(vector["dialled_address"]), vector["dialled_port"]
    endorsement = endorse(s_seed, x25519_public(static), *days)
    said = Answer(ed25519_public(s_seed), *days, flags, *dialled)
    assert s.answer(answer_payload(said, endorsement)) == answer
    assert read_answer(r, answer, ed25519_public(r_seed), today).flags == flags
    for one in (r, s):
        assert one.state.h.hex() == RESUMED["before"]["handshake_hash"]
        assert one.state.ticket() == tuple(octets(RESUMED, "ticket_secret", "ticket_name"))


def test_the_published_handshake_with_it() -> None:
    said = lines.prologue((RESUMED["greeting"] + RESUMED["reply"]).encode(), RESUMED["from_sender"].encode())
    assert said.hex() == RESUMED["prologue"]
    secret, name = octets(RESUMED, "ticket_secret", "ticket_name")
    ticket = Ticket(secret, name, b"", 0, 0.0, 0.0)
    r_ephemeral, s_ephemeral, offer, answer = octets(RESUMED, "r_ephemeral", "s_ephemeral", "offer", "answer")
    r, s = ResumingInitiator(said, ticket, r_ephemeral), ResumingResponder(said, ticket, s_ephemeral)
    dialled = bytes.fromhex(RESUMED["dialled_address"]), RESUMED["dialled_port"]
    assert r.offer(RESUMED["flags"]) == offer
    assert s.read_offer(offer) == RESUMED["flags"]
    assert s.answer(RESUMED["flags"], dialled) == answer
    assert r.read_answer(answer) == (RESUMED["flags"], *dialled)
    reply = RESUMED["reply"].encode()
    assert lines.add_offer(reply, offer).decode()[len(reply) :] == RESUMED["offer_lines"]
    assert lines.take_offer(lines.add_offer(reply, offer)) == (reply, offer)
    for one in (r, s):
        assert one.state.h.hex() == RESUMED["handshake_hash"]
        assert [key.hex() for key in one.state.split()] == [RESUMED["key_r_to_s"], RESUMED["key_s_to_r"]]
        assert one.state.ticket() == tuple(octets(RESUMED, "next_ticket_secret", "next_ticket_name"))


@pytest.mark.parametrize("vector", [*HANDSHAKES, RESUMED], ids=lambda vector: str(vector["form"]))
def test_its_records(vector: dict[str, Any]) -> None:
    for name, side in (("key_r_to_s", "R"), ("key_s_to_r", "S")):
        reader, writer = Key(bytes.fromhex(vector[name])), Key(bytes.fromhex(vector[name]))
        for record in vector["records"]:
            if record["from"] != side:
                continue
            for key in (reader, writer):
                key.skip_to(record["number"])
            frame, content = octets(record, "frame", "content")
            assert writer.seal(record["type"], content, record["zeros"]) == frame
            frames = Frames(RECORDS_ONLY)
            frames.feed(frame)
            cut = frames.next()
            assert cut is not None
            assert reader.open(cut[1]) == (record["type"], content)


def test_the_statement() -> None:
    vector = vectors("nightmail")["statement"]
    old, new, content = octets(vector, "old_seed", "new_seed", "content")
    assert write_statement(old, new, vector["serial"]) == content
    statement = Statement(ed25519_public(old), ed25519_public(new), vector["serial"])
    assert read_statement(content) == statement
    assert fingerprint(statement.old) == vector["old_fingerprint"]
    assert fingerprint(statement.new) == vector["new_fingerprint"]


def test_the_padding() -> None:
    for padded_before, since, size in vectors("nightmail")["padding"]:
        assert padme(padded_before + max(since, FLOOR)) == size


def test_a_handshake_with_the_kem_as_noise_writes_it() -> None:
    """A vector that was made without this project's code, encapsulation included."""
    found = [
        vector
        for vector in vectors("noise_hfs")["computed_ixhfs_mlkem768"]
        if vector["protocol_name"].encode() == noise.FULL
    ]
    assert found
    for vector in found:
        prologue, r_static, r_ephemeral, seed, s_static, s_ephemeral, m = octets(
            vector,
            "prologue",
            "init_static",
            "init_ephemeral",
            "init_kem_seed_d_z",
            "resp_static",
            "resp_ephemeral",
            "resp_encaps_m",
        )
        first, second = (octets(message, "payload", "ciphertext") for message in vector["messages"][:2])
        r = noise.Initiator(prologue, r_static, r_ephemeral, seed)
        s = noise.Responder(prologue, s_static, s_ephemeral, m)
        assert r.begin() + r.state.encrypt_and_hash(first[0]) == first[1]
        assert s.read(first[1], full=True)[1] == first[0]
        assert s.answer(second[0]) == second[1]
        assert r.finish(second[1]) == (x25519_public(s_static), second[0])
        for one in (r, s):
            assert one.state.h.hex() == vector["handshake_hash"]
            assert [key.hex() for key in one.state.split()] == [vector["split_k1"], vector["split_k2"]]


def test_a_handshake_with_a_psk_as_noise_writes_it() -> None:
    """A public vector of this very protocol."""
    [vector] = [
        one for one in vectors("noise_nnpsk0")["vectors"] if one["protocol_name"].encode() == noise.RESUMED
    ]
    prologue, psk, r_ephemeral, s_ephemeral = octets(
        vector, "init_prologue", "psk", "init_ephemeral", "resp_ephemeral"
    )
    first, second, *transport = (octets(message, "payload", "ciphertext") for message in vector["messages"])
    ticket = Ticket(psk, bytes(NAME), b"", 0, 0.0, 0.0)
    r, s = ResumingInitiator(prologue, ticket, r_ephemeral), ResumingResponder(prologue, ticket, s_ephemeral)
    assert r.begin() + r.state.encrypt_and_hash(first[0]) == first[1]
    assert s.begin(first[1]) == first[0]
    assert s.write(second[0]) == second[1]
    assert r.read(second[1]) == second[0]
    keys = r.state.split()
    for one in (r, s):
        assert one.state.h.hex() == vector["handshake_hash"]
        assert one.state.split() == keys
    assert transport
    for number, (payload, ciphertext) in enumerate(transport):
        nonce = noise.nonce(number // 2)
        assert chacha.seal(keys[number % 2], nonce, b"", payload) == ciphertext
