"""ML-KEM-768's encapsulation with a given `m` (FIPS 203, algorithm 17), so that a vector can be made again.

Libraries draw `m` themselves. Written from FIPS 203 with its names; slow, not constant in time, for tests
only. `tests/unit/crypto/test_mlkem_slow.py` holds it against vectors of others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

_Q, _N, _K = 3329, 256, 3
_ETA, _DU, _DV = 2, 10, 4
_ROOT = 17

Poly = list[int]


def encapsulate(ek: bytes, m: bytes) -> tuple[bytes, bytes]:
    """Ciphertext (1,088 octets), then shared secret (32). `ek` is taken to be valid, `m` has 32 octets."""
    seeds = hashlib.sha3_512(m + hashlib.sha3_256(ek).digest()).digest()
    return _encrypt(ek, m, seeds[32:]), seeds[:32]


def _encrypt(ek: bytes, m: bytes, r: bytes) -> bytes:
    """Algorithm 14, K-PKE.Encrypt."""
    t_hat = [_decode(ek[384 * i : 384 * (i + 1)], 12) for i in range(_K)]
    rho = ek[384 * _K :]
    noise = iter([_cbd(hashlib.shake_256(r + bytes((n,))).digest(64 * _ETA)) for n in range(2 * _K + 1)])
    y_hat = [_ntt(next(noise)) for _ in range(_K)]
    e1 = [next(noise) for _ in range(_K)]
    e2 = next(noise)
    # The matrix is used transposed: column i of A.
    u = [
        _add(_inverse(_dot([_sample(rho + bytes((i, j))) for j in range(_K)], y_hat)), e1[i])
        for i in range(_K)
    ]
    message = [_decompress(bit, 1) for bit in _decode(m, 1)]
    v = _add(_add(_inverse(_dot(t_hat, y_hat)), e2), message)
    return b"".join(_encode([_compress(x, _DU) for x in one], _DU) for one in u) + _encode(
        [_compress(x, _DV) for x in v], _DV
    )


# --- Polynomials --------------------------------------------------------------------------------------


def _bit_reversed(i: int) -> int:
    return int(f"{i:07b}"[::-1], 2)


_ZETAS = [pow(_ROOT, _bit_reversed(i), _Q) for i in range(128)]
_GAMMAS = [pow(_ROOT, 2 * _bit_reversed(i) + 1, _Q) for i in range(128)]


def _ntt(f: Poly) -> Poly:
    """Algorithm 9."""
    f, i, length = list(f), 1, 128
    while length >= 2:
        for start in range(0, _N, 2 * length):
            zeta, i = _ZETAS[i], i + 1
            for j in range(start, start + length):
                t = zeta * f[j + length] % _Q
                f[j], f[j + length] = (f[j] + t) % _Q, (f[j] - t) % _Q
        length //= 2
    return f


def _inverse(f: Poly) -> Poly:
    """Algorithm 10."""
    f, i, length = list(f), 127, 2
    while length <= 128:
        for start in range(0, _N, 2 * length):
            zeta, i = _ZETAS[i], i - 1
            for j in range(start, start + length):
                t = f[j]
                f[j] = (t + f[j + length]) % _Q
                f[j + length] = zeta * (f[j + length] - t) % _Q
        length *= 2
    return [x * 3303 % _Q for x in f]


def _multiply(f: Poly, g: Poly) -> Poly:
    """Algorithms 11 and 12."""
    product = []
    for i, gamma in enumerate(_GAMMAS):
        a0, a1, b0, b1 = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
        product += [(a0 * b0 + a1 * b1 * gamma) % _Q, (a0 * b1 + a1 * b0) % _Q]
    return product


def _add(f: Poly, g: Poly) -> Poly:
    return [(x + y) % _Q for x, y in zip(f, g, strict=True)]


def _dot(row: list[Poly], column: list[Poly]) -> Poly:
    total = [0] * _N
    for f, g in zip(row, column, strict=True):
        total = _add(total, _multiply(f, g))
    return total


# --- Sampling, encoding, compressing ------------------------------------------------------------------


def _sample(seed: bytes) -> Poly:
    """Algorithm 7; so much output that it never ends early."""
    stream, found = hashlib.shake_128(seed).digest(3 * 1024), []
    for at in range(0, len(stream), 3):
        a, b, c = stream[at : at + 3]
        found += [d for d in (a + 256 * (b % 16), b // 16 + 16 * c) if d < _Q]
    return found[:_N]


def _bits(octets: bytes) -> Iterator[int]:
    for octet in octets:
        for place in range(8):
            yield octet >> place & 1


def _cbd(octets: bytes) -> Poly:
    """Algorithm 8."""
    b = list(_bits(octets))
    return [
        (sum(b[2 * i * _ETA : (2 * i + 1) * _ETA]) - sum(b[(2 * i + 1) * _ETA : (2 * i + 2) * _ETA])) % _Q
        for i in range(_N)
    ]


def _decode(octets: bytes, width: int) -> Poly:
    """Algorithm 6."""
    b = list(_bits(octets))
    return [
        sum(bit << place for place, bit in enumerate(b[at : at + width])) for at in range(0, len(b), width)
    ]


def _encode(values: list[int], width: int) -> bytes:
    """Algorithm 5."""
    whole = sum(value << width * place for place, value in enumerate(values))
    return whole.to_bytes(_N * width // 8, "little")


def _compress(x: int, width: int) -> int:
    return ((x << width) + _Q // 2) // _Q % (1 << width)


def _decompress(y: int, width: int) -> int:
    return (y * _Q + (1 << width - 1)) >> width
