"""ChaCha20-Poly1305 (RFC 8439) on Python's integers. For tests only."""

from __future__ import annotations

import hmac
import struct

CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")
TAG = 16


def _blocks(key: bytes, nonce: bytes, count: int) -> bytes:
    """The key stream's blocks 0 to count - 1, all at once.

    A row of the state (RFC 8439, 2.3) of all blocks is one integer with a lane of 64 bits for each word: all
    blocks' words of column 0, then those of column 1, and so on. So one addition adds 4 x count words.
    """
    lanes = 4 * count
    mask = sum(0xFFFFFFFF << 64 * lane for lane in range(lanes))
    k, n = struct.unpack("<8I", key), struct.unpack("<3I", nonce)
    last = [*range(count), *(word for word in n for _ in range(count))]
    rows = [[word for word in row for _ in range(count)] for row in (CONSTANTS, k[:4], k[4:])]
    start = tuple(int.from_bytes(struct.pack(f"<{lanes}Q", *row), "little") for row in (*rows, last))

    def left(x: int, bits: int) -> int:
        return (x << bits | x >> 32 - bits) & mask

    def turned(x: int, columns: int) -> int:
        low = 64 * count * columns
        return x >> low | (x & (1 << low) - 1) << 64 * lanes - low

    a, b, c, d = start
    for half_round in range(20):
        a = a + b & mask
        d = left(d ^ a, 16)
        c = c + d & mask
        b = left(b ^ c, 12)
        a = a + b & mask
        d = left(d ^ a, 8)
        c = c + d & mask
        b = left(b ^ c, 7)
        # To the diagonals, and back to the columns.
        steps = (1, 2, 3) if half_round % 2 == 0 else (3, 2, 1)
        b, c, d = (turned(x, step) for x, step in zip((b, c, d), steps, strict=True))
    ends = (x + y & mask for x, y in zip((a, b, c, d), start, strict=True))
    words = [struct.unpack(f"<{lanes}Q", end.to_bytes(8 * lanes, "little")) for end in ends]
    ordered = [row[lane] for block in range(count) for row in words for lane in range(block, lanes, count)]
    return struct.pack(f"<{4 * lanes}I", *ordered)


def _stream(key: bytes, nonce: bytes, length: int) -> tuple[bytes, bytes]:
    """The key of Poly1305, and as many octets of key stream as are asked for."""
    blocks = _blocks(key, nonce, 1 + (length + 63) // 64)
    return blocks[:32], blocks[64 : 64 + length]


def _poly1305(key: bytes, message: bytes) -> bytes:
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def _tag(key: bytes, associated: bytes, ciphertext: bytes) -> bytes:
    filled = b"".join(part + bytes(-len(part) % 16) for part in (associated, ciphertext))
    return _poly1305(key, filled + struct.pack("<QQ", len(associated), len(ciphertext)))


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(len(a), "big")


def seal(key: bytes, nonce: bytes, associated: bytes, plaintext: bytes) -> bytes:
    one_time, stream = _stream(key, nonce, len(plaintext))
    ciphertext = _xor(plaintext, stream)
    return ciphertext + _tag(one_time, associated, ciphertext)


def unseal(key: bytes, nonce: bytes, associated: bytes, sealed: bytes) -> bytes | None:
    """The plaintext, or None if the tag does not verify."""
    if len(sealed) < TAG:
        return None
    ciphertext, tag = sealed[:-TAG], sealed[-TAG:]
    one_time, stream = _stream(key, nonce, len(ciphertext))
    if not hmac.compare_digest(tag, _tag(one_time, associated, ciphertext)):
        return None
    return _xor(ciphertext, stream)
