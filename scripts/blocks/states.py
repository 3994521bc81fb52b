"""State tables, from the tables that the machines run on; only the sentences are written here.

A handler, a state or a stage without a sentence is an error, and so is a sentence that nothing needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.session import receiving, sending
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    OctetsReceived,
    OfferSigned,
    RedialFailed,
    Redialled,
    ResetReceived,
    Side,
)
from gateway.smtp.dialogue import TRANSITIONS, Seen, Stage
from gateway.smtp.events import Role
from scripts.blocks.tables import table

_WORDS = {OctetsReceived: "octets", EndReceived: "FIN", ResetReceived: "reset"}
_TIMELESS = {
    DeadlineReached: "deadline",
    Redialled: "a new connection stands",
    RedialFailed: "no new connection could be had",
    OfferSigned: "the signature is there",
}
_SILENT = "5 ms without further octets"
"""What a deadline means in a channel."""

SENDING_STATES = {
    "observing": "greeting, EHLO and reply are not complete ([14.1](#141-the-dialogue-before-the-decision))",
    "receiver-ended": "a receiver with a pin has ended before its reply; the sender may still speak",
    "ready": "the sender has the stripped reply; the verb waits for the sender's first octets",
    "confirming": "verb and answer are out; R has not proven itself",
    "awaiting-statement": "the same, and nothing of the sender's is out ([10.3](#103-rollover))",
    "redialling": "a handshake has failed; a new connection is being made ([7](#7-failed-handshakes))",
    "reobserving": "greeting and reply of the new connection are compared",
    "channel": "records both ways",
    "relayed": "in clear; everything passes",
    "over": "both connections are closed or being closed",
}
SENDING = {
    "_observe_sender": "pass, or hold what stands behind the EHLO; give up on an odd dialogue",
    "_observe_receiver": "pass the greeting; hold the reply; judge it when it is complete, pass it stripped",
    "_first_command": "send verb, answer and first flight",
    "_receiver_spoke_unasked": "pass; where a pin exists: a 421 ends the session, all else rings",
    "_receiver_ended": "pass the end; alarm where a pin exists",
    "_receiver_ended_early": "release what is held, pass the end; where a pin exists: alarm if anything of"
    " the sender's was held; close within a `421`",
    "_spoke_behind_end": "pass; alarm",
    "_more_first_flight": "keep; send what is no content",
    "_confirm": "open the first record: it confirms R; an error fails the handshake",
    "_await_statement": "open records up to the one that ends the wait; decide; an error fails the handshake",
    "_near_ends": "keep the end for later",
    "_far_gone": "the handshake has failed: dial again",
    "_confirm_late": "the handshake has failed: dial again",
    "_hold_back": "keep",
    "_redialled": "wait for the greeting, then repeat the EHLO",
    "_redial_failed": "`421` to the sender, close",
    "_look_again": "compare; differs: `421`; equal: upgrade again, or go on in clear",
    "_channel_near_octets": "seal",
    "_channel_silent": "seal what a large flight held back, with its padding",
    "_channel_far_octets": "open and pass; CLOSE, RESET, errors: [9](#9-closing), [8.5](#85-failure)",
    "_channel_ended": "sender: send CLOSE, FIN; R: an end without CLOSE resets the sender",
    "_channel_reset": "sender: send RESET; R: reset the sender",
    "_sender_ended_early": "keep the end for later if anything of the sender's is held; else pass it",
    "_ended_early": "pass the end",
    "_reset_early": "reset the other side",
}
RECEIVING_STATES = {
    "observing": "greeting, EHLO and reply are not complete ([14.1](#141-the-dialogue-before-the-decision))",
    "signing": "the reply is complete and held; its offer is being signed",
    "offered": "the reply has gone out with an offer; is what comes the verb?",
    "offer-void": "the receiver has spoken unasked behind that reply, or has ended there",
    "answering": "the verb has come; the receiver is not read",
    "channel": "records both ways",
    "relayed": "in clear; everything passes",
    "over": "both connections are closed or being closed",
}
RECEIVING = {
    "_observe_client": "pass; give up on an odd dialogue, or where something stands behind the EHLO",
    "_observe_receiver": "pass the greeting; hold the reply; have an offer signed when it is complete",
    "_signed": "pass the reply with the offer; as it came where nobody can sign",
    "_not_signed": "pass the reply as it came",
    "_client_did_not_wait": "pass the reply as it came, and what came",
    "_receiver_said_more": "pass the reply as it came, and what came",
    "_first_command": "hold what may become the verb; pass what cannot; the verb: read frames",
    "_receiver_spoke_unasked": "pass",
    "_receiver_ended": "pass the end",
    "_pass_to_far": "pass",
    "_first_command_in_void": "hold what may become the verb; pass what cannot; the verb: `454`, close",
    "_more_answer": "read the answer; accepted: send PARAMS, open what follows; refused: `454`, close",
    "_answer_late": "`454`, close",
    "_answer_ended": "`454`, close",
    "_channel_near_octets": SENDING["_channel_near_octets"],
    "_channel_silent": SENDING["_channel_silent"],
    "_channel_far_octets": SENDING["_channel_far_octets"],
    "_channel_ended": "receiver: send CLOSE, FIN; S: an end without CLOSE resets the receiver",
    "_channel_reset": "receiver: send RESET; S: reset the receiver",
    "_ended_early": "release what is held, pass the end",
    "_reset_early": SENDING["_reset_early"],
}
STAGES = {
    Stage.GREETING: "neither greeting nor EHLO line is complete",
    Stage.EARLY_EHLO: "the EHLO line is complete, the greeting is not",
    Stage.EHLO: "the greeting is complete, the EHLO line is not",
    Stage.REPLY: "both are complete; the reply is held until it is",
    Stage.DECIDED: "the reply is complete: an offer is made, or taken, or neither",
    Stage.OPAQUE: "never upgraded: what is held passes, and everything behind it",
}
SEEN = {
    Seen.GREETING_COMPLETE: "the greeting is complete",
    Seen.EHLO_COMPLETE: "the EHLO line is complete",
    Seen.BEHIND_EHLO: "octets behind the EHLO line",
    Seen.REPLY_COMPLETE: "the reply is complete",
    Seen.NOT_UNDERSTOOD: "anything that the grammar does not have",
    Seen.GIVEN_UP: "an end or a reset of either side",
}


def sending_states() -> str:
    return _states(sending.State, SENDING_STATES)


def sending_transitions() -> str:
    return _transitions(sending.SendingSession, SENDING, {Side.NEAR: "sender", Side.FAR: "R"})


def receiving_states() -> str:
    return _states(receiving.State, RECEIVING_STATES)


def receiving_transitions() -> str:
    return _transitions(receiving.ReceivingSession, RECEIVING, {Side.NEAR: "receiver", Side.FAR: "S"})


def _states(states: Any, words: Mapping[str, str]) -> str:
    _must_be_the_same({state.value for state in states}, set(words))
    return table(["state", "meaning"], [[f"`{state.value}`", words[state.value]] for state in states])


def _transitions(machine: Any, words: Mapping[str, str], sides: Mapping[Side, str]) -> str:
    _must_be_the_same({handler.__name__ for handler in machine._TABLE.values()}, set(words))
    rows = []
    last = None
    for (state, kind, side), handler in machine._TABLE.items():
        after = machine._NEXT.get(handler, {state})
        ordered = [f"`{one.value}`" for one in type(state) if one in after]
        shown = f"`{state.value}`" if state is not last else ""
        rows.append(
            [shown, _event(state.value, kind, side, sides), words[handler.__name__], ", ".join(ordered)]
        )
        last = state
    return table(["state", "event", "what", "next"], rows)


def _event(state: str, kind: type[Any], side: Side | None, sides: Mapping[Side, str]) -> str:
    if side is None:
        return _SILENT if state == "channel" and kind is DeadlineReached else _TIMELESS[kind]
    return f"{sides[side]}: {_WORDS[kind]}"


def stages() -> str:
    _must_be_the_same(set(Stage), set(STAGES))
    return table(["stage", "meaning"], [[f"`{stage.value}`", STAGES[stage]] for stage in Stage])


def stage_transitions() -> str:
    """One table for both roles: they differ in one event only."""
    _must_be_the_same(set(Seen), set(SEEN))
    rows = []
    for stage in Stage:
        shown = f"`{stage.value}`"
        for seen in Seen:
            after = {role: TRANSITIONS[role][stage].get(seen) for role in Role}
            if any(after.values()):
                rows.append(
                    [shown, SEEN[seen], *(_stage(after[role]) for role in (Role.SENDING, Role.RECEIVING))]
                )
                shown = ""
    return table(["stage", "event", "next at S", "next at R"], rows)


def _stage(stage: Stage | None) -> str:
    return f"`{stage.value}`" if stage else "cannot be"


def _must_be_the_same(code: set[Any], words: set[Any]) -> None:
    if code != words:
        raise ValueError(f"without a sentence: {code - words}; sentences for nothing: {words - code}")
