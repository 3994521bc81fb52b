"""The second implementation reads and makes the handshakes and records of the published vectors."""

from __future__ import annotations

from typing import Any

import pytest

from tests.second import lines, noise
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
from tests.second.vectors import octets, vectors

HANDSHAKES = vectors("nightmail")["vectors"]


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


@pytest.mark.parametrize("vector", HANDSHAKES, ids=lambda vector: str(vector["form"]))
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
