"""The handshake with a ticket as rules: who keeps which ticket of whom, and what it is used for.

    s_keeps(V,T), r_keeps(R,V,T)      S, or R, has a ticket T, made with identity V
    started_again(A,V,T,F,Q,X)        S has sent its verb and first flight to address A on a resumed offer
    accepted_again(R,D,P,V,A,T,K)     R has taken the answer of V's ticket T on connection D; K is the chain
    confirmed_again(A,V,T,F,Q,X,K)    R's first record has verified at S
    s_next(V,T), r_next(R,V,T)        the ticket that this handshake leaves

A ticket of a full handshake serves here, and leaves another one; what is asked about the first is asked about
the next, so an argument step by step covers all that follow. S may try each of its tickets on each offer:
that it looks them up by name only makes it take fewer.
Counterpart: `gateways`, the handshakes that leave the first ticket.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.messages import prologue, resumed, resumed_answer, resumed_offer, ticket, to_r, to_s
from tests.model.world import Check, World


def resumption(world: World) -> Iterator[str]:
    """Everything that tickets add to the rules."""
    yield from _kept(world)
    yield from _offers(world)
    yield from _starts(world)
    yield from _accepts(world)


def kept_by_s(world: World, confirmed: str, chain: str) -> str:
    """S keeps a ticket when it has confirmed R."""
    peer, there = ("V", "") if world.has(Check.TICKET_PEER) else ("W", "& accepts(s1,B,W)")
    return f"{confirmed} {there} {_only(world, 'X')} -> s_keeps({peer},{ticket(chain)})"


def _kept(world: World) -> Iterator[str]:
    """R keeps one when it has accepted the answer; here of a short one, too, if it makes short offers."""
    if not world.has(Check.TICKET_ROLE):
        yield "s_keeps(V,T) -> r_keeps(s1,V,T)"
    yield f"accepted(R,C,P,V,A,K) {_only(world, 'ex(R,C)')} -> r_keeps(R,V,{ticket('K')})"
    yield f"confirmed_again(A,V,T,F,Q,X,K) -> s_next(V,{ticket('K')})"
    yield f"accepted_again(R,D,P,V,A,T,K) -> r_next(R,V,{ticket('K')})"


def _e(world: World) -> str:
    return "er(R,D)" if world.has(Check.FRESH_E) else "er(R,stale)"


def _seen_by(world: World) -> tuple[str, ...]:
    """Where only listeners are about, honest gateways take what honest ones have sent."""
    return ("know",) if world.active else ("know", "sent")


def _only(world: World, e: str) -> str:
    return world.kept_only.replace("X", e) if world.has(Check.TICKET_ONCE) else ""


def _offers(world: World) -> Iterator[str]:
    """R: a fresh e for each connection, and the tag that only the ticket's owners make."""
    e = _e(world)
    opening, _ = resumed(world, "T", e, "Y")
    for said in (f"pub({e})", resumed_offer(world, opening, "P", f"pub({e})", "f1")):
        for fact in _seen_by(world):
            yield f"hears(R,D,P) & r_keeps(R,V,T) -> {fact}({said})"


def _starts(world: World) -> Iterator[str]:
    """S: on an offer whose tag verifies, of an identity that its memory accepts at this address."""
    wire = "know" if world.active else "sent"
    said, fresh = prologue("Q", "ehlo(s1)"), "yr(A,X,F,Q)"
    opening, chain = resumed(world, "T", "X", fresh)
    facts = ["s_keeps(V,T)", "accepts(s1,A,V)", f"{wire}(pub(X))"]
    if world.has(Check.TICKET_TAG):
        facts.append(f"{wire}({resumed_offer(world, opening, said, 'pub(X)', 'F')})")
    state = "started_again(A,V,T,F,Q,X)"
    if "s1" not in world.never_again:
        yield f"{' & '.join(facts)} -> {state}"
    payload = {"flags": "f2", "address": "A", "port": "smtp"}
    answered = resumed_answer(world, chain, said, ("pub(X)", f"pub({fresh})"), payload)
    receives, sends = to_s(world, chain), to_r(world, chain)
    records = (f"aead({sends},params,none)", f"aead({sends},data,flight_again(A,V))")
    for part in (f"pub({fresh})", answered, *records):
        for fact in _seen_by(world):
            yield f"{state} -> {fact}({part})"
    confirmed = f"confirmed_again(A,V,T,F,Q,X,{chain})"
    yield f"{state} & {wire}(aead({receives},params,M)) -> {confirmed}"
    yield f"confirmed_again(A,V,T,F,Q,X,K) -> know(aead({to_r(world, 'K')},data,second_again(A,V)))"


def _accepts(world: World) -> Iterator[str]:
    """R: an answer whose tag verifies; it is of the identity that the ticket was made with."""
    wire = "know" if world.active else "sent"
    e = _e(world)
    _, chain = resumed(world, "T", e, "Y")
    payload = {"flags": "G", "address": "A", "port": "smtp"}
    answered = resumed_answer(world, chain, "P", (f"pub({e})", "pub(Y)"), payload)
    facts = ["hears(R,D,P)", "r_keeps(R,V,T)", f"{wire}(pub(Y))", f"{wire}({answered})"]
    facts += ["serves(R,A)"] * world.has(Check.ADDRESS)
    if "r1" not in world.never_again:
        yield f"{' & '.join(facts)} -> accepted_again(R,D,P,V,A,T,{chain})"
    key = to_s(world, "K")
    for fact in _seen_by(world):
        yield f"accepted_again(R,D,P,V,A,T,K) -> {fact}(aead({key},params,none))"
    yield f"accepted_again(R,D,P,V,A,T,K) -> know(aead({key},data,answer_again(R,D,V)))"
