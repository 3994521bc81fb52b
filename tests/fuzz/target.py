"""What a fuzz target is, and how it reads the fuzzer's octets. For tests only.

A target takes any octets and returns, or raises: whatever leaves it is a finding. Each one states in its code
what may leave the parser that it feeds, and what must hold of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from gateway.errors import PeerProtocolError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """One parser or machine under the fuzzer."""

    name: str
    run: Callable[[bytes], None]
    modules: tuple[str, ...]
    """Whose lines are counted as its coverage."""
    most_octets: int = 4096
    """Longest input that the fuzzer makes; larger ones are `tests/unit/fuzz/test_bounds.py`'s."""
    words: tuple[bytes, ...] = ()
    """Octet strings that the fuzzer would take long to find."""


class Cursor:
    """Reads choices from octets; behind their end every choice is 0 and every string is empty."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._octets)

    def take(self, count: int) -> bytes:
        taken = self._octets[self._at : self._at + count]
        self._at += count
        return taken

    def u8(self) -> int:
        return int.from_bytes(self.take(1), "big")

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def rest(self) -> bytes:
        return self.take(len(self._octets))


def pieces(octets: bytes, size: int) -> Iterator[bytes]:
    """Cut into pieces of `size` (0: one piece, as it is)."""
    step = size or max(len(octets), 1)
    return (octets[at : at + step] for at in range(0, len(octets), step))


def allowed(parse: Callable[[], T]) -> T | None:
    """The answer, or None where the parser refused as it may."""
    try:
        return parse()
    except PeerProtocolError:
        return None
