"""Who is to blame, and why a session went the way it went.

Four classes of error, cut by blame. Outcomes that are expected (no gateway over there, a pin that
changed) are no errors: they are `Decision` values that carry a `Reason`.
"""

from __future__ import annotations

import enum


class IdentityHashed(enum.Enum):
    """An enum whose members hash by identity, as they compare; Enum's own `__hash__` is Python code, and
    states and reasons are dictionary keys some fifty times in a session."""

    __hash__ = object.__hash__


class Reason(IdentityHashed):
    """Why something was decided or ended. A closed set: log, counters and status know no other words."""

    # The session was upgraded.
    UPGRADED = "upgraded"
    UPGRADED_NEW_PEER = "upgraded-new-peer"
    UPGRADED_CHANGED_PEER = "upgraded-changed-peer"
    UPGRADED_BY_STATEMENT = "upgraded-by-statement"
    UPGRADED_WEAKER_OFFER = "upgraded-weaker-offer"
    UPGRADED_OLD_EPOCH = "upgraded-old-epoch"

    # The session stays in clear, and nothing is wrong.
    NO_OFFER = "no-offer"
    NO_VERB = "no-verb"
    HELO = "helo"
    EHLO_REFUSED = "ehlo-refused"
    GREETING_REFUSED = "greeting-refused"
    EARLY_TALKER = "early-talker"
    PIPELINED_BEHIND_EHLO = "pipelined-behind-ehlo"
    NOT_EHLO = "not-ehlo"
    ODD_GREETING = "odd-greeting"
    ODD_REPLY = "odd-reply"
    ODD_COMMAND = "odd-command"
    NO_ROOM_FOR_OFFER = "no-room-for-offer"
    OFFER_BY_INNER_GATEWAY = "offer-by-inner-gateway"
    NEVER = "never"
    NEVER_OFFER = "never-offer"
    SOURCE_RESTS = "source-rests"
    OFFERS_IGNORED = "offers-ignored"
    SIGNER_SILENT = "signer-silent"
    OWN_IDENTITY = "own-identity"
    RECENTLY_FAILED = "recently-failed"
    ENDED_BEFORE_DECISION = "ended-before-decision"
    OVERLOADED = "overloaded"

    # The session stays in clear (or waits), and the alarm rings.
    OFFER_MISSING = "offer-missing"
    HANDSHAKE_FAILED = "handshake-failed"
    CHANNELS_BREAK = "channels-break"
    SOURCE_IN_CLEAR = "source-in-clear"

    # A handshake or a channel failed: what exactly.
    BAD_OFFER = "bad-offer"
    TICKET_UNKNOWN = "ticket-unknown"
    BAD_SIGNATURE = "bad-signature"
    BAD_KEY = "bad-key"
    BAD_TAG = "bad-tag"
    BAD_FRAME = "bad-frame"
    BAD_RECORD = "bad-record"
    BAD_PARAMS = "bad-params"
    ENDORSEMENT_EXPIRED = "endorsement-expired"
    WRONG_DIALLED_ADDRESS = "wrong-dialled-address"
    CLEAR_OCTETS_IN_CHANNEL = "clear-octets-in-channel"
    OCTETS_AFTER_CLOSE = "octets-after-close"
    END_WITHOUT_CLOSE = "end-without-close"
    FAR_CLOSED_DURING_HANDSHAKE = "far-closed-during-handshake"
    HANDSHAKE_TIMEOUT = "handshake-timeout"
    REDIAL_FAILED = "redial-failed"
    REDIAL_DIFFERS = "redial-differs"

    # What it likely was, beside the reason of a lost offer or a failed handshake (`policy.cause`).
    PEER_SWITCHED_OFF = "peer-switched-off"
    KEYWORD_MASKED = "keyword-masked"
    REPLY_CHANGED = "reply-changed"
    EHLO_TURNED_INTO_HELO = "ehlo-turned-into-helo"
    EHLO_BLOCKED = "ehlo-blocked"
    OFFER_DAMAGED = "offer-damaged"
    VERB_REFUSED = "verb-refused"
    VERB_UNANSWERED = "verb-unanswered"
    FRAMES_DAMAGED = "frames-damaged"
    RESET_IN_BETWEEN = "reset-in-between"
    RESET_BY_FAR_END = "reset-by-far-end"
    RESET_UNCLEAR = "reset-unclear"
    OTHER_MACHINE = "other-machine"
    OTHER_KEY = "other-key"
    OFFER_UNANSWERED = "offer-unanswered"
    CAUSE_UNKNOWN = "cause-unknown"

    # How a session ended.
    CLOSED = "closed"
    RESET_BY_SENDER = "reset-by-sender"
    RESET_BY_RECEIVER = "reset-by-receiver"
    DIAL_REFUSED = "dial-refused"
    DIAL_UNREACHABLE = "dial-unreachable"
    DIAL_SILENT = "dial-silent"
    STOPPED = "stopped"

    # The gate passed a connection by, or the gateway itself was in trouble.
    NOT_OURS = "not-ours"
    DIAL_IMPOSSIBLE = "dial-impossible"
    DEAD_END = "dead-end"
    CLIENT_RESTS = "client-rests"
    BYPASSED = "bypassed"
    WORKER_DIED = "worker-died"
    WORKER_HUNG = "worker-hung"
    WORKER_UNCONFINED = "worker-unconfined"
    RULES_MISSING = "rules-missing"
    RELOAD_REFUSED = "reload-refused"
    LIBRARY_UNUSABLE = "library-unusable"
    OWN_PATH = "own-path"
    IDENTITY_OF_ANOTHER_MACHINE = "identity-of-another-machine"
    IDENTITY_UNUSABLE = "identity-unusable"
    PINS_UNREADABLE = "pins-unreadable"
    PINS_UNWRITABLE = "pins-unwritable"
    SPOOFED_INSIDE_SOURCE = "spoofed-inside-source"
    INTERNAL = "internal"
    TRIAL = "trial"


class PeerProtocolError(Exception):
    """The other gateway (or somebody in between) sent what the protocol does not allow."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class CryptoRefusedError(PeerProtocolError):
    """A primitive refused what the peer sent: bad tag, bad signature, all-zero secret, bad key."""


class LocalMisuseError(Exception):
    """Our own code called something in a state where it may not. A bug: please report it."""


class EnvironmentFailureError(Exception):
    """Kernel, disk or configuration does not do what is needed. The message is one line for the operator."""
