"""The two gateways of the model as rules: what each says, when, and what it then believes.

    hears(R,C,P)                  R makes an offer on connection C, with prologue P
    accepted(R,C,P,V,A,K)         R has taken the answer of identity V, who dialled A; K is the chain
    offered(P,X,E,U,V,N,F)        S has verified an offer: e, e1, s, identity, epoch, flags
    started(A,V,N,F,Q,X,U,E)      S has sent its verb and first flight to address A; Q is the reply it saw
    confirmed(A,V,N,F,Q,X,K)      R's first record has verified at S
    remembered(A,V,N)             S has written this into its memory

Honest are the sending gateway s1 and the receiving gateways r1 (at address a1) and r2 (at a2). In the rules
R, C, J, V are gateway, connection, the peer's identity key and its public part.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.knowledge import attacker
from tests.model.messages import (
    ANSWER,
    MESSAGE_1,
    NOTHING,
    OFFER,
    STATEMENT,
    STATEMENT_SIGNED,
    Keys,
    answer,
    endorsed,
    hashed,
    message,
    offer_signed,
    prologue,
    to_r,
    to_s,
)
from tests.model.tickets import kept_by_s, resumption
from tests.model.world import Check, World

_PLACES = ("-> honest(r1)", "-> honest(r2)", "-> serves(r1,a1)", "-> serves(r2,a2)")


def rules(world: World, goal: str) -> Iterator[str]:
    """All rules of one query."""
    yield from _PLACES
    yield from attacker(world, "later(" in goal)
    yield from receiving_gateway(world)
    yield from sending_gateway(world)
    if "remembered(" in goal:
        yield _remembers(world)
    if world.tickets:
        yield from resumption(world)
    yield from world.rules


def receiving_gateway(world: World) -> Iterator[str]:
    """R: a fresh e and e1 for each connection. It knows its own receiver's reply, and what came as EHLO."""
    ehlo = "Y" if world.active else "ehlo(s1)"
    yield f"honest(R) -> hears(R,C,{prologue('reply(R)', ehlo)})"
    connection = "C" if world.has(Check.FRESH_E) else "stale"
    for e1_secret in (f"kx(R,{connection})", None) if world.short_sent else (f"kx(R,{connection})",):
        yield from _offers(world, connection, e1_secret)
        yield _accepts(world, connection, e1_secret)
    key = to_s(world, "K")
    for fact in ("know", "sent"):
        yield f"accepted(R,C,P,V,A,K) -> {fact}(aead({key},params,none))"
    yield f"accepted(R,C,P,V,A,K) -> know(aead({key},data,answer(R,C,V)))"


def sending_gateway(world: World) -> Iterator[str]:
    """S: starts on an offer that its memory accepts, speaks at once, confirms with R's first record."""
    if world.active:
        yield _verifies(world)
    yield "-> accepts(s1,a1,vk(id(r1)))" if world.pinned else "know(V) -> accepts(s1,a1,V)"
    if not world.has(Check.OWN_IDENTITY):
        yield "-> accepts(s1,a1,vk(id(s1)))"
    for full in (True,) if world.has(Check.FULL_OFFER) else (True, False):
        yield from _starts(world, full)
    yield f"confirmed(A,V,N,F,Q,X,K) -> know(aead({to_r(world, 'K')},data,second(A,V)))"


def statement(world: World, old: str) -> str:
    """S takes a successor W of the pinned identity `old` on a statement, if its signatures verify."""
    said = _statement(old, "W", "N")
    for check, signature in ((Check.OLD_SIGNS, "by_old"), (Check.NEW_SIGNS, "by_new")):
        if not world.has(check):
            del said[signature]
    facts = (f"know({said[field]})" for field in STATEMENT if field in said)
    return f"{' & '.join(facts)} -> accepts(s1,a1,vk(W))"


def issued(old: str, new: str) -> tuple[str, ...]:
    """The statement that honest R makes when its identity is rolled over."""
    said = _statement(old, new, "n2")
    return tuple(f"-> know({said[field]})" for field in STATEMENT)


def _statement(old: str, new: str, serial: str) -> dict[str, str]:
    said = {"old": f"vk({old})", "new": f"vk({new})", "serial": serial}
    for signer, signature, label in ((old, "by_old", "statement_old"), (new, "by_new", "statement_new")):
        said[signature] = f"sign({signer},{message(label, STATEMENT_SIGNED, said)})"
    return said


# --- R -------------------------------------------------------------------------------------------------


def _message_1(world: World, said: str, tokens: dict[str, str], payload: dict[str, str]) -> str:
    """Message 1 as it enters the transcript of message 2."""
    fields = (payload["identity"], payload["epoch"], payload["flags"])
    bound = fields if world.has(Check.PAYLOAD_HASHED) else (NOTHING,) * len(fields)
    return f"message_1({','.join((hashed(world, said, tokens), *bound))})"


def _offers(world: World, connection: str, e1_secret: str | None) -> Iterator[str]:
    tokens, payload = _r_says(connection, e1_secret)
    signature = f"sign(id(R),{offer_signed(world, 'P', tokens, payload)})"
    terms = {**tokens, **payload, "signature": signature}
    for field in (*MESSAGE_1, *OFFER):
        if field in ("epoch", "flags"):
            continue  # public values, which the attacker's rules have as free variables
        yield f"hears(R,C,P) -> know({terms[field]})"
    if not world.active:
        said = ",".join((*tokens.values(), *payload.values()))
        yield f"hears(R,C,P) -> offered(P,{said})"


def _accepts(world: World, connection: str, e1_secret: str | None) -> str:
    tokens, payload = _r_says(connection, e1_secret)
    keys = Keys(
        x=f"ex(R,{connection})",
        u="st(R)",
        y="Y",
        z="Z",
        kem=f"kem({e1_secret},K)" if e1_secret else None,
        ciphertext=f"ct({e1_secret},K)" if e1_secret else None,
    )
    last_day = "today" if world.has(Check.DATES_CHECKED) else "L"
    peer = f"vk({world.r_meets})"
    said = {
        "s": "pub(Z)",
        "identity": peer,
        "epoch": "M",
        "not_after": last_day,
        "flags": "G",
        "address": "A",
    }
    endorsement = f"sign({world.r_meets},{endorsed(world, said)})" if world.has(Check.ENDORSEMENT) else "B"
    sealed = message("payload", ANSWER, {**said, "endorsement": endorsement, "port": "smtp"})
    read = answer(world, keys, _message_1(world, "P", tokens, payload), sealed)
    wire = "know" if world.active else "sent"
    facts = ["hears(R,C,P)", *(f"{wire}({part})" for part in read.parts)]
    facts += ["serves(R,A)"] * world.has(Check.ADDRESS)
    return f"{' & '.join(facts)} {world.r_only} -> accepted(R,C,P,{peer},A,{read.chain})"


def _r_says(connection: str, e1_secret: str | None) -> tuple[dict[str, str], dict[str, str]]:
    e1 = f"ek({e1_secret})" if e1_secret else "none"
    tokens = {"e": f"pub(ex(R,{connection}))", "e1": e1, "s": "pub(st(R))"}
    return tokens, {"identity": "vk(id(R))", "epoch": "n1", "flags": "f1"}


# --- S -------------------------------------------------------------------------------------------------

_READ = {"e": "X", "e1": "E", "s": "U"}
_READ_PAYLOAD = {"identity": "vk(I)", "epoch": "N", "flags": "F"}


def _verifies(world: World) -> str:
    facts = ["know(X)", "know(E)", "know(U)", "know(vk(I))"]
    if world.has(Check.SIGNATURE):
        facts.append(f"know(sign(I,{offer_signed(world, 'P', _READ, _READ_PAYLOAD)}))")
    return f"{' & '.join(facts)} -> offered(P,X,E,U,vk(I),N,F)"


def _remembers(world: World) -> str:
    state = "confirmed(A,V,N,F,Q,X,K)" if world.has(Check.CONFIRMED_FIRST) else "started(A,V,N,F,Q,X,U,E)"
    return f"{state} -> remembered(A,V,N)"


def _starts(world: World, full: bool) -> Iterator[str]:
    e1 = "ek(W)" if full else "none"
    said = prologue("Q", "ehlo(s1)")
    state = f"started(A,V,N,F,Q,X,U,{e1})"
    yield f"offered({said},pub(X),{e1},pub(U),V,N,F) & accepts(s1,A,V) {world.s_only} -> {state}"
    tokens = {"e": "pub(X)", "e1": e1, "s": "pub(U)"}
    fresh = "(V,X,N,F,Q)"
    keys = Keys(
        x="X",
        u="U",
        y=f"ey{fresh}",
        z="st(s1)",
        kem=f"kem(W,rnd{fresh})" if full else None,
        ciphertext=f"ct(W,rnd{fresh})" if full else None,
    )
    message_1 = _message_1(world, said, tokens, {"identity": "V", "epoch": "N", "flags": "F"})
    sealed = {
        "s": "pub(st(s1))",
        "identity": "vk(id(s1))",
        "epoch": "n2",
        "not_after": "today",
        "flags": "f2",
    }
    endorsement = f"sign(id(s1),{endorsed(world, sealed)})"
    places = {"endorsement": endorsement, "address": "A", "port": "smtp"}
    written = answer(world, keys, message_1, message("payload", ANSWER, {**sealed, **places}))
    receives, sends = to_s(world, written.chain), to_r(world, written.chain)
    records = (f"aead({sends},params,none)", f"aead({sends},data,flight(A,V))")
    for part in (*written.parts, *records):
        yield f"{state} -> know({part})"
        yield f"{state} -> sent({part})"
    wire = "know" if world.active else "sent"
    confirmed = f"confirmed(A,V,N,F,Q,X,{written.chain})"
    yield f"{state} & {wire}(aead({receives},params,M)) -> {confirmed}"
    if world.tickets and (full or not world.has(Check.TICKET_OF_FULL)):
        yield kept_by_s(world, confirmed, written.chain)
