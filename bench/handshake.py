"""What one handshake is made of: `python -m bench.handshake [--json]`, in microseconds.

Each step twice: in a tight loop, which is the best that it can be, and cold: with other code and data in the
core's caches before each call, as a process finds them that has just been switched to. Needs no namespaces
and no root, and hardly minds other work on the machine (the best of many short tries counts; cold, the
median). It runs with a worker's environment.
Counterpart: `profile`, which watches the whole daemon under load.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.crypto.frames import FrameReader
from gateway.crypto.handshake import OfferForm, ReceivingHandshake, SendingHandshake, prologue
from gateway.crypto.keys import EndorsementCache, Ephemerals, IdentityKey, Label, StaticKey, endorse
from gateway.crypto.messages import DialledAddress
from gateway.crypto.primitives import (
    Aead,
    Ed25519Private,
    MlKemPrivate,
    X25519Private,
    ed25519_verify,
    hkdf,
    mlkem_encapsulate,
    sha512,
)
from gateway.crypto.records import RecordLayer, RecordType
from gateway.runtime.supervisor import environment
from gateway.smtp.capability import append_offer, split_offer

TRIES: Final = 200
CALLS: Final = 5
COLD_CALLS: Final = 60
ANOTHERS_OCTETS: Final = 4 << 20
"""More than a core's own caches hold."""
TODAY: Final = 20_000
DIALLED: Final = DialledAddress.from_text("192.0.2.1", 25)
GREETING: Final = b"220 mx.b.test ESMTP\r\n"
REPLY: Final = b"250-mx.b.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 10240000\r\n"
EHLO: Final = b"EHLO mta.a.test\r\n"
MAIL: Final = bytes(4096)

Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of one call."""

    name: str
    tight: float
    cold: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.handshake", description="What one handshake is made of.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    asked = parser.parse_args()
    if not environment.WORKER.items() <= os.environ.items():
        again = [sys.executable, "-m", "bench.handshake", *sys.argv[1:]]
        os.execve(sys.executable, again, os.environ | environment.WORKER)
    tables = {
        "primitives": [cost(name, step) for name, step in primitives().items()],
        "receiving gateway": steps_of(receiving_steps),
        "sending gateway": steps_of(sending_steps),
    }
    if asked.json:
        found = {name: {one.name: [one.tight, one.cold] for one in costs} for name, costs in tables.items()}
        print(json.dumps(found))
        return 0
    for name, costs in tables.items():
        print(f"{name + ', us':54} tight    cold")
        for one in costs:
            print(f"  {one.name:50} {one.tight:7.1f} {one.cold:7.1f}")
        if name != "primitives":
            whole = [sum(one.tight for one in costs), sum(one.cold for one in costs)]
            print(f"  {'in all':50} {whole[0]:7.1f} {whole[1]:7.1f}")
    return 0


def primitives() -> dict[str, Step]:
    """Each as the handshake calls it, and how often a handshake does."""
    x25519, mlkem, signer = X25519Private(b"\1" * 32), MlKemPrivate(b"\2" * 64), Ed25519Private(b"\3" * 32)
    ciphertext, _ = mlkem_encapsulate(mlkem.public)
    signed = signer.sign(bytes(182))
    key, long = b"\4" * 32, bytes(1248)
    return {
        "X25519 key pair (1 on each side)": lambda: X25519Private(key),
        "X25519 exchange (3 on each side)": lambda: x25519.exchange(x25519.public),
        "ML-KEM-768 key pair (1, receiving)": lambda: MlKemPrivate(long[:64]),
        "ML-KEM-768 encapsulation (1, sending)": lambda: mlkem_encapsulate(mlkem.public),
        "ML-KEM-768 decapsulation (1, receiving)": lambda: mlkem.decapsulate(ciphertext),
        "Ed25519 signature (1, the receiving side's signer)": lambda: signer.sign(bytes(182)),
        "Ed25519 verification (1, sending)": lambda: ed25519_verify(signer.public, bytes(182), signed),
        "HKDF, two outputs (5 on each side)": lambda: hkdf(signed, key),
        "SHA-512 of 128 octets (8 on each side)": lambda: sha512(long[:128]),
        "SHA-512 of 1,248 octets (2 on each side)": lambda: sha512(long),
        "AEAD: key, and 124 octets sealed (5 on each side)": lambda: Aead(key).seal(
            bytes(12), long[:124], signed
        ),
    }


class Pair:
    """Both sides of one handshake, and what each step leaves for the next."""

    identity_of_s, identity_of_r = IdentityKey.from_seed(b"\5" * 32), IdentityKey.from_seed(b"\6" * 32)
    static_of_s, static_of_r = StaticKey.draw(os.urandom, TODAY), StaticKey.draw(os.urandom, TODAY)
    endorsed = endorse(identity_of_s, static_of_s, TODAY)
    endorsements = EndorsementCache()

    def draw_for_offer(self) -> None:
        self.ephemerals = Ephemerals.draw(os.urandom)

    def to_sign(self) -> None:
        said = prologue(GREETING + REPLY, EHLO)
        self.receiving = ReceivingHandshake(
            self.identity_of_r.public, self.static_of_r, self.ephemerals, said, self.endorsements
        )
        self.told = self.receiving.to_sign(OfferForm.FULL)

    def sign(self) -> None:
        self.signature = self.identity_of_r.sign(Label.OFFER, self.told)

    def offer(self) -> None:
        self.reply = append_offer(REPLY, self.receiving.offer(self.signature))

    def split(self) -> None:
        self.offered = split_offer(self.reply).offer

    def draw_for_answer(self) -> None:
        self.ephemerals_of_s = Ephemerals.draw_for_answer(os.urandom)

    def read_offer(self) -> None:
        said = prologue(GREETING + REPLY, EHLO)
        self.sending = SendingHandshake(self.identity_of_s.public, self.endorsed, self.ephemerals_of_s, said)
        assert self.offered is not None
        self.sending.read_offer(self.offered)

    def answer(self) -> None:
        self.message, result = self.sending.write_answer(DIALLED)
        self.records_of_s = RecordLayer(result)

    def read_answer(self) -> None:
        self.records_of_r = RecordLayer(self.receiving.read_answer(self.message, TODAY))

    def seal(self) -> None:
        self.sealed = self.records_of_s.seal_padded(RecordType.DATA, MAIL, 500)

    def open(self) -> None:
        for frame in FrameReader().feed(self.sealed):
            self.records_of_r.open(frame.body)


IN_ORDER: Final[dict[str, Callable[[Pair], None]]] = {
    "draws e and e1": Pair.draw_for_offer,
    "message 1, up to what is signed": Pair.to_sign,
    "the signature, in the signer": Pair.sign,
    "message 1, as lines of the reply": Pair.offer,
    "finds the offer in the reply": Pair.split,
    "draws e": Pair.draw_for_answer,
    "reads message 1, does all arithmetic": Pair.read_offer,
    "message 2, and the record layer": Pair.answer,
    "reads message 2, and the record layer": Pair.read_answer,
    "seals a record of 4 KB": Pair.seal,
    "opens a record of 4 KB": Pair.open,
}
receiving_steps: Final = (
    "draws e and e1",
    "message 1, up to what is signed",
    "the signature, in the signer",
    "message 1, as lines of the reply",
    "reads message 2, and the record layer",
    "opens a record of 4 KB",
)
sending_steps: Final = tuple(name for name in IN_ORDER if name not in receiving_steps)


def steps_of(names: tuple[str, ...]) -> list[Cost]:
    """Each step of whole handshakes, again and again: one serves once."""
    tight: dict[str, list[float]] = {name: [] for name in names}
    cold: dict[str, list[float]] = {name: [] for name in names}
    for took, tries, chill in ((tight, TRIES, False), (cold, COLD_CALLS, True)):
        for _ in range(tries):
            pair = Pair()
            for name, step in IN_ORDER.items():
                if chill:
                    let_others_run()
                begun = time.perf_counter()
                step(pair)
                if name in took:
                    took[name].append(time.perf_counter() - begun)
    return [Cost(name, min(tight[name]) * 1e6, statistics.median(cold[name]) * 1e6) for name in names]


def cost(name: str, step: Step) -> Cost:
    tight, cold = [], []
    for _ in range(TRIES):
        begun = time.perf_counter()
        for _ in range(CALLS):
            step()
        tight.append((time.perf_counter() - begun) / CALLS)
    for _ in range(COLD_CALLS):
        let_others_run()
        begun = time.perf_counter()
        step()
        cold.append(time.perf_counter() - begun)
    return Cost(name, min(tight) * 1e6, statistics.median(cold) * 1e6)


_anothers = bytearray(ANOTHERS_OCTETS)


def let_others_run() -> None:
    """Stands for another process: its data and its code take the place of ours."""
    _anothers[:] = _anothers.translate(None)
    json.dumps({str(number): [number, f"{number:x}", {"a": None}] for number in range(300)}, indent=1)


if __name__ == "__main__":
    sys.exit(main())
