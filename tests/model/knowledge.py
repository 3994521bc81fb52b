"""What the attacker can do with what it knows. Rules read `fact & fact -> fact`; capitals are variables.

All primitives are ideal. `dh(initiator's secret, responder's secret)` has a fixed order in place of an
equation, so no exchange has a second name. Counterpart: `gateways`, whom it talks to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.model.messages import ANSWER
from tests.model.world import World

_PRIMITIVES: Final = (
    "know(X) -> know(pub(X))",  # X25519
    "know(X) & know(pub(Y)) -> know(dh(X,Y))",
    "know(pub(X)) & know(Y) -> know(dh(X,Y))",
    "know(X) -> know(ek(X))",  # ML-KEM-768: encapsulation key, ciphertext, shared secret
    "know(R) & know(ek(X)) -> know(ct(X,R))",
    "know(R) & know(ek(X)) -> know(kem(X,R))",
    "know(X) & know(ct(X,R)) -> know(kem(X,R))",
    "know(X) -> know(vk(X))",  # Ed25519
    "know(I) -> know(sign(I,M))",
    "know(K) & know(S) -> know(mix(K,S))",  # MixKey
    "know(K) -> know(toR(K))",  # Split
    "know(K) -> know(toS(K))",
    "know(K) & know(M) -> know(aead(K,A,M))",  # associated data is public in this protocol
    "know(K) & know(aead(K,A,M)) -> know(M)",
)

_AFTERWARDS: Final = (
    "know(X) -> later(X)",
    "later(X) & later(pub(Y)) -> later(dh(X,Y))",
    "later(pub(X)) & later(Y) -> later(dh(X,Y))",
    "later(X) & know(ct(X,R)) -> later(kem(X,R))",
    "later(K) & later(S) -> later(mix(K,S))",
    "later(K) -> later(toR(K))",
    "later(K) -> later(toS(K))",
    "later(K) & know(aead(K,A,M)) -> later(M)",
)
"""When all sessions have ended there is nobody left to talk to: keys and recordings are all that counts."""

_TICKETS: Final = ("know(K) -> know(ticket(K))",)
_TICKETS_AFTERWARDS: Final = ("later(K) -> later(ticket(K))",)

_QUANTUM: Final = ("later(pub(X)) -> later(X)", "later(vk(I)) -> later(I)")

_SECRET_FIELDS: Final = ("identity", "endorsement")
"""Of the answer's payload; the others are public values."""

OWN: Final = ("eve", "id(eve)", "st(eve)", "none")
"""The attacker's own gateway is `eve`; `none` stands in a short offer for e1.

Public values (addresses, days, flags, replies) are not listed: where the attacker chooses one, the rules have
a free variable. As known terms they would be further keys to try, and the prover would never end.
"""


def attacker(world: World, asks_later: bool) -> Iterator[str]:
    """All rules of the attacker; those of afterwards only where the query asks about it."""
    yield from (f"-> know({secret})" for secret in (*OWN, *world.stolen))
    yield from _PRIMITIVES
    yield from _payload("know")
    yield from _TICKETS if world.tickets else ()
    if not asks_later:
        return
    yield from _AFTERWARDS
    yield from _TICKETS_AFTERWARDS if world.tickets else ()
    yield from (rule for rule in _payload("later") if rule.startswith("later"))
    yield from _QUANTUM if world.quantum_later else ()
    yield from (f"-> later({secret})" for secret in world.stolen_later)


def _payload(knows: str) -> Iterator[str]:
    """The answer's payload is put together from its parts, and taken apart."""
    variables = {field: f"F{at}" for at, field in enumerate(ANSWER)}
    payload = f"payload({','.join(variables.values())})"
    known = " & ".join(f"know({variables[field]})" for field in _SECRET_FIELDS)
    yield f"{known} -> know({payload})"
    for field in _SECRET_FIELDS:
        yield f"{knows}({payload}) -> {knows}({variables[field]})"
