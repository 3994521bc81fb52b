"""What the supervisor tells a worker at its start, in one packet."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.config import Config


@dataclass(frozen=True, slots=True)
class Order:
    """`listeners` are inherited descriptors; `seed` is the identity's, and never shown."""

    config: Config
    slot: int
    queue: int
    listeners: tuple[int, ...]
    seed: bytes

    def __repr__(self) -> str:
        return f"<Order slot={self.slot} queue={self.queue}: seed redacted>"
