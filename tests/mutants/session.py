"""Checks of the two session machines. Counterparts: docs/protocol.md sections 3 to 7, gateway/session/."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Room, mutants_of

_sending = Room("gateway/session/sending.py")
_sending.lacks(
    "S waits for R's first record so long and no longer",
    "        self.deadline = now + limits.HANDSHAKE_SECONDS",
    "        self.deadline = None",
)
_sending.lacks(
    "giving up rings",
    "        decision = Decision.in_clear(reason, alarm=True)",
    "        decision = Decision.in_clear(reason, alarm=False)",
)
_sending.lacks(
    "a redial that differs defers",
    "            return self._defer(Reason.REDIAL_DIFFERS)",
    "            return self._give_up(Reason.REDIAL_DIFFERS)",
)
_sending.lacks(
    "an octet of the receiver before the verb rings where a peer is pinned",
    "        return [told, *self._relay(Decision.in_clear(Reason.NO_VERB, alarm=pinned))]",
    "        return [told, *self._relay(Decision.in_clear(Reason.NO_VERB))]",
)
_sending.lacks(
    "a pinned peer's 421 before the verb ends the session",
    "        if pinned and unoffered.closes_unasked(event.octets):",
    "        if False:",
)
_sending.lacks(
    "what a sender says into a pinned peer's 421 stays here",
    "        if self._observer.greets_with_421 and self._context.pin is not None:",
    "        if False:",
)
_sending.lacks(
    "a pinned peer's 421 for a greeting or a reply ends the session",
    "        if unoffered.closes(unparsed) and pin is not None:",
    "        if False:",
)
_sending.lacks(
    "a pinned peer that ends within its 421 gets nothing more",
    "        if pinned and self._observer.is_within_421:",
    "        if False:",
)
_sending.lacks(
    "behind a pinned peer's 421 nothing that was held goes out",
    "            return [*_told_near(passed), *self._end_as_told(unparsed.reason)]",
    "            return [*passed, *self._end_as_told(unparsed.reason)]",
)
_sending.lacks(
    "a pinned peer's end that brings out what was held rings",
    "_relay(Decision.in_clear(Reason.ENDED_BEFORE_DECISION, alarm=pinned))]",
    "_relay(Decision.in_clear(Reason.ENDED_BEFORE_DECISION))]",
)
_sending.lacks(
    "a sender's end behind what is held before the reply waits with it",
    "        if self._observer.held_from_sender:\n            return self._near_ends(event, now)",
    "        if False:\n            return []",
)
_sending.lacks(
    "a sender's end that was held goes out behind what was",
    "        return [SendEnd(Side.FAR)] if self._near_ended else []",
    "        return []",
)
_sending.lacks(
    "what a sender says behind a pinned peer's end rings",
    "        clear = Decision.in_clear(Reason.ENDED_BEFORE_DECISION, alarm=True)\n        return [SendOctets",
    "        clear = Decision.in_clear(Reason.ENDED_BEFORE_DECISION)\n        return [SendOctets",
)
_sending.lacks(
    "what has rung is told along with the peer",
    "RememberPeer(peer, proven.statement, look, decision.alarm)",
    "RememberPeer(peer, proven.statement, look, True)",
)
_sending.lacks(
    "a pinned peer's end before the verb rings",
    "        alarm = self._context.pin is not None\n        clear = Decision",
    "        alarm = False\n        clear = Decision",
)
_sending.lacks(
    "our own identity at a pinned address rings",
    "            alarm = self._context.pin is not None\n            return",
    "            alarm = False\n            return",
)
_sending.lacks(
    "our own identity is no failed handshake",
    "        if error.reason is Reason.OWN_IDENTITY:",
    "        if False:",
)
_sending.lacks(
    "a failed handshake never goes on over the same connection",
    '        return [NoteFact("handshake-failed", reason, told, seen), Redial()]',
    "        return self._relay(Decision.in_clear(reason))",
)
_sending.lacks(
    "the far end behind the verb is a failed handshake",
    "    (State.CONFIRMING, EndReceived, Side.FAR): SendingSession._far_gone,",
    "    (State.CONFIRMING, EndReceived, Side.FAR): SendingSession._redialled,",
)
_sending.lacks(
    "a stranger that promises a statement gets nothing before it",
    "        if self._attempt.waits_for_statement:",
    "        if False:",
)
_sending.lacks(
    "a redial's handshake binds that dial's greeting",
    "            attempt = Attempt(self._context, self._seen, greeting, offer, now)",
    "            attempt = Attempt(self._context, self._seen, self._observer.greeting, offer, now)",
)

_redials = Room("gateway/session/redials.py")
_redials.lacks(
    "the third dial goes on in clear",
    "        return self.dials - self._forgiven >= limits.DIALS_PER_SESSION",
    "        return self.dials - self._forgiven > limits.DIALS_PER_SESSION",
)

_attempt = Room("gateway/session/attempt.py")
_attempt.lacks(
    "nothing but a record proves R",
    "        if frames[0].kind is not FrameKind.RECORD:",
    "        if False:",
)
_attempt.lacks(
    "the size rule tells WEAKER from rightly short",
    "        full_fits = offer_fits(seen.reply) is OfferSize.FULL",
    "        full_fits = False",
)

_unoffered = Room("gateway/session/unoffered.py")
_unoffered.lacks(
    "a pinned peer that has lost its offer in an odd reply rings",
    "    lost = (unparsed.reason in _LOST_OFFER or unparsed.led) and",
    "    lost = unparsed.led and",
)
_unoffered.lacks(
    "a greeting that leads the sender to HELO rings where it is pinned",
    "    lost = (unparsed.reason in _LOST_OFFER or unparsed.led) and",
    "    lost = unparsed.reason in _LOST_OFFER and",
)

_receiving = Room("gateway/session/receiving.py")
_receiving.lacks(
    "the dialled address is compared",
    "        confirmed = result.dialled == self._context.dialled or ",
    "        confirmed = True or ",
)
_receiving.lacks(
    "a gateway further in wins",
    "        if carries_keyword(reply):",
    '        if carries_keyword(b""):',
)
_receiving.lacks(
    "no offer to those on the operator's list",
    "        if not context.may_offer:",
    "        if context.may_offer is None:",
)
_receiving.lacks(
    "a source that rests gets no offer",
    "        if context.source_rests:",
    "        if context.source_rests is None:",
)
_receiving.lacks(
    "no answer where the receiver has spoken behind the reply",
    """        if verb:
            return self._cannot_go_on(Reason.NO_VERB, now, "receiver spoke or ended unasked")
""",
    "",
)
_receiving.lacks(
    "the verb does not reach a receiver that has ended",
    "    (State.OFFERED, EndReceived, Side.NEAR): ReceivingSession._receiver_ended,",
    "    (State.OFFERED, EndReceived, Side.NEAR): ReceivingSession._ended_early,",
)
_receiving.lacks(
    "R waits for the answer so long and no longer",
    "        self.deadline = now + limits.VERB_HANDSHAKE_SECONDS",
    "        self.deadline = None",
)
_receiving.lacks(
    "the first frame is the answer",
    "            if frames[0].kind is not FrameKind.ANSWER:",
    "            if False:",
)
_receiving.lacks(
    "the receiver is not read before its words can be sealed",
    "            commands += self._pause_near()\n",
    "            pass\n",
)

_flight = Room("gateway/session/first_flight.py")
_flight.lacks(
    "no content leaves in the first flight",
    "        may_send, self.held = self._scan.feed(bytes(self._octets))",
    '        may_send, self.held = bytes(self._octets), b""',
    "        may_send, self.held = self._scan.feed(octets)",
    '        may_send, self.held = octets, b""',
)
_flight.lacks(
    "64 KiB of the sender are kept at most",
    "        return len(self._octets) >= limits.FIRST_FLIGHT_OCTETS",
    "        return False",
)
_flight.lacks(
    "a redial sends again what had been sent",
    "        may_send, self.held = self._scan.feed(bytes(self._octets))",
    "        may_send, self.held = self._scan.feed(bytes(self._octets))\n        self._octets.clear()",
)

_look = Room("gateway/session/second_look.py")
_look.lacks(
    "a redial's host name is compared",
    "self._unshown or look == self._seen else",
    "self._unshown or look.reply == self._seen.reply else",
)
_look.lacks(
    "a redial's reply is compared",
    "self._unshown or look == self._seen else",
    "self._unshown or look.host == self._seen.host else",
)
_look.lacks(
    "a redial's greeting must be one",
    """            if isinstance(observation, Unparsed):
                return Differs()
            if isinstance(observation, EhloReply):""",
    "            if isinstance(observation, EhloReply):",
)

SESSION: Final[tuple[Mutant, ...]] = mutants_of(
    _sending, _redials, _attempt, _unoffered, _receiving, _flight, _look
)
