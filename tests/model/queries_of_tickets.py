"""The claims about resumed handshakes. What is known of a ticket is told by rules of the query's world.

Counterparts: `tickets`, the rules; `queries`, the claims about the handshakes that leave the first ticket.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tests.model.asking import (
    ALL_KEYS,
    FIRST_CONTACT,
    KEYS_OF_R,
    PASSIVE,
    PINNED,
    Query,
    Verdict,
    attack,
    holds,
    know,
    later,
    without,
)
from tests.model.world import Check, World

FLIGHT: Final = "flight_again(a1,V)"
S_TO_R: Final = "second_again(a1,V)"
R_TO_S: Final = "answer_again(r1,D,vk(id(s1)))"
SECRETS: Final = (("first-flight", FLIGHT), ("s-to-r", S_TO_R), ("r-to-s", R_TO_S))
R_BELIEVES_S: Final = "accepted_again(r1,D,P,vk(id(s1)),A,T,K)"
S_BELIEVES_R: Final = "confirmed_again(a1,vk(id(r1)),T,F,Q,X,K)"
KEPT: Final = (("of-s", "s_keeps(vk(id(r1)),T)"), ("of-r", "r_keeps(r1,vk(id(s1)),T)"))
NEXT: Final = (("next-of-s", "s_next(vk(id(r1)),T)"), ("next-of-r", "r_next(r1,vk(id(s1)),T)"))

AGAIN: Final = replace(PINNED, tickets=True)
AGAIN_FIRST_CONTACT: Final = replace(FIRST_CONTACT, tickets=True)
AGAIN_PASSIVE: Final = replace(PASSIVE, tickets=True)
_SERVED: Final = tuple(f"{keeps} -> later(T)" for keeps in ("s_keeps(V,T)", "r_keeps(R,V,T)"))
_LEFT: Final = tuple(f"{keeps} -> later(T)" for keeps in ("s_next(V,T)", "r_next(R,V,T)"))
KEYS_AND_QUANTUM_LATER: Final = replace(AGAIN, stolen_later=ALL_KEYS, quantum_later=True)
SERVED_LEAK_LATER: Final = replace(AGAIN, stolen_later=ALL_KEYS, rules=_SERVED)
"""Every ticket that has served, and every long-term key."""
ALL_LEAK_LATER: Final = replace(SERVED_LEAK_LATER, rules=(*_SERVED, *_LEFT))
"""And every ticket that the sessions have left."""
STOLEN: Final = tuple(f"{keeps} -> know(T)" for _, keeps in KEPT)
"""The tickets of s1 and r1, before they have served."""
SPENT: Final = replace(
    AGAIN,
    kept_only="& unspent(X)",
    rules=("-> unspent(ex(R,now))", "accepted(R,then,P,V,A,K) -> know(ticket(K))"),
)
"""The ticket of the connection then has served, and is found by a thief."""
EVE_AT_A2: Final = replace(AGAIN, rules=("-> accepts(s1,a2,vk(id(eve)))",))
"""S has tickets of the attacker's own gateway as well."""
EVE_AT_A1: Final = replace(AGAIN, rules=("-> accepts(s1,a1,vk(id(eve)))",))
"""What first contact with the attacker is; with anybody there the prover takes too long."""
SWAPPED: Final = replace(AGAIN, rules=("-> accepts(s1,a1,vk(id(r2)))", "-> accepts(s1,a2,vk(id(r2)))"))
"""S meets r2 where it belongs, and takes it at another address, too: that has no pin, say."""

OWN_SITE: Final = replace(AGAIN, without=frozenset({Check.ADDRESS}), rules=("-> honest(s1)",))
"""S's site has a receiving gateway, which takes any address for its own."""


def queries_of_tickets() -> Iterator[Query]:
    yield from _sanity()
    yield from _tickets()
    yield from _secrecy()
    yield from _limits()
    yield from _agreement()
    yield from _thief()


def _holds(claim: str, goal: str, world: World) -> Query:
    """In these worlds the prover is done in a third of its time if it orders terms in another way."""
    return replace(holds(claim, goal, world), option="-Sorts=0 -Ordering=1")


def _sanity() -> Iterator[Query]:
    yield Query("run/resumed", S_BELIEVES_R, Verdict.REACHED, AGAIN)
    yield Query("run/resumed/r-accepts-s", R_BELIEVES_S, Verdict.REACHED, AGAIN)
    yield Query("run/resumed/passive", S_BELIEVES_R, Verdict.REACHED, AGAIN_PASSIVE)
    yield _holds("first-flight/pinned/its-ticket-leaks-later", later("flight(a1,V)"), ALL_LEAK_LATER)
    yield holds("name-of-s/pinned/beside-tickets", know("vk(id(s1))"), AGAIN)


def _tickets() -> Iterator[Query]:
    """A ticket is secret, and both have it of each other; then so is the next one, and all that follow."""
    for which, has in (*KEPT, *NEXT):
        goal = f"{has} & {later('T')}"
        yield _holds(f"ticket/{which}/all-keys-and-quantum-later", goal, KEYS_AND_QUANTUM_LATER)
    for which, has in NEXT:
        goal = f"{has} & {later('T')}"
        query = _holds(f"ticket/{which}/the-one-before-leaks-later", goal, SERVED_LEAK_LATER)
        yield query
        yield without(query, Check.EE)
    both = "s_keeps(vk(id(eve)),T) & r_keeps(r1,vk(id(s1)),T)"
    query = holds("ticket/same-peer", both, EVE_AT_A1)
    yield query
    yield without(query, Check.PAYLOAD_HASHED)


def _secrecy() -> Iterator[Query]:
    """What is sent in a resumed session; and what each part of its handshake is for."""
    passive = replace(AGAIN_PASSIVE, quantum_later=True)
    for what, secret in SECRETS:
        yield holds(f"resumed/{what}/passive/quantum-later", later(secret), passive)
        yield _holds(f"resumed/{what}/pinned/all-leak-later", later(secret), ALL_LEAK_LATER)
        claim = f"resumed/{what}/pinned/all-keys-and-quantum-later"
        yield _holds(claim, later(secret), KEYS_AND_QUANTUM_LATER)
    query = holds("resumed/first-flight/pinned", know(FLIGHT), AGAIN)
    yield query
    yield without(query, Check.PSK)
    kept = holds("resumed/first-flight/pinned/all-leak-later", later(FLIGHT), ALL_LEAK_LATER)
    yield without(kept, Check.EE)
    yield without(kept, Check.TICKET_TAG)
    yield without(kept, Check.FRESH_E, stolen_later=(*ALL_KEYS, "er(r1,stale)"))
    yield without(holds("resumed/first-flight/passive/quantum-later", later(FLIGHT), passive), Check.EKEM1)
    short = replace(passive, short_sent=True, without=frozenset({Check.FULL_OFFER}))
    query = holds("resumed/first-flight/passive/short/quantum-later", later(FLIGHT), short)
    yield query
    yield without(query, Check.TICKET_OF_FULL)
    leaked = replace(AGAIN, stolen=("er(r1,d)",))
    yield holds("resumed/first-flight/pinned/ephemerals-leak", know(FLIGHT), leaked)


def _limits() -> Iterator[Query]:
    """What a resumed session does not give."""
    yield attack("resumed/first-flight/first-contact", know(FLIGHT), AGAIN_FIRST_CONTACT)
    both = replace(AGAIN_PASSIVE, quantum_later=True, rules=_SERVED)
    yield attack("resumed/first-flight/passive/quantum-and-ticket-later", later(FLIGHT), both)


def _agreement() -> Iterator[Query]:
    """Who believes in a resumed session has had it, with the same peer, and the mail servers saw the same."""
    query = holds("resumed/r-believes-s", R_BELIEVES_S, replace(AGAIN, never_again=frozenset({"s1"})))
    yield query
    yield without(query, Check.PSK)
    query = holds("resumed/s-believes-r", S_BELIEVES_R, replace(AGAIN, never_again=frozenset({"r1"})))
    yield query
    yield without(query, Check.PSK)
    yield without(query, Check.TWO_KEYS)
    both = "confirmed_again(A,vk(id(eve)),T,F,Q,X,K) & accepted_again(r1,D,P,vk(id(s1)),B,Z,K)"
    query = holds("resumed/same-peer", both, EVE_AT_A1)
    yield query
    yield without(query, Check.PAYLOAD_HASHED)
    started = "started_again(A,vk(id(r1)),T,F,stripped,X)"
    query = holds("resumed/s-starts-on-the-receivers-reply", started, AGAIN)
    yield query
    yield without(query, Check.PROLOGUE)
    tampered = "accepted_again(r1,D,pro(Q,stripped),vk(id(s1)),A,T,K)"
    query = holds("resumed/r-accepts-after-the-senders-ehlo", tampered, AGAIN)
    yield query
    yield without(query, Check.PROLOGUE)
    swapped = "accepted_again(r2,D,P,vk(id(s1)),A,T,K) & confirmed_again(a1,V,T,F,Q,X,K)"
    query = holds("resumed/swapped-offers", swapped, SWAPPED)
    yield query
    yield without(query, Check.ADDRESS)
    reflected = f"{S_BELIEVES_R} & accepted_again(s1,D,P,V,A,T,K)"
    query = holds("resumed/reflected-offer", reflected, OWN_SITE)
    yield query
    yield without(query, Check.TICKET_ROLE)
    flags = "started_again(A,vk(id(r1)),T,f2,Q,X)"
    query = holds("resumed/offer/flags", flags, AGAIN)
    yield query
    yield without(query, Check.TICKET_TAG)


def _thief() -> Iterator[Query]:
    """What the thief of a ticket can do, and what it cannot."""
    listens, acts = replace(AGAIN_PASSIVE, rules=STOLEN), replace(AGAIN, rules=STOLEN)
    query = holds("thief/ticket/listens", later(FLIGHT), replace(listens, stolen_later=ALL_KEYS))
    yield query
    yield without(query, Check.EE)
    left = f"{NEXT[0][1]} & {know('T')}"
    query = holds("thief/ticket/listens/next-ticket", left, listens)
    yield query
    yield without(query, Check.EE)
    yield attack("thief/ticket/first-flight", know(FLIGHT), acts)
    yield attack("thief/ticket/next-ticket", left, acts)
    yield attack("thief/ticket/as-r", S_BELIEVES_R, replace(acts, never_again=frozenset({"r1"})))
    yield attack("thief/ticket/as-s", R_BELIEVES_S, replace(acts, never_again=frozenset({"s1"})))
    yield holds("thief/ticket/full-first-flight", know("flight(a1,V)"), acts)
    query = holds("thief/ticket/of-his-own", know(FLIGHT), EVE_AT_A2)
    yield query
    yield without(query, Check.TICKET_PEER)
    query = holds("thief/ticket/that-has-served", know(FLIGHT), SPENT)
    yield query
    yield without(query, Check.TICKET_ONCE)
    alone = replace(AGAIN, stolen=KEYS_OF_R, never_again=frozenset({"s1"}))
    yield holds("thief/r-both/resumed-as-s", R_BELIEVES_S, alone)
