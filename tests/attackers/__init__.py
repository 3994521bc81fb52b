"""Attackers who stand on the wire between two gateways, and what must come of each.

`attack` is the interface: whole pieces of a session come in, octets for either side go out; no socket. The
attackers themselves: `altering`, `cutting`, `injecting`, `replaying`, `impersonating`. `wire` puts one of
them into the wire's namespace as a proxy that keeps all addresses; `parties` are a sender and a strict
receiver; `ground` is the lab with both. `expectations` is the one table of what each attack is and what it
achieves. Tests: `tests/lab/test_attackers*.py`; for people: `docs/attackers.md`.
"""
