"""Peers with keys of their own who never stop: towards R as a sending gateway, towards S as a receiving one.

Blocking sockets of the lab's namespaces, for one thread each. What they say is valid; there is only too much.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from gateway.crypto.params import Params
from gateway.crypto.records import RecordLayer, RecordType
from gateway.lab.lab import Lab
from gateway.lab.network import inside
from tests.attackers.impersonating import DAY_SECONDS
from tests.attackers.parties import EHLO, GREETING, REPLY
from tests.holding import HeldKeys
from tests.playbook import FarReceivingGateway, FarSendingGateway, gateway_keys

PATIENCE = 20.0
STUCK_SECONDS = 3.0
"""So long nothing can be sent any more: the other side does not read."""
PIECE = 1 << 20
RECORD = 16 * 1024


def keys(name: str) -> tuple[HeldKeys, int]:
    today = int(time.time()) // DAY_SECONDS
    return gateway_keys(f"flooding {name}", today), today


def records(kind: str, layer: RecordLayer) -> Callable[[], bytes]:
    """Some 1 MiB of frames, each time others."""
    if kind == "data":
        return lambda: layer.seal_data(bytes(PIECE))
    if kind == "padding":
        return lambda: b"".join(layer.seal(RecordType.PAD, b"", RECORD) for _ in range(PIECE // RECORD))
    if kind == "empty":
        return lambda: b"".join(layer.seal(RecordType.DATA) for _ in range(PIECE // 22))
    return lambda: b"".join(layer._seal(0x41, bytes(RECORD), 0) for _ in range(PIECE // RECORD))


def pour(made: socket.socket, make: Callable[[], bytes], octets: int) -> int:
    """Send until so many octets are out or nobody reads any more; how many went out."""
    made.settimeout(STUCK_SECONDS)
    sent = 0
    while sent < octets:
        rest = memoryview(make())
        while rest:
            try:
                count = made.send(rest)
            except TimeoutError:
                return sent
            sent += count
            rest = rest[count:]
    return sent


def read_until(made: socket.socket, word: bytes) -> bytes:
    octets = b""
    while word not in octets or not octets.endswith(b"\r\n"):
        piece = made.recv(65536)
        assert piece, f"ended behind {octets[-80:]!r}"
        octets += piece
    return octets


def connected(lab: Lab, node: str, target: str) -> socket.socket:
    made = inside(lab.namespace(node), lambda: socket.socket())
    made.settimeout(PATIENCE)
    made.connect((target, 25))
    return made


def listening(lab: Lab, node: str) -> socket.socket:
    made = inside(lab.namespace(node), lambda: socket.create_server(("0.0.0.0", 25)))
    made.settimeout(PATIENCE)
    return made


def as_sender(lab: Lab, target: str) -> tuple[socket.socket, RecordLayer]:
    """A channel to R from somewhere on the net; the mail server behind R says greeting and reply."""
    made = connected(lab, "mta-c", target)
    greeting = read_until(made, b"220 ")
    made.sendall(EHLO)
    reply = read_until(made, b"250 XNIGHTMAIL")
    mine, _ = keys("sender")
    far = FarSendingGateway(reply, keys=mine, greeting=greeting, ehlo=EHLO)
    made.sendall(far.answer)
    return made, far.layer


def as_receiver(accepted: socket.socket) -> RecordLayer:
    """A channel with S, whose sender has said EHLO and MAIL."""
    accepted.settimeout(PATIENCE)
    mine, today = keys("receiver")
    far = FarReceivingGateway(os.urandom(8).hex(), keys=mine, greeting=GREETING, reply=REPLY, ehlo=EHLO)
    accepted.sendall(GREETING)
    assert accepted.recv(len(EHLO)) == EHLO
    accepted.sendall(far.reply)
    said = EHLO
    answer = len(EHLO) + 12
    while len(said) < answer + 1327:
        said += accepted.recv(65536)
    far.result = far._handshake.read_answer(said[answer + 3 : answer + 1327], today)
    layer = RecordLayer(far.result)
    accepted.sendall(layer.seal(RecordType.PARAMS, Params(dialled_address_confirmed=True).encode()))
    return layer
