"""Makes the first cases of each target from vectors and real dialogues: python -m tests.fuzz.seeds DIR.

What is committed in tests/fuzz/corpus is what the fuzzer's minimiser keeps of these and of what it found:
the fewest cases that reach the same branches.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway.crypto.frames import FrameKind, frame
from gateway.crypto.handshake import OfferForm
from gateway.crypto.messages import AnswerFlags, OfferFlags
from gateway.crypto.params import Params
from gateway.crypto.resumption import ReceivingResumption, SendingResumption
from gateway.crypto.statement import make_statement
from gateway.smtp.capability import append_offer
from tests.fuzz.crypto_targets import R_TICKET, S_TICKET, e_of_r, e_of_s
from tests.playbook import EHLO, LONG_REPLY, REPLY, FarReceivingGateway
from tests.unit.crypto.pairs import DIALLED, PROLOGUE, R_IDENTITY, S_IDENTITY, handshaken

_VECTORS = Path(__file__).parents[1] / "vectors"


def seeds() -> Iterator[tuple[str, bytes]]:
    yield from _smtp()
    yield from _crypto()
    yield from _resumed()
    yield from _sessions()
    example = Path(__file__).parents[2] / "packaging" / "nightmail.toml.example"
    text = example.read_bytes() if example.exists() else b'version = 1\n[interfaces]\ninside = ["eth1"]\n'
    yield "config", text
    yield "config", b'[log]\nlevel = "loud"\n[kernel]\ntable = 253\n[mail]\nports = [25, 587]\n'
    yield "config", b"version = 2\n"
    yield "config", b'[nat]\naddresses = ["192.0.2.1", "2001:db8::/32", "x"]\n'
    ipv4 = bytes.fromhex("4500003c000040004006000cc0000201c63364070419001900000000")
    yield "syn", ipv4
    ipv6 = bytes.fromhex("6000000000283c40") + bytes(15) + b"\1" + bytes(15) + b"\2"
    yield (
        "syn",
        ipv6 + bytes.fromhex("2c00000000000000") + bytes.fromhex("0600000000000000") + b"\x04\x19\x00\x19",
    )
    for case in (b"\0", b"\1\x10\0", b"\2\0", b"\2\x64", b"\0\0\x2c\7ABCDEFGH", b"\0\x10\0\1" + b"\xff" * 40):
        yield "pins", case


def _smtp() -> Iterator[tuple[str, bytes]]:
    for entry in json.loads((_VECTORS / "ehlo_replies.json").read_text())["entries"]:
        if entry["greeting_hex"]:
            yield "reply", b"\0\0" + bytes.fromhex(entry["greeting_hex"])
        if entry["ehlo_hex"]:
            yield "reply", b"\5\0" + bytes.fromhex(entry["ehlo_hex"])
            yield "offer", b"\0" + bytes.fromhex(entry["ehlo_hex"])
    for form in OfferForm:
        yield "offer", b"\0" + append_offer(REPLY, bytes(at % 251 for at in range(form.octets)))
        yield "offer", b"\0" + FarReceivingGateway(form=form).reply
    resumed = ReceivingResumption(R_TICKET, e_of_r(), PROLOGUE).offer()
    yield "offer", b"\0" + append_offer(REPLY, resumed)
    yield "offer", b"\0" + append_offer(LONG_REPLY, resumed)
    yield "offer", b"\7" + bytes(80)
    yield "offer", b"\1" + bytes(1400)
    yield "offer", b"\3" + bytes(200)
    for number, said in enumerate(
        (EHLO, b"HELO a\r\n", b"ehlo [192.0.2.1]\r\nMAIL FROM:<>\r\n", b"XNIGHTMAIL\r\n")
    ):
        yield "command", bytes((number, number)) + said
        yield "command", b"\3\0" + said + b"MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\nx\r\n.\r\n"
        yield "command", b"\3\7" + said + b"MAIL FROM:<a@a>\r\n \tbdat 5 LAST\r\nhello"
    for sequence in json.loads((_VECTORS / "smtp_fake_eod.json").read_text())["sequences"]:
        yield (
            "command",
            b"\3\1" + EHLO + b"DATA\r\ntext" + bytes.fromhex(sequence["hex"]) + b"MAIL FROM:<>\r\n",
        )
    yield "dialogue", bytes((1, 0b1000, 0b0001, 0b0101, 0b1101))
    yield "dialogue", bytes((0, 0b0001, 0b1000, 0b0100))


def _crypto() -> Iterator[tuple[str, bytes]]:
    for form in OfferForm:
        done = handshaken(form)
        yield "frame", b"\0" + frame(FrameKind.ANSWER, done.answer) + frame(FrameKind.RECORD, bytes(19))
        yield "message1", b"\0" + done.offer
        yield "message2", bytes((2 if form is OfferForm.FULL else 0,)) + done.answer
        bits = 2 if form is OfferForm.FULL else 0
        yield "message1", bytes((0b1101 | bits,)) + bytes(102)
        yield "message1", bytes((0b0101 | bits,)) + R_IDENTITY.public.octets + bytes(70)
        yield "message2", bytes((0b11101 | bits,)) + b"\5" + bytes(123)
        yield "message2", bytes((0b00101 | bits,)) + S_IDENTITY.public.octets + bytes(92)
    yield "frame", b"\1\x82\x00\x13" + bytes(19)
    for kind in range(8):
        yield "record", bytes((kind << 3 | 2, 4)) + b"text\0" + bytes((0x42 << 1 & 0xFF | 2, 0, 3))
    yield "record", bytes((1 << 3 | 2, 4)) + b"text\0" + bytes((2 << 3 | 2, 0, 0)) + bytes((1 << 3 | 2, 0, 0))
    yield "record", bytes((1 << 3 | 6, 4)) + b"text\0\0"
    for params in (Params(), Params(True, 16384, "Nightmail 0.1"), Params(False)):
        yield "params", params.encode()
        yield "record", bytes((4 << 3 | 2, len(params.encode()))) + params.encode() + b"\0"
    yield "statement", b"\0" + make_statement(R_IDENTITY, S_IDENTITY, 7)
    yield "statement", b"\7" + bytes(132)
    yield "identity", R_IDENTITY.public.octets
    yield "identity", bytes(32)


def _resumed() -> Iterator[tuple[str, bytes]]:
    """True ones, whole; then choice, payload and, where the choice asks for it, an ephemeral key."""
    r, s = ReceivingResumption(R_TICKET, e_of_r(), PROLOGUE), SendingResumption(S_TICKET, e_of_s(), PROLOGUE)
    offer = r.offer(OfferFlags.KEEPS_TICKET)
    s.read_offer(offer)
    answer, _ = s.write_answer(DIALLED, AnswerFlags.KEEPS_TICKET)
    flags = int(OfferFlags.KEEPS_TICKET).to_bytes(2, "big")
    told = flags + DIALLED.address16 + DIALLED.port.to_bytes(2, "big")
    for name, message, payload in (("resumed1", offer, flags), ("resumed2", answer, told)):
        yield name, b"\0" + message
        for choice in (0b0001, 0b0011, 0b0101, 0b0111, 0b1001, 0b1111, 0b101111):
            yield name, bytes((choice,)) + payload
        for ephemeral in (bytes(32), b"\x09" + bytes(31)):
            yield name, bytes((0b10111,)) + payload + ephemeral
        yield name, b"\3" + payload[1:]
        yield name, b"\7" + bytes(len(payload))


def _sessions() -> Iterator[tuple[str, bytes]]:
    """Choice, then steps of (what, chunk size)."""
    upgrade = bytes((1, 0, 0, 0, 2, 0))
    for choice in (0, 1):
        yield (
            "sending",
            bytes((choice,))
            + upgrade
            + bytes((3, 0, 0, 4, 0, 3, 0, 2, 5, 0, 3))
            + b"250"
            + bytes((15, 0, 8, 0)),
        )
        yield (
            "sending",
            bytes((choice,)) + upgrade + bytes((3, 0, 1, 12, 0, 13, 0, 1, 0, 2, 0, 4, 0, 5, 0, 2)) + b"ok",
        )
        yield "sending", bytes((choice,)) + upgrade + bytes((3, 0, 0, 9, 0, 14, 0))
        yield "sending", bytes((choice,)) + upgrade + bytes((3, 0, 0, 18, 0, 0, 9, 19, 3, 0, 40))
    statement = bytes((3, 0, 0, 4, 0, 21, 0, 0, 5, 0, 2)) + b"ok" + bytes((15, 0))
    for choice in (2, 4, 8, 12):
        yield "sending", bytes((choice,)) + upgrade + statement
    yield "sending", bytes((12,)) + upgrade + bytes((3, 0, 0, 21, 0, 9, 12, 0))
    # With tickets: S has R's, S has it not and dials anew, S keeps another one.
    again = bytes((13, 0, 1, 0, 2, 0))
    mail = bytes((3, 0, 0, 4, 0, 5, 0, 2)) + b"ok"
    for choice in (0x70, 0xF0, 0x30, 0x20, 0xB0, 0x90, 0x72, 0x74, 0x7C, 0xF1):
        yield "sending", bytes((choice,)) + upgrade + mail + bytes((15, 0, 8, 0))
        yield "sending", bytes((choice,)) + upgrade + again + mail + bytes((15, 0, 8, 0))
    answer = bytes((1, 0, 0, 0, 2, 0, 3, 0))
    for choice in (0, 1, 2, 4, 0x0C, 0x1C, 0x3C, 0x24, 0x3D):
        yield (
            "receiving",
            bytes((choice,)) + answer + bytes((4, 0, 4)) + b"NOOP" + bytes((19, 0, 13, 0, 8, 0)),
        )
        yield "receiving", bytes((choice,)) + answer + bytes((18, 1, 0, 9))
        yield "receiving", bytes((choice,)) + answer[:-2] + bytes((7, 3, 0, 30))
        yield "receiving", bytes((choice,)) + answer[:-2] + bytes((5, 0, 2)) + b"42" + bytes((17, 12, 12, 0))


def main() -> None:
    into = Path(sys.argv[1])
    for name, octets in seeds():
        folder = into / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha256(octets).hexdigest()[:16]).write_bytes(octets)


if __name__ == "__main__":
    main()
