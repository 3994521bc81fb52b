"""What the supervisor tells a worker at its start, in one packet, and who the site is, whenever that changes.

Holds the static key of the day, never the identity's own private key: that is the signer's.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Self

from gateway.config import Config
from gateway.crypto.keys import EndorsedStatic, IdentityPublic, StaticKey
from gateway.crypto.primitives import X25519Private
from gateway.errors import EnvironmentFailureError
from gateway.policy import limits
from gateway.runtime.hardening import Confinement
from gateway.session.context import GatewayKeys


@dataclass(frozen=True, slots=True, eq=False)
class Presented:
    """Who the site is now: its identity, the static key of the day, which is never shown, with the identity's
    word for it, and the statements to show."""

    identity: bytes
    static: bytes
    epoch: int
    not_after: int
    endorsement: bytes
    statements: tuple[bytes, ...] = ()

    @property
    def keys(self) -> GatewayKeys:
        identity = IdentityPublic(self.identity)
        static = StaticKey(X25519Private(self.static), self.epoch)
        return GatewayKeys(identity, EndorsedStatic(identity, static, self.not_after, self.endorsement))

    def as_json(self) -> dict[str, Any]:
        """For the link, which is as private as the order."""
        return {
            "identity": self.identity.hex(),
            "static": self.static.hex(),
            "epoch": self.epoch,
            "not_after": self.not_after,
            "endorsement": self.endorsement.hex(),
            "statements": [statement.hex() for statement in self.statements],
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        identity, static, endorsement = (
            bytes.fromhex(told[name]) for name in ("identity", "static", "endorsement")
        )
        statements = tuple(map(bytes.fromhex, told["statements"]))
        return cls(identity, static, told["epoch"], told["not_after"], endorsement, statements)

    def __repr__(self) -> str:
        return f"<Presented of day {self.epoch} with {len(self.statements)} statements: static redacted>"


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """`listeners` and `signing` are inherited descriptors. `icmp_seconds_apart`: this kernel's, by family."""

    config: Config
    slot: int
    queue: int
    listeners: tuple[int, ...]
    signing: int
    presented: Presented
    confinement: Confinement
    icmp_seconds_apart: Mapping[int, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Order slot={self.slot} queue={self.queue}: static redacted>"


def require_tellable(config: Config) -> None:
    """Raises EnvironmentFailureError for a configuration so long that no worker could read its order."""
    octets = len(_by_name(config))
    if octets > limits.CONFIG_OCTETS:
        raise EnvironmentFailureError(
            f"the configuration comes to {octets} octets, and a worker can be told {limits.CONFIG_OCTETS}:"
            " shorten its lists of networks"
        )


# --- In one packet -----------------------------------------------------------------------------------
# An upgrade that is not followed by a reload leaves a supervisor whose next worker is of another version. So
# each value goes with its name: by itself pickle has a dataclass's in a row, and one that is new amid them
# would shift all that follow.


def told(order: Order) -> bytes:
    return _by_name(order)


def heard(octets: bytes) -> Order:
    """From any version: what that did not know has its default, what is not known here is left out."""
    order = pickle.loads(octets)  # noqa: S301 - our own parent wrote it
    assert isinstance(order, Order)
    return order


def _by_name(value: object) -> bytes:
    octets = io.BytesIO()
    _Pickler(octets).dump(value)
    return octets.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if not is_dataclass(value) or isinstance(value, type):
            return NotImplemented
        return made, (type(value), {one.name: getattr(value, one.name) for one in fields(value)})


def made(kind: type[Any], values: dict[str, Any]) -> Any:
    """Named in what another version has written: to be found here, by this name, in later ones, too."""
    known = {one.name for one in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})
