"""What the supervisor tells a worker at its start, in one packet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from gateway.config import Config


@dataclass(frozen=True, slots=True, eq=False)
class Presented:
    """Who the site is now: the identity's seed, which is never shown, and the statements to show with it."""

    seed: bytes
    statements: tuple[bytes, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For the link, which is as private as the order."""
        return {"seed": self.seed.hex(), "statements": [statement.hex() for statement in self.statements]}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        return cls(bytes.fromhex(told["seed"]), tuple(map(bytes.fromhex, told["statements"])))

    def __repr__(self) -> str:
        return f"<Presented with {len(self.statements)} statements: seed redacted>"


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """`listeners` are inherited descriptors."""

    config: Config
    slot: int
    queue: int
    listeners: tuple[int, ...]
    presented: Presented

    def __repr__(self) -> str:
        return f"<Order slot={self.slot} queue={self.queue}: seed redacted>"
