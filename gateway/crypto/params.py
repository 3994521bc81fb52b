"""The content of a PARAMS record: type u8, length u16, value, as often as needed.

Both sides send one; what is not known is ignored, so that new ones need no version. Judges form only:
what a parameter means is the session's. Counterpart: `records`.
"""

from __future__ import annotations

import enum
from typing import Final

from gateway.errors import LocalMisuseError, PeerProtocolError, Reason
from gateway.immutable import immutable
from gateway.policy.limits import PARAMS_VERSION_OCTETS, RECORD_CONTENT_OCTETS

_HEADER_OCTETS: Final = 3


class ParamType(enum.IntEnum):
    """Known parameters. 0x01 and 0x05 are reserved (docs/protocol.md) and ignored like any unknown one."""

    PROMISE = 0x01
    ADDRESS_CONFIRMED = 0x02
    RECORD_LIMIT = 0x03
    SOFTWARE = 0x04
    WILLING = 0x05


@immutable
class Params:
    """What one side tells the other about itself; every field may be missing (None)."""

    dialled_address_confirmed: bool | None = None
    """R only: whether the address that S dialled is R's own."""
    record_limit: int | None = None
    """Most content octets in one record that this side likes to be sent: a wish, not a limit to enforce."""
    software: str | None = None
    """Only where the operator allows it; printable ASCII."""

    def encode(self) -> bytes:
        parts = []
        if self.dialled_address_confirmed is not None:
            value = b"\x01" if self.dialled_address_confirmed else b"\x00"
            parts.append(_tlv(ParamType.ADDRESS_CONFIRMED, value))
        if self.record_limit is not None:
            if not 0 < self.record_limit <= RECORD_CONTENT_OCTETS:
                raise LocalMisuseError(f"record limit {self.record_limit}")
            parts.append(_tlv(ParamType.RECORD_LIMIT, self.record_limit.to_bytes(2, "big")))
        if self.software is not None:
            if not _is_version(self.software.encode()):
                raise LocalMisuseError("software version is short printable ASCII")
            parts.append(_tlv(ParamType.SOFTWARE, self.software.encode()))
        return b"".join(parts)

    @classmethod
    def decode(cls, content: bytes) -> Params:
        """Raises PeerProtocolError (BAD_PARAMS): cut off, one type twice, or a known one malformed."""
        confirmed, limit, software = None, None, None
        seen: set[int] = set()
        for kind, value in _split(content):
            if kind in seen:
                raise PeerProtocolError(Reason.BAD_PARAMS, f"parameter {kind} twice")
            seen.add(kind)
            if kind == ParamType.ADDRESS_CONFIRMED:
                confirmed = _read_confirmed(value)
            elif kind == ParamType.RECORD_LIMIT:
                limit = _read_limit(value)
            elif kind == ParamType.SOFTWARE:
                software = _read_version(value)
        return cls(confirmed, limit, software)


def _read_confirmed(value: bytes) -> bool:
    if value not in (b"\x00", b"\x01"):
        raise PeerProtocolError(Reason.BAD_PARAMS, "address confirmation")
    return value == b"\x01"


def _read_limit(value: bytes) -> int:
    limit = int.from_bytes(value, "big")
    if len(value) != 2 or not 0 < limit <= RECORD_CONTENT_OCTETS:
        raise PeerProtocolError(Reason.BAD_PARAMS, "record limit")
    return limit


def _read_version(value: bytes) -> str:
    if not _is_version(value):
        raise PeerProtocolError(Reason.BAD_PARAMS, "software version")
    return value.decode("ascii")


def _split(content: bytes) -> list[tuple[int, bytes]]:
    pairs = []
    at = 0
    while at < len(content):
        begins = at + _HEADER_OCTETS
        ends = begins + int.from_bytes(content[at + 1 : begins], "big")
        if begins > len(content) or ends > len(content):
            raise PeerProtocolError(Reason.BAD_PARAMS, "cut off")
        pairs.append((content[at], content[begins:ends]))
        at = ends
    return pairs


def _tlv(kind: ParamType, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def _is_version(value: bytes) -> bool:
    """It ends up in a log: nothing but visible ASCII and blanks, and not much of it."""
    return 0 < len(value) <= PARAMS_VERSION_OCTETS and all(0x20 <= octet < 0x7F for octet in value)
