"""Checks of what is remembered and of what follows. Counterpart: docs/protocol.md section 10."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Room, mutants_of

_comparison = Room("gateway/peers/comparison.py")
_comparison.lacks(
    "a short offer in a full one's place is WEAKER",
    "    if observed.full_fits and not observed.full:",
    "    if False:",
)
_comparison.lacks(
    "an epoch that went back is OLD",
    "    return _Sight.OLD if known is not None and observed.epoch < known.epoch else _Sight.FINE",
    "    return _Sight.FINE",
)
_comparison.lacks(
    "a statement leads to the identity that is offered",
    "    if statement is not None and statement.new == observed.identity and leads_on(pin, statement):",
    "    if statement is not None and leads_on(pin, statement):",
)
_comparison.lacks(
    "an identity that is not accepted is not SAME",
    "    if known is not None and known.accepted:",
    "    if known is not None:",
)

_pins = Room("gateway/peers/pins.py")
_LEADS = "    return old is not None and old.accepted and statement.serial > old.serial"
_pins.lacks("a statement's serial rises", _LEADS, "    return old is not None and old.accepted")
_pins.lacks(
    "a statement leads on from an accepted identity",
    _LEADS,
    "    return old is not None and statement.serial > old.serial",
)
_pins.lacks(
    "a stranger never displaces an accepted identity",
    "        unaccepted = [known for known in identities if not known.accepted]\n        if not unaccepted:",
    "        unaccepted = identities\n        if not unaccepted:",
)
_pins.lacks(
    "a pin holds four identities",
    "    if len(identities) >= limits.IDENTITIES_PER_PIN:",
    "    if False:",
)
_pins.lacks(
    "a stranger is not accepted at once",
    "    return replace(pin, identities=(*identities, _first_sight(peer, now, Acceptance.NOT_YET)))",
    "    return replace(pin, identities=(*identities, _first_sight(peer, now, Acceptance.TIME)))",
)
_RUN = "    if days >= limits.ACCEPT_AFTER_DAYS_SEEN and long_enough:"
_pins.lacks("acceptance by time takes a week", _RUN, "    if days >= limits.ACCEPT_AFTER_DAYS_SEEN:")
_pins.lacks("acceptance by time takes three days", _RUN, "    if long_enough:")
_pins.lacks(
    "an accepted identity in between breaks the run",
    "    return replace(known, run_since=0, run_days=0) if known.run_days else known",
    "    return known",
)
_pins.lacks(
    "an identity's highest epoch is kept",
    "    epoch, had_full = max(known.epoch, peer.epoch), ",
    "    epoch, had_full = peer.epoch, ",
)
_pins.lacks(
    "a rest has an end",
    "        return now < self.rest_until <= now + limits.FAILURE_REST_MOST_SECONDS",
    "        return now < self.rest_until",
)

_store = Room("gateway/peers/store.py")
_store.lacks(
    "a path with a pin never rests",
    """            if _lookup(connection, destination) is not None:
                return PathFailures()
""",
    "",
)

_decision = Room("gateway/policy/decision.py")
for _word, _reason in (
    ("CHANGED", "UPGRADED_CHANGED_PEER, alarm=True"),
    ("WEAKER", "UPGRADED_WEAKER_OFFER, alarm=True"),
    ("MISSING", "OFFER_MISSING, alarm=True"),
    ("FAILED", "HANDSHAKE_FAILED, alarm=True"),
):
    _decision.lacks(f"{_word} rings", f"(Reason.{_reason})", f"(Reason.{_reason.split(',')[0]})")
_decision.lacks(
    "a stranger that promises a statement is waited for",
    "    return follows and not is_accepted(pin, identity)",
    "    return False",
)

_ignored = Room("gateway/policy/ignored_offers.py")
_ignored.lacks(
    "who has upgraded goes on getting offers", "Neighbourhood.ITSELF: True", "Neighbourhood.ITSELF: False"
)
_ignored.lacks(
    "neighbours of one that has upgraded go on getting offers",
    "Neighbourhood.NEIGHBOUR: True",
    "Neighbourhood.NEIGHBOUR: False",
)
_ignored.lacks(
    "whoever is new ends the rest of all", "        self._counts.clear()", "        self._counts.copy()"
)
_ignored.lacks(
    "a client that rests gets an offer now and then",
    "is_turn_of(port) or without >= limits.OFFERS_REST_ONE_IN - 1 else",
    "is_turn_of(port) else",
)
_ignored.lacks(
    "a connection that comes to the gate by its turn gets an offer",
    "is_turn_of(port) or without >= limits.OFFERS_REST_ONE_IN - 1 else",
    "without >= limits.OFFERS_REST_ONE_IN - 1 else",
)

_memory = Room("gateway/runtime/worker/memory.py")
_memory.lacks(
    "where the memory cannot be read nobody rests",
    "SourceStore(database).has_upgraded_among(beginnings), True)",
    "SourceStore(database).has_upgraded_among(beginnings), False)",
)
_memory.lacks(
    "memory that cannot be read again is told again",
    "        self._told = False\n        return answer",
    "        return answer",
)

_learning = Room("gateway/runtime/worker/learning.py")
_learning.lacks(
    "the supervisor hears of a stranger that there is no place for",
    "is_unknown = pin is None or pin.find(met.identity) is None",
    "is_unknown = pin is None",
)
_learning.lacks(
    "a client whose handshake failed rests no more",
    "        elif note.upgraded or note.reason is Reason.HANDSHAKE_FAILED:",
    "        elif note.upgraded:",
)
_learning.lacks(
    "a client that broke off behind an offer rests no more",
    "            if note.seen is SourceSeen.DROPPED:",
    "            if False:",
)
_learning.lacks(
    "the kernel hears of a first upgrade at once", "                self._met()\n", "                pass\n"
)
_learning.lacks(
    "the supervisor hears of a client whose handshake failed",
    "            if not note.upgraded:  # of those",
    "            if False:  # of those",
)
_learning.lacks(
    "a path where the redial fails each time is left in peace, too",
    "        if note.reason in _HANDSHAKE_FAILED:",
    "        if note.reason is Reason.HANDSHAKE_FAILED:",
)
_learning.lacks(
    "a first upgrade ends the rest of all in this worker",
    "            if is_new:\n",
    "            if False:\n",
)

_workers = Room("gateway/runtime/supervisor/pool.py")
_workers.lacks(
    "a first upgrade is told to all workers",
    ' or source.get("new"):',
    ":",
)

_peers = Room("gateway/runtime/supervisor/peer_memory.py")
_peers.lacks(
    "a stranger stored beside others rings where its session could not",
    "        if number > 1 or not rang:",
    "        if number > 1:",
)
_peers.lacks(
    "a second stranger within a day rings too",
    "        if number > 1 or not rang:",
    "        if not rang:",
)
_peers.lacks(
    "strangers at one address do not keep the bell busy",
    "        if number > limits.IDENTITIES_PER_PIN:",
    "        if False:",
)
_peers.lacks(
    "a stranger that there is no place for rings too",
    "self.pins.note_stranger(at, met.identity, now, self._again_seconds)",
    "False",
)
_history = Room("gateway/peers/history.py")
_history.lacks(
    "strangers of one number are as far apart as two rings",
    "if 0 <= event.at - at < again_seconds}",
    "}",
)
_peers.lacks(
    "in a memory that could not be opened everybody may be pinned",
    "return self.pins is None or self.pins.lookup(at) is not None",
    "return self.pins is not None and self.pins.lookup(at) is not None",
)
_sources = Room("gateway/peers/source_store.py")
_sources.lacks(
    "who has dropped one offer pushes out nobody who rests",
    " ORDER BY rest_until DESC, seen_day DESC LIMIT",
    " ORDER BY seen_day DESC LIMIT",
)
_saying = Room("gateway/runtime/worker/saying.py")
_saying.lacks(
    "an alarm that a full link has no room for waits",
    "        self._unheard.append(message)",
    "        pass",
)
_saying.lacks(
    "nobody is remembered before his alarm has been told",
    "        if not self._unheard and self._link.send(message):",
    "        if self._link.send(message):",
)
_worker = Room("gateway/runtime/worker/worker.py")
_worker.lacks(
    "an alarm that waits is tried again with each proof of life",
    "        self._saying.again()\n        self._link.send_alive()",
    "        self._link.send_alive()",
)
_spared = Room("gateway/runtime/supervisor/spared.py")
_spared.lacks(
    "a server with a gateway is no dead end that the kernel is told of just now",
    " or entry in self._changes or entry in self._under_way:",
    " or entry in self._changes:",
)
_spared.lacks(
    "a reload takes out the dead ends that were still to be taken out",
    '"until": until, "none": none, "counted"',
    '"until": until, "counted"',
)
_spared.lacks(
    "a dead end that is none is taken out as soon as the rules stand",
    "        self._changes = none | self._changes",
    "        if trouble: self._changes = none | self._changes",
)
_spared.lacks(
    "clients that rest are let go though the kernel failed once",
    "        else:\n            self._all_go = True\n",
    "",
)
_spared.lacks(
    "clients that the kernel is being told of are let go",
    "bool(self._until or self._under_way or self._changes)",
    "bool(self._until)",
)
_spared.lacks(
    "behind a first upgrade nobody is put to rest for a while",
    "wanted = self._seconds and now >= self._again_from",
    "wanted = self._seconds",
)
_spared.lacks(
    "a reload knows that clients are to be let go",
    '"all_go": self._all_go or self._goes, ',
    "",
)
_spared.lacks(
    "what the kernel has lost is put there again",
    "        if is_anew:  # the whole table, and its sets are empty\n            self._until = {}\n",
    "",
)
_hearing = Room("gateway/runtime/supervisor/hearing.py")
_hearing.lacks(
    "who may remember us does not rest in the kernel",
    "not self._memory.sources.may_have_upgraded(client) and ",
    "",
)
_hearing.lacks(
    "mail to a pinned peer does not pass as that of a client that rests",
    " and not self._memory.may_be_pinned(server)",
    "",
)
_hearing.lacks(
    "a first upgrade lets all clients go that rest",
    "            self._resting.are_none(limits.MET_SECONDS)",
    "            pass",
)
_hearing.lacks(
    "a client that upgrades, or breaks off, rests no more",
    "            self._resting.is_none_at(address)",
    "            pass",
)

_own_path = Room("gateway/policy/own_path.py")
_own_path.lacks(
    "our own path is missed in many networks",
    "networks >= limits.MANY_MISSING",
    "many >= limits.MANY_MISSING",
)
_own_path.lacks("our own path is missed by most sites", " and many > len(self._well)", "")
_own_path.lacks(
    "sites that were missed long ago do not count",
    "            _drop_old(self._missing, now, limits.MANY_MISSING_SECONDS)\n",
    "            pass\n",
)
_own_path.lacks(
    "sites that are heard of have a limit",
    "    while len(heard) > limits.ALARM_CAUSES:",
    "    while False:",
)

MEMORY: Final[tuple[Mutant, ...]] = mutants_of(
    *(_comparison, _pins, _store, _decision, _ignored, _memory, _learning, _workers, _peers),
    *(_history, _sources, _saying, _worker, _spared, _hearing, _own_path),
)
