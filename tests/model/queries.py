"""Every claim that the model carries, as a query with its expected answer; docs/security.md names them.

A query asks whether a fact follows from the rules. Beside the claims that hold stand the variants with a
check left out in which the same fact must follow: a model that cannot fail proves nothing. Their names say
`without`. Counterparts: `spass`, which answers; `queries_of_tickets`, the claims about resumed handshakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tests.model.asking import (
    ALL_KEYS,
    EPHEMERALS,
    FIRST_CONTACT,
    KEYS_OF_R,
    KEYS_OF_S,
    PASSIVE,
    PINNED,
    Query,
    Verdict,
    attack,
    holds,
    know,
    later,
    name_of,
    without,
)
from tests.model.gateways import issued, statement
from tests.model.queries_of_tickets import queries_of_tickets
from tests.model.world import Check, World

FLIGHT: Final = "flight(a1,V)"
S_TO_R: Final = "second(a1,V)"
R_TO_S: Final = "answer(r1,C,vk(id(s1)))"
R_BELIEVES_S: Final = "accepted(r1,C,P,vk(id(s1)),A,K)"
S_BELIEVES_R: Final = "confirmed(a1,vk(id(r1)),N,F,Q,X,K)"

S_NEVER_MET_R: Final = World(
    pinned=False, s_only="& other(V)", rules=("-> other(vk(id(r2)))", "-> other(vk(id(eve)))")
)
"""To ask whether R may believe in a session that S never had, S is forbidden to have it."""
R_NEVER_MET_S: Final = World(r_meets="id(eve)")
OLD_OFFER: Final = World(
    s_only="& past(X)",
    r_only="& present(C)",
    rules=("-> past(ex(R,then))", "-> past(ex(R,stale))", "-> present(now)"),
)
"""S met R on another connection, then. Whatever R takes now is a replay."""
YESTERDAYS_KEY: Final = replace(
    S_NEVER_MET_R,
    stolen=("st_old(s1)", "sign(id(s1),static(pub(st_old(s1)),n2,yesterday))"),
)
"""A static key of S, endorsed until yesterday, was taken from a backup, say."""


def queries() -> tuple[Query, ...]:
    groups = (
        _sanity(),
        _secrecy(),
        _stolen_keys(),
        _agreement(),
        _epochs(),
        _replay(),
        _weaker(),
        _rollover(),
        queries_of_tickets(),
    )
    return tuple(query for group in groups for query in group)


def _sanity() -> Iterator[Query]:
    """An honest run ends as it should; else every secret would be safe."""
    yield Query("run/passive", S_BELIEVES_R, Verdict.REACHED, PASSIVE)
    yield Query("run/pinned", S_BELIEVES_R, Verdict.REACHED, PINNED)
    yield Query("run/r-accepts-s", R_BELIEVES_S, Verdict.REACHED, PINNED)
    short = replace(PASSIVE, short_sent=True, without=frozenset({Check.FULL_OFFER}))
    yield Query("run/short", "started(A,V,N,F,Q,X,U,none)", Verdict.REACHED, short)


def _secrecy() -> Iterator[Query]:
    """What S sends before and behind R's first record, and what R sends."""
    for what, secret in (("first-flight", FLIGHT), ("s-to-r", S_TO_R), ("r-to-s", R_TO_S)):
        yield holds(f"{what}/passive", know(secret), PASSIVE)
        yield holds(f"{what}/passive/quantum-later", later(secret), replace(PASSIVE, quantum_later=True))
        stolen = replace(PASSIVE, stolen=ALL_KEYS)
        yield holds(f"{what}/passive/all-keys-stolen", later(secret), stolen)
        yield holds(f"{what}/pinned", know(secret), PINNED)
        kept = replace(PINNED, stolen_later=ALL_KEYS)
        yield holds(f"{what}/pinned/all-keys-leak-later", later(secret), kept)
        yield holds(f"{what}/pinned/quantum-later", later(secret), replace(PINNED, quantum_later=True))
    yield attack("first-flight/first-contact", know(FLIGHT), FIRST_CONTACT)
    yield attack("s-to-r/first-contact", know(S_TO_R), FIRST_CONTACT)
    yield attack("r-to-s/first-contact", know("answer(r1,C,vk(id(eve)))"), FIRST_CONTACT)
    yield from _exchanges()
    yield from _names()


def _exchanges() -> Iterator[Query]:
    """Each exchange of message 2 carries something that the others do not."""
    recorded = holds(
        "first-flight/passive/quantum-later", later(FLIGHT), replace(PASSIVE, quantum_later=True)
    )
    yield without(recorded, Check.EKEM1)
    short = replace(PASSIVE, short_sent=True, without=frozenset({Check.FULL_OFFER}), stolen_later=ALL_KEYS)
    kept = holds("first-flight/passive/short/all-keys-leak-later", later(FLIGHT), short)
    yield kept
    yield without(kept, Check.EE)
    leaked = holds("first-flight/pinned/ephemerals-leak", know(FLIGHT), replace(PINNED, stolen=EPHEMERALS))
    yield leaked
    yield without(leaked, Check.SE)


def _names() -> Iterator[Query]:
    yield holds("name-of-s/passive", know("vk(id(s1))"), PASSIVE)
    yield holds("name-of-s/passive/quantum-later", later("vk(id(s1))"), replace(PASSIVE, quantum_later=True))
    yield holds("name-of-s/pinned", know("vk(id(s1))"), PINNED)
    yield attack("name-of-s/first-contact", know("vk(id(s1))"), FIRST_CONTACT)
    yield attack("name-of-r/passive", know("vk(id(r1))"), PASSIVE)


def _stolen_keys() -> Iterator[Query]:
    """What the thief of one key can do, and what it cannot."""
    first, static = know(FLIGHT), ("st(r1)",)
    yield attack("thief/r-identity/first-flight", first, replace(PINNED, stolen=("id(r1)",)))
    yield attack("thief/r-identity/s-to-r", know(S_TO_R), replace(PINNED, stolen=("id(r1)",)))
    query = holds("thief/r-static/first-flight", first, replace(PINNED, stolen=static))
    yield query
    yield without(query, Check.CONNECTION_SIGNED)
    query = holds("thief/r-static-later/first-flight", later(FLIGHT), replace(PINNED, stolen_later=static))
    yield query
    yield without(query, Check.CONNECTION_SIGNED)
    yield holds("thief/r-static/s-to-r", know(S_TO_R), replace(PINNED, stolen=static))
    yield holds("thief/r-static/as-r", S_BELIEVES_R, replace(R_NEVER_MET_S, stolen=static))
    yield holds("thief/s-both/first-flight", first, replace(PINNED, stolen=KEYS_OF_S))
    yield holds("thief/s-both/s-to-r", know(S_TO_R), replace(PINNED, stolen=KEYS_OF_S))
    yield holds("thief/s-both/as-r", S_BELIEVES_R, replace(R_NEVER_MET_S, stolen=KEYS_OF_S))
    query = holds("thief/r-both/as-s", R_BELIEVES_S, replace(S_NEVER_MET_R, stolen=KEYS_OF_R))
    yield query
    yield without(query, Check.ES)
    yield attack("thief/s-identity/as-s", R_BELIEVES_S, replace(S_NEVER_MET_R, stolen=("id(s1)",)))
    yield attack("thief/s-static/as-s", R_BELIEVES_S, replace(S_NEVER_MET_R, stolen=("st(s1)",)))
    query = holds("thief/s-static-of-yesterday/as-s", R_BELIEVES_S, YESTERDAYS_KEY)
    yield query
    yield without(query, Check.DATES_CHECKED)
    unsigned = "sign(id(s1),static(pub(st_old(s1)),zero,zero))"
    yield without(query, Check.DATES_SIGNED, stolen=("st_old(s1)", unsigned))


def _agreement() -> Iterator[Query]:
    """Who believes in a session has had it, with the same peer, and the mail servers saw the same."""
    query = holds("agreement/r-believes-s", R_BELIEVES_S, S_NEVER_MET_R)
    yield query
    yield without(query, Check.ES)
    yield without(query, Check.ENDORSEMENT)
    query = holds("agreement/s-believes-r", S_BELIEVES_R, R_NEVER_MET_S)
    yield query
    yield without(query, Check.SIGNATURE)
    yield without(query, Check.TWO_KEYS)
    both = "confirmed(A,vk(id(eve)),N,F,Q,X,K) & accepted(r1,C,P,vk(id(s1)),B,K)"
    query = holds("agreement/same-peer", both, FIRST_CONTACT)
    yield query
    yield without(query, Check.PAYLOAD_HASHED)
    query = holds("agreement/s-starts-on-the-receivers-reply", _started(reply="stripped"), PINNED)
    yield query
    yield without(query, Check.PROLOGUE)
    tampered = "accepted(r1,C,pro(Q,stripped),vk(id(s1)),A,K)"
    query = holds("agreement/r-accepts-after-the-senders-ehlo", tampered, PINNED)
    yield query
    yield without(query, Check.PROLOGUE)
    swapped = "accepted(r2,C,P,vk(id(s1)),A,K)"
    query = holds("agreement/swapped-offers", swapped, FIRST_CONTACT)
    yield query
    yield without(query, Check.ADDRESS)
    pinned = replace(PINNED, without=frozenset({Check.ADDRESS}))
    yield holds("agreement/swapped-offers/pinned-needs-no-address", swapped, pinned)
    own = replace(PINNED, without=frozenset({Check.ADDRESS}), rules=("-> honest(s1)",))
    query = holds("agreement/reflected-offer", "confirmed(a1,vk(id(s1)),N,F,Q,X,K)", own)
    yield query
    yield without(query, Check.OWN_IDENTITY)
    yield without(holds("first-flight/pinned", know(FLIGHT), PINNED), Check.SIGNATURE)


def _started(epoch: str = "N", flags: str = "F", reply: str = "Q") -> str:
    return f"started(A,vk(id(r1)),{epoch},{flags},{reply},X,U,E)"


def _epochs() -> Iterator[Query]:
    """What an offer says beside its keys, and that nothing of it is remembered too early."""
    query = holds("offer/epoch", _started(epoch="n2"), PINNED)
    yield query
    yield without(query, Check.EPOCH_SIGNED)
    query = holds("offer/flags", _started(flags="f2"), PINNED)
    yield query
    yield without(query, Check.FLAGS_SIGNED)
    unsigned = replace(PINNED, without=frozenset({Check.EPOCH_SIGNED}))
    remembered = "remembered(A,vk(id(r1)),n2)"
    query = holds("memory/false-epoch", remembered, unsigned)
    yield query
    yield without(query, Check.CONFIRMED_FIRST)
    query = holds("memory/r-was-never-there", "remembered(a1,vk(id(r1)),N)", R_NEVER_MET_S)
    yield query
    yield without(query, Check.CONFIRMED_FIRST)


def _replay() -> Iterator[Query]:
    yield attack("replay/offer-is-started", _started(), OLD_OFFER)
    yield holds("replay/offer-is-confirmed", S_BELIEVES_R, OLD_OFFER)
    query = holds("replay/answer-is-accepted", R_BELIEVES_S, OLD_OFFER)
    yield query
    yield without(query, Check.FRESH_E)
    kept = holds("first-flight/pinned/all-keys-leak-later", later(FLIGHT), PINNED)
    spent = (*ALL_KEYS, "ex(r1,stale)", "kx(r1,stale)")
    yield without(kept, Check.FRESH_E, stolen_later=spent)


def _weaker() -> Iterator[Query]:
    """A short offer gives way to a quantum computer, so none may be put in a full one's place."""
    quantum = replace(PINNED, quantum_later=True)
    recorded = later(FLIGHT)
    query = holds("first-flight/pinned/quantum-later", recorded, quantum)
    yield without(query, Check.E1_SIGNED)
    takes_short = replace(quantum, without=frozenset({Check.FULL_OFFER}))
    query = holds("downgrade/r-never-sends-short", recorded, takes_short)
    yield query
    yield without(query, Check.E1_SIGNED)
    query = holds("downgrade/s-takes-full-only", recorded, replace(quantum, short_sent=True))
    yield query
    yield without(query, Check.FULL_OFFER)
    short = replace(PASSIVE, short_sent=True, without=frozenset({Check.FULL_OFFER}))
    yield holds("first-flight/passive/short", know(FLIGHT), short)
    short = replace(short, quantum_later=True)
    yield attack("first-flight/passive/short/quantum-later", recorded, short)


def _rollover() -> Iterator[Query]:
    both = ("id(r1)", "id(new)")
    new = ("-> honest(new)", "-> serves(new,a1)", *issued(*both))

    def following(claim: str, goal: str, old: str, issues: tuple[str, ...], *checks: Check) -> Query:
        world = replace(PINNED, without=frozenset(checks))
        rules = (*issues, statement(world, old))
        name = "".join(f"/without-{name_of(check)}" for check in checks)
        expected = Verdict.ATTACK if checks else Verdict.HOLDS
        return Query(claim + name, goal, expected, replace(world, rules=rules))

    to_new, to_eve = "confirmed(a1,vk(id(new)),N,F,Q,X,K)", "started(a1,vk(id(eve)),N,F,Q,X,U,E)"
    run = following("rollover/to-the-next-identity", to_new, "id(r1)", new)
    yield replace(run, expected=Verdict.REACHED)
    yield following("rollover/to-the-attacker", to_eve, "id(r1)", new)
    yield following("rollover/to-the-attacker", to_eve, "id(r1)", new, Check.OLD_SIGNS)
    claimed = "accepts(s1,a1,vk(id(r2)))"
    yield following("rollover/to-a-strangers-key", claimed, "id(eve)", ())
    yield following("rollover/to-a-strangers-key", claimed, "id(eve)", (), Check.NEW_SIGNS)
