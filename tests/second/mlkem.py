"""ML-KEM-768 (FIPS 203) on Python's integers. For tests only.

Names and algorithm numbers are those of FIPS 203. A polynomial is a list of 256 integers below q.
"""

from __future__ import annotations

import functools
import hashlib
import hmac

Q = 3329
K = 3
ETA = 2
DU, DV = 10, 4
EK, CIPHERTEXT = 384 * K + 32, 32 * (DU * K + DV)
"""Octets of an encapsulation key (1,184) and of a ciphertext (1,088)."""

cached = functools.lru_cache(maxsize=200)
"""Tests use few keys, often."""

Poly = list[int]


def _reversed7(number: int) -> int:
    return int(f"{number:07b}"[::-1], 2)


ZETAS = [pow(17, _reversed7(i), Q) for i in range(128)]
GAMMAS = [pow(17, 2 * _reversed7(i) + 1, Q) for i in range(128)]


def _ntt(poly: Poly) -> Poly:
    """Algorithm 9."""
    f, i, length = list(poly), 1, 128
    while length >= 2:
        for start in range(0, 256, 2 * length):
            zeta, i = ZETAS[i], i + 1
            for j in range(start, start + length):
                t = zeta * f[j + length] % Q
                f[j + length], f[j] = (f[j] - t) % Q, (f[j] + t) % Q
        length //= 2
    return f


def _ntt_inverse(poly: Poly) -> Poly:
    """Algorithm 10."""
    f, i, length = list(poly), 127, 2
    while length <= 128:
        for start in range(0, 256, 2 * length):
            zeta, i = ZETAS[i], i - 1
            for j in range(start, start + length):
                t = f[j]
                f[j], f[j + length] = (t + f[j + length]) % Q, zeta * (f[j + length] - t) % Q
        length *= 2
    return [c * 3303 % Q for c in f]


def _multiply(f: Poly, g: Poly) -> Poly:
    """Algorithms 11 and 12."""
    h = []
    for i, gamma in enumerate(GAMMAS):
        a0, a1, b0, b1 = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
        h += [(a0 * b0 + a1 * b1 * gamma) % Q, (a0 * b1 + a1 * b0) % Q]
    return h


def _sum(*polys: Poly) -> Poly:
    return [sum(column) % Q for column in zip(*polys, strict=True)]


def _dot(a: list[Poly], b: list[Poly]) -> Poly:
    return _sum(*(_multiply(f, g) for f, g in zip(a, b, strict=True)))


def _encode(poly: Poly, d: int) -> bytes:
    """Algorithm 5."""
    return sum(c << d * i for i, c in enumerate(poly)).to_bytes(32 * d, "little")


def _decode(octets: bytes, d: int) -> Poly:
    """Algorithm 6."""
    number = int.from_bytes(octets, "little")
    poly = [number >> d * i & (1 << d) - 1 for i in range(256)]
    return [c % Q for c in poly] if d == 12 else poly


def _compress(poly: Poly, d: int) -> Poly:
    return [((c << d) * 2 + Q) // (2 * Q) % (1 << d) for c in poly]


def _decompress(poly: Poly, d: int) -> Poly:
    return [(c * Q * 2 + (1 << d)) >> d + 1 for c in poly]


def _sample_ntt(seed: bytes) -> Poly:
    """Algorithm 7, on a stream that is long enough for all but one seed in more than 2^64."""
    stream = hashlib.shake_128(seed).digest(1200)
    poly: Poly = []
    for at in range(0, len(stream), 3):
        c0, c1, c2 = stream[at : at + 3]
        poly += [d for d in (c0 + 256 * (c1 % 16), c1 // 16 + 16 * c2) if d < Q]
    return poly[:256]


def _sample_cbd(seed: bytes, number: int) -> Poly:
    """Algorithm 8 over PRF, eta being 2."""
    bits = int.from_bytes(hashlib.shake_256(seed + bytes([number])).digest(64 * ETA), "little")
    return [
        ((bits >> 4 * i & 1) + (bits >> 4 * i + 1 & 1) - (bits >> 4 * i + 2 & 1) - (bits >> 4 * i + 3 & 1))
        % Q
        for i in range(256)
    ]


@cached
def _matrix(rho: bytes) -> list[list[Poly]]:
    return [[_sample_ntt(rho + bytes([j, i])) for j in range(K)] for i in range(K)]


def _vector(octets: bytes, d: int) -> list[Poly]:
    return [_decode(octets[32 * d * i : 32 * d * (i + 1)], d) for i in range(K)]


@cached
def keys(seed: bytes) -> tuple[bytes, bytes]:
    """(encapsulation key, decapsulation key) of a seed d | z of 64 octets (algorithms 13 and 16)."""
    g = hashlib.sha3_512(seed[:32] + bytes([K])).digest()
    rho, sigma = g[:32], g[32:]
    s = [_ntt(_sample_cbd(sigma, i)) for i in range(K)]
    e = [_ntt(_sample_cbd(sigma, K + i)) for i in range(K)]
    t = [_sum(_dot(row, s), noise) for row, noise in zip(_matrix(rho), e, strict=True)]
    ek = b"".join(_encode(poly, 12) for poly in t) + rho
    dk = b"".join(_encode(poly, 12) for poly in s)
    return ek, dk + ek + hashlib.sha3_256(ek).digest() + seed[32:]


@cached
def acceptable(ek: bytes) -> bool:
    """The checks of FIPS 203, 7.2: length and modulus."""
    return len(ek) == EK and b"".join(_encode(poly, 12) for poly in _vector(ek, 12)) == ek[:-32]


def _encrypt(ek: bytes, m: bytes, r: bytes) -> bytes:
    """Algorithm 14."""
    t, matrix = _vector(ek, 12), _matrix(ek[-32:])
    y = [_ntt(_sample_cbd(r, i)) for i in range(K)]
    u = [
        _sum(_ntt_inverse(_dot([matrix[j][i] for j in range(K)], y)), _sample_cbd(r, K + i)) for i in range(K)
    ]
    v = _sum(_ntt_inverse(_dot(t, y)), _sample_cbd(r, 2 * K), _decompress(_decode(m, 1), 1))
    return b"".join(_encode(_compress(poly, DU), DU) for poly in u) + _encode(_compress(v, DV), DV)


@cached
def encapsulate(ek: bytes, m: bytes) -> tuple[bytes, bytes]:
    """(shared secret, ciphertext) from 32 octets of randomness (algorithm 17). The key has been checked."""
    g = hashlib.sha3_512(m + hashlib.sha3_256(ek).digest()).digest()
    return g[:32], _encrypt(ek, m, g[32:])


@cached
def decapsulate(dk: bytes, c: bytes) -> bytes:
    """The shared secret (algorithms 15 and 18); a false one, not an error, for a ciphertext that is none."""
    secret, ek, digest, z = dk[: 384 * K], dk[384 * K : 768 * K + 32], dk[-64:-32], dk[-32:]
    u = [_decompress(poly, DU) for poly in _vector(c, DU)]
    v = _decompress(_decode(c[32 * DU * K :], DV), DV)
    product = _ntt_inverse(_dot(_vector(secret, 12), [_ntt(poly) for poly in u]))
    m = _encode(_compress([(a - b) % Q for a, b in zip(v, product, strict=True)], 1), 1)
    g = hashlib.sha3_512(m + digest).digest()
    if hmac.compare_digest(c, _encrypt(ek, m, g[32:])):
        return g[:32]
    return hashlib.shake_256(z + c).digest(32)
