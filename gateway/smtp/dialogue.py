"""The stages of a session up to the decision, and the table of what leads from one to the next.

Knows no octets. A pair that is not in the table is a bug of the observer's, never a default.
Counterpart: `observer`, whose parsers say what was `Seen`.

The receiver speaks first (RFC 5321 3.1), so GREETING -> EHLO -> REPLY -> DECIDED is the way of nearly all
sessions. EARLY_EHLO is for senders that do not wait for the greeting: their EHLO passes at once, so that the
receiver's tests for early talkers see what they would see without us.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.errors import IdentityHashed, LocalMisuseError
from gateway.smtp.events import Role


class Stage(IdentityHashed):
    """How far the dialogue is."""

    GREETING = "greeting"
    """Neither the receiver's greeting nor the sender's EHLO line is complete."""
    EARLY_EHLO = "early-ehlo"
    """The EHLO line is complete, the greeting is not."""
    EHLO = "ehlo"
    """The greeting is complete, the EHLO line is not."""
    REPLY = "reply"
    """Both are complete; the receiver's reply is collected and held."""
    DECIDED = "decided"
    """The reply was handed out whole: safe to switch here. The observer takes nothing more."""
    OPAQUE = "opaque"
    """Never upgraded; everything was released and passes as it comes."""


class Seen(IdentityHashed):
    """What moves the dialogue."""

    GREETING_COMPLETE = "greeting-complete"
    EHLO_COMPLETE = "ehlo-complete"
    BEHIND_EHLO = "behind-ehlo"
    """Octets of the sender behind its EHLO line, before the reply: pipelined, unasked."""
    REPLY_COMPLETE = "reply-complete"
    NOT_UNDERSTOOD = "not-understood"
    """Whatever a parser refused, and a receiver that speaks between its greeting and the EHLO."""
    GIVEN_UP = "given-up"
    """The caller wants everything back (an end or a reset came in)."""


Row = Mapping[Seen, Stage]

_GREETING: Final[Row] = {
    Seen.GREETING_COMPLETE: Stage.EHLO,
    Seen.EHLO_COMPLETE: Stage.EARLY_EHLO,
    Seen.NOT_UNDERSTOOD: Stage.OPAQUE,
    Seen.GIVEN_UP: Stage.OPAQUE,
}
_EARLY_EHLO: Final[Row] = {
    Seen.GREETING_COMPLETE: Stage.REPLY,
    Seen.NOT_UNDERSTOOD: Stage.OPAQUE,
    Seen.GIVEN_UP: Stage.OPAQUE,
}
_EHLO: Final[Row] = {
    Seen.EHLO_COMPLETE: Stage.REPLY,
    Seen.NOT_UNDERSTOOD: Stage.OPAQUE,
    Seen.GIVEN_UP: Stage.OPAQUE,
}
_REPLY: Final[Row] = {
    Seen.REPLY_COMPLETE: Stage.DECIDED,
    Seen.NOT_UNDERSTOOD: Stage.OPAQUE,
    Seen.GIVEN_UP: Stage.OPAQUE,
}
# Held sender octets can still be asked back after the decision; octets can no longer be fed.
_DECIDED: Final[Row] = {Seen.GIVEN_UP: Stage.OPAQUE}
_OPAQUE: Final[Row] = {Seen.GIVEN_UP: Stage.OPAQUE}

# The only difference between the roles. The sending gateway holds what comes behind the EHLO until it knows
# whether there is an offer: passed on in clear, it could not be taken back into the channel. The receiving
# gateway must pass it, as the receiver may wait for it, and then makes no offer: it could no longer tell
# commands to the receiver from an answer to itself.
_BEHIND_EHLO: Final[Mapping[Role, Mapping[Stage, Stage]]] = {
    Role.SENDING: {Stage.EARLY_EHLO: Stage.EARLY_EHLO, Stage.REPLY: Stage.REPLY},
    Role.RECEIVING: {Stage.EARLY_EHLO: Stage.OPAQUE, Stage.REPLY: Stage.OPAQUE},
}


def _table(role: Role) -> Mapping[Stage, Row]:
    behind = _BEHIND_EHLO[role]
    return {
        Stage.GREETING: _GREETING,
        Stage.EARLY_EHLO: {**_EARLY_EHLO, Seen.BEHIND_EHLO: behind[Stage.EARLY_EHLO]},
        Stage.EHLO: _EHLO,
        Stage.REPLY: {**_REPLY, Seen.BEHIND_EHLO: behind[Stage.REPLY]},
        Stage.DECIDED: _DECIDED,
        Stage.OPAQUE: _OPAQUE,
    }


TRANSITIONS: Final[Mapping[Role, Mapping[Stage, Row]]] = MappingProxyType(
    {role: _table(role) for role in Role}
)


def next_stage(role: Role, stage: Stage, seen: Seen) -> Stage:
    """The stage after `seen`. Raises `LocalMisuseError` where the table has no entry."""
    try:
        return TRANSITIONS[role][stage][seen]
    except KeyError:
        raise LocalMisuseError(f"{seen.value} at stage {stage.value}") from None
