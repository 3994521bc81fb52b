"""Limits under overload and abuse, and the gate that stands open when nobody can serve.

Counterparts: docs/operations.md "Overload", gateway/policy/limits.py.
"""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Room, mutants_of

_admission = Room("gateway/intercept/admission.py")
_admission.lacks(
    "sessions have a limit",
    "        if self.sessions.is_full(source, share):\n            return Limit.SESSIONS\n",
    "",
)
_admission.lacks(
    "dials under way have a limit",
    "        if self.connects.is_full(source, share):\n            return Limit.CONNECTS\n",
    "",
)
_admission.lacks(
    "SYNs taken and not accepted have a limit",
    "        return Limit.AWAITED if awaited >= self._awaited * share else None",
    "        return None",
)
_admission.lacks(
    "a limit holds for all sources together",
    "            self.total >= self._most * share",
    "            False",
)
_admission.lacks(
    "a limit holds for one source",
    "or self._by_source.get(source, 0) >= self._most_per_source * share",
    "or False",
)
_admission.lacks(
    "strangers go first",
    "        limit = self._over(source, awaited, limits.STRANGERS_SHARE)",
    "        limit = self._over(source, awaited, 1.0)",
)
_admission.lacks(
    "those who have upgraded get what strangers leave",
    "        if limit is None or not self._is_known(flow, role):",
    "        if True:",
)

_gate = Room("gateway/intercept/gate.py")
_gate.lacks(
    "held SYNs have a limit",
    "        if self._held.is_full_for(source):\n            return self._take_first(",
    "        if False:\n            return self._take_first(",
)
_gate.lacks(
    "what is over a limit passes as without us",
    "            return [GiveVerdict(token, Verdict.PASS, over)]",
    "            return [GiveVerdict(token, Verdict.DROP, over)]",
)

_gate.lacks("nobody is let in without descriptors", "        if not self.has_room:", "        if False:")
_gate.lacks(
    "sessions whose SYNs came long before have a limit",
    "            if flow not in self._live and self._admission.is_far_over(let_in.source):",
    "            if False:",
)

_admission.lacks(
    "sources without a session are forgotten",
    "            del self._by_source[source]\n",
    "            pass\n",
)

_held = Room("gateway/intercept/held.py")
_held.lacks(
    "held SYNs of one source have a limit",
    " or self._of_source[source] >= self._per_source_limit\n",
    "\n",
)

_counted = Room("gateway/intercept/counted.py")
_counted.lacks(
    "a stranger's /64 is one source",
    "    return _network(flow.source)\n",
    "    return flow.source\n",
)
_counted.lacks(
    "inside an address is a source",
    "    if role is Role.SENDING or ",
    "    if ",
)
_counted.lacks(
    "addresses of IPv4 behind a translator are sources each",
    "    if is_translated(address):\n",
    "    if False:\n",
)
_held.lacks(
    "held SYNs count for their source's network",
    "        self._of_source[counted_as(flow, held.role)] += 1\n",
    "        self._of_source[flow.source] += 1\n",
)
_gate.lacks(
    "a network that a server ignores does not fill the row",
    "            (each for each, source in server.waiting.items() if source not in probing),\n",
    "            iter(()),\n",
)
_gate.lacks(
    "a network has one probe while others wait",
    "counted_as(probe, Role.RECEIVING)",
    "probe.source",
)
_surroundings = Room("gateway/runtime/worker/surroundings.py")
_surroundings.lacks(
    "handshakes count for their source's network",
    "self._handshakes.grants(counted, ",
    "self._handshakes.grants(flow.source, ",
)
_sessions = Room("gateway/runtime/worker/sessions.py")
_sessions.lacks(
    "octets that wait count for their source's network",
    "self._bank.opened(counted_as(flow, role))",
    "self._bank.opened(flow.source)",
)

_sessions.lacks(
    "lines on SYNs from outside have a limit",
    "        return has_room\n",
    "        return True\n",
)

_budget = Room("gateway/policy/budget.py")
_budget.lacks(
    "handshakes a second have a limit",
    " and self._all.has(now, kept * self._all.burst)):",
    "):",
)
_budget.lacks(
    "handshakes of one source have a limit",
    "        if not (bucket.has(now, kept * bucket.burst) and ",
    "        if not (",
)
_budget.lacks(
    "strangers leave handshakes to those that have upgraded",
    "        kept = 0.0 if is_known else 1 - limits.STRANGERS_SHARE",
    "        kept = 0.0",
)
_budget.lacks(
    "rates are remembered of so many sources only",
    "        while len(self._sources) > limits.HANDSHAKE_SOURCES:",
    "        while False:",
)

_budget.lacks(
    "a source that comes again is not the one that is forgotten",
    "        self._sources.move_to_end(source)\n",
    "",
)

_receiving = Room("gateway/session/receiving.py")
_receiving.lacks(
    "nothing is offered beyond the budget",
    "        if context.overloaded:\n            return Reason.OVERLOADED\n",
    "",
)

_pressure = Room("gateway/runtime/worker/pressure.py")
_pressure.lacks(
    "octets that wait have a limit",
    "        bank.is_over = bank.held >= bank.most\n",
    "",
)
_pressure.lacks(
    "octets that wait for one source have a limit",
    "        self.is_over = self.held >= bank.most_per_source\n",
    "",
)
_connection = Room("gateway/runtime/worker/connection.py")
_connection.lacks(
    "a session over the limit is not read",
    "        if other.pending and other.pending > self._account.allowance:",
    "        if other.pending > limits.WRITE_BUFFER_OCTETS:",
)
_connection.lacks(
    "what is kept of a sender until the decision counts as what waits",
    "        if kept != self._kept:\n            self._keep(kept)\n",
    "",
)
_connection.lacks(
    "a session over the limit of which something is kept is not read",
    "        if octets > self._account.allowance:",
    "        if False:",
)
_connection.lacks(
    "nor where its far side takes everything",
    "        if self._kept <= self._account.allowance:",
    "        if True:",
)
_endpoint = Room("gateway/runtime/worker/endpoint.py")
_endpoint.lacks(
    "a session over the limit is read in small pieces",
    "self._socket.recv_into(_small_view if is_over else _read_buffer)",
    "self._socket.recv_into(_read_buffer)",
)
_endpoint.lacks(
    "octets that wait take hardly more memory than they are",
    "        if self._buffer and len(self._buffer[-1]) + len(rest) <= limits.PIECE_OCTETS:",
    "        if False:",
)

OVERLOAD: Final[tuple[Mutant, ...]] = mutants_of(
    _admission,
    _gate,
    _held,
    _counted,
    _surroundings,
    _sessions,
    _budget,
    _receiving,
    _pressure,
    _connection,
    _endpoint,
)
