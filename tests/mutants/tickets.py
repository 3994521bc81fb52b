"""Checks of tickets: what is kept of them, the handshake with one, and the sessions that use them.

Counterparts: docs/protocol.md section 4.6, gateway/crypto/tickets.py, gateway/crypto/resumption.py.
"""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Edit, Mutant, Room, mutants_of

_tickets = Room("gateway/crypto/tickets.py")
_tickets.lacks(
    "S's ticket serves once",
    "        kept = self._of.pop(name, None)\n",
    "        kept = self._of.get(name)\n",
)
_tickets.lacks(
    "R's ticket serves once",
    "            kept = stack.pop()\n            self._count -= 1\n",
    "            kept = stack[-1]\n",
)
_tickets.lacks(
    "S's ticket gets too old",
    "        return kept.ticket if kept is not None and now < kept.until else None",
    "        return kept.ticket if kept is not None else None",
)
_tickets.lacks("R's ticket gets too old", "            if now < kept.until:", "            if True:")
_tickets.lacks(
    "a ticket ends with the hour of its full handshake",
    "    until = min(now + limits.TICKET_SECONDS, root + limits.TICKET_ROOT_SECONDS) + grace",
    "    until = now + limits.TICKET_SECONDS + grace",
)
_tickets.lacks(
    "a ticket that is kept becomes no younger",
    "    if root is None:",
    "    if True:",
)
_tickets.lacks(
    "S keeps a ticket longer than R",
    "_kept(ticket, now, limits.TICKET_GRACE_SECONDS)",
    "_kept(ticket, now)",
)
_tickets.lacks(
    "the tickets of S are bounded",
    "        if len(self._of) > self._capacity:\n",
    "        if False:\n",
)
_tickets.lacks(
    "the tickets of R are bounded", "        while self._count > self._capacity:", "        while False:"
)
_tickets.lacks(
    "the tickets of a pair are bounded",
    "        if len(stack) == limits.TICKETS_OF_A_PAIR:",
    "        if False:",
)
_tickets.lacks(
    "a source that took none rests",
    "        if not stack or self._rests(source, now):",
    "        if not stack:",
)
_tickets.lacks(
    "a source that took none loses its other tickets",
    "        self._drop(source)\n        self._resting[source]",
    "        self._resting[source]",
)
_tickets.lacks(
    "resting sources are bounded",
    "        if len(self._resting) > self._capacity:",
    "        if False:",
)
_tickets.lacks(
    "old tickets do not stay in S's memory",
    "        for name in [name for name, kept in self._of.items() if kept.until <= now]:",
    "        for name in []:",
)
_tickets.lacks(
    "old tickets do not stay in R's memory",
    "                while stack and stack[0].until <= now:",
    "                while False:",
)

_resumption = Room("gateway/crypto/resumption.py")
_resumption.lacks(
    "an answer to a resumed offer has one length",
    "        if len(message) != RESUMED_ANSWER_OCTETS:",
    "        if False:",
)
_resumption.lacks(
    "a resumed offer is for the ticket that it names",
    "        if len(offer) != RESUMED_OFFER_OCTETS or offer[:TICKET_NAME_OCTETS] != self._ticket.name:",
    "        if len(offer) != RESUMED_OFFER_OCTETS:",
)
_resumption.lacks(
    "R keeps a ticket only where S does",
    "            keeps_ticket=self._keeps_ticket and bool(flags & AnswerFlags.KEEPS_TICKET),",
    "            keeps_ticket=self._keeps_ticket,",
)
_resumption.lacks(
    "a ticket of a resumed handshake remembers the full one at R",
    "            used=self._ticket,\n        )\n\n\nclass",
    "            used=None,\n        )\n\n\nclass",
)

_attempt = Room("gateway/session/attempt.py")
_attempt.lacks(
    "a ticket says nothing against the memory of peers",
    "        if isinstance(self._handshake, SendingResumption) and not self._is_plain:",
    "        if False:",
)
_attempt.lacks(
    "S keeps no ticket of a peer that rings",
    "        if tickets is not None and tickets.has_room and self._is_plain:",
    "        if tickets is not None and tickets.has_room:",
)

_attempt.lacks(
    "S says that it keeps no ticket where it has no room",
    "        if tickets is not None and tickets.has_room and self._is_plain:",
    "        if tickets is not None and self._is_plain:",
)

_attempt.lacks(
    "a ticket's epoch is not judged again at S",
    "        epoch = _NEVER_OLD if isinstance(self._handshake, SendingResumption) else offered.epoch",
    "        epoch = offered.epoch",
)

_sending = Room("gateway/session/sending.py")
_sending.lacks(
    "a ticket that is not known rings for nobody",
    "        seen = None if reason is Reason.TICKET_UNKNOWN else failure\n",
    "        seen = failure\n",
)
_redials = Room("gateway/session/redials.py")
_redials.lacks(
    "a ticket that is not known is forgiven",
    "            self._forgiven = min(self._forgiven + 1, limits.TICKETS_FORGIVEN)\n",
    "            pass\n",
)
_redials.lacks(
    "tickets that are not known are not forgiven for ever",
    "            self._forgiven = min(self._forgiven + 1, limits.TICKETS_FORGIVEN)\n",
    "            self._forgiven += 1\n",
)
_redials.lacks(
    "tickets that are not known are forgiven no longer than the sender waits",
    "        in_time = now < self.ehlo_sent_at + limits.TICKETS_FORGIVEN_SECONDS",
    "        in_time = True",
)
_sending.lacks(
    "what the sender says behind its EHLO buys no more time for tickets that are not known",
    "        if self._observer.stage in _BEFORE_EHLO:",
    "        if True:",
)
_redials.lacks(
    "a reply whose ticket is not known is kept from the sender",
    "        self.reply_is_kept_back = dials_again and unknown",
    "        self.reply_is_kept_back = False",
)
_sending.lacks(
    "what the sender has seen is what the next dial must show",
    "        self._look = SecondLook(self._seen, unshown=self._redials.reply_is_kept_back)",
    "        self._look = SecondLook(self._seen, unshown=True)",
)

_receiving = Room("gateway/session/receiving.py")
_receiving.lacks(
    "a ticket that was not taken, by a client that goes on, is the last one for a while",
    "            self._ticket_not_taken(now)\n            return [*self._release_pending()",
    "            return [*self._release_pending()",
)
_receiving.lacks(
    "a ticket that was not taken, by a client that goes away, is the last one for a while",
    "        if side is Side.FAR:\n            self._ticket_not_taken(now)\n",
    "",
)
_receiving.lacks(
    "a ticket whose answer is refused is the last one for a while",
    "        self._ticket_not_taken(now)\n        self._end()\n",
    "        self._end()\n",
)
_receiving.lacks(
    "a ticket's epoch is not judged again at R",
    "        is_old = result.epoch < sender.epoch and not result.resumed",
    "        is_old = result.epoch < sender.epoch",
)
_receiving.lacks(
    "only a ticket that was offered counts as not taken",
    "        with_ticket = out and isinstance(self._handshake, ReceivingResumption)",
    "        with_ticket = out",
)
_receiving.lacks(
    "a short offer leaves no ticket, and none is used for it",
    "        if context.tickets is not None and size is OfferSize.FULL:",
    "        if context.tickets is not None:",
)

_surroundings = Room("gateway/runtime/worker/surroundings.py")
_surroundings.lacks(
    "the tickets of S end with its identity",
    "            self._held = HeldTickets()\n        if is_another or",
    "            pass\n        if is_another or",
)
_surroundings.lacks(
    "the tickets of R end with its identity",
    "        if is_another or presented.statements != self._statements:",
    "        if presented.statements != self._statements:",
)
_surroundings.lacks(
    "the tickets of R end with what it shows of statements",
    "        if is_another or presented.statements != self._statements:",
    "        if is_another:",
)

_UNCONFIRMED: Final = Mutant(
    "R offers with no ticket before S has confirmed it",
    (
        Edit(
            "gateway/session/receiving.py",
            "        if channel.far_closed and self._ticket is not None",
            "        if self._ticket is not None",
        ),
        Edit(
            "gateway/session/machine.py",
            "        if channel.far_closed or channel.statements:",
            "        if True:",
        ),
    ),
)
"""The second one asks only whether there is anything to be heard."""

TICKETS: Final[tuple[Mutant, ...]] = (
    *mutants_of(_tickets, _resumption, _attempt, _sending, _redials, _receiving, _surroundings),
    _UNCONFIRMED,
)
