"""X25519 (RFC 7748) and Ed25519 (RFC 8032) on Python's integers. For tests only: slow, not in constant time.

Points are extended coordinates (X, Y, Z, T) of RFC 8032, 5.1.4.
"""

from __future__ import annotations

import functools
import hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)

cached = functools.lru_cache(maxsize=1000)
"""Tests use few keys, often."""

Point = tuple[int, int, int, int]
NEUTRAL: Point = (0, 1, 1, 0)


@cached
def x25519(private: bytes, public: bytes) -> bytes:
    """The u coordinate of private times public (RFC 7748, 5). All zeros is the caller's to refuse."""
    scalar = int.from_bytes(private, "little") & ~7 & (2**255 - 1) | 2**254
    u = int.from_bytes(public, "little") & (2**255 - 1)
    x2, z2, x3, z3, swapped = 1, 0, u, 1, 0
    for at in range(254, -1, -1):
        bit = scalar >> at & 1
        if bit != swapped:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb = a * a % P, b * b % P
        da, cb = d * a % P, c * b % P
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        e = aa - bb
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def x25519_public(private: bytes) -> bytes:
    return x25519(private, (9).to_bytes(32, "little"))


def _add(p: Point, q: Point) -> Point:
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(scalar: int, point: Point) -> Point:
    product = NEUTRAL
    while scalar:
        if scalar & 1:
            product = _add(product, point)
        point = _add(point, point)
        scalar >>= 1
    return product


def _encoded(point: Point) -> bytes:
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decoded(octets: bytes) -> Point | None:
    """RFC 8032, 5.1.3; None for what is no point, and for an encoding that is not reduced."""
    number = int.from_bytes(octets, "little")
    y, sign = number & (2**255 - 1), number >> 255
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT_OF_MINUS_ONE % P
    if x * x % P != square or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def _point(octets: bytes) -> Point:
    point = _decoded(octets)
    assert point is not None
    return point


_BASE = _point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def _secret(seed: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(seed).digest()
    return int.from_bytes(digest[:32], "little") & ~7 & (2**255 - 1) | 2**254, digest[32:]


def _challenge(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER


@cached
def ed25519_public(seed: bytes) -> bytes:
    return _encoded(_times(_secret(seed)[0], _BASE))


@cached
def ed25519_sign(seed: bytes, message: bytes) -> bytes:
    secret, prefix = _secret(seed)
    public = _encoded(_times(secret, _BASE))
    once = _challenge(prefix, message)
    commitment = _encoded(_times(once, _BASE))
    s = (once + _challenge(commitment, public, message) * secret) % ORDER
    return commitment + s.to_bytes(32, "little")


@cached
def ed25519_acceptable(public: bytes) -> bool:
    """Whether it is a point in its reduced encoding, and not of small order."""
    point = _decoded(public)
    return point is not None and _encoded(_times(8, point)) != _encoded(NEUTRAL)


@cached
def ed25519_verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    """RFC 8032, 5.1.7, by the equation without cofactor: R as it is encoded."""
    point = _decoded(public)
    s = int.from_bytes(signature[32:], "little")
    if point is None or len(signature) != 64 or s >= ORDER or not ed25519_acceptable(public):
        return False
    minus = (P - point[0], point[1], 1, P - point[3])
    k = _challenge(signature[:32], public, message)
    return _encoded(_add(_times(s, _BASE), _times(k, minus))) == signature[:32]
