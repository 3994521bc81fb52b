"""What bounds memory and time, whoever asks for more: peers, strangers, and whoever is on this machine.

Counterparts: gateway/policy/limits.py, docs/protocol.md "Limits".
"""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Room, mutants_of

# --- What is remembered ------------------------------------------------------------------------------

_history = Room("gateway/peers/history.py")
_history.lacks("the history of a peer has a limit", "if extra > 0 else history", "if False else history")

_looks = Room("gateway/peers/looks.py")
_looks.lacks("the faces of one address have a limit", "[: limits.LOOKS_PER_PIN]", "")
_looks.lacks("a server's own name is cut", "host[: limits.NAME_OCTETS]", "host")

_sources = Room("gateway/peers/sources.py")
_sources.lacks("a client's own name is cut", "words[1][: limits.NAME_OCTETS]", "words[1]")

_source_store = Room("gateway/peers/source_store.py")
for _what, _limit in (
    ("clients that have upgraded", "SOURCES_UPGRADED"),
    ("clients that drop offers", "SOURCES_HARMED"),
    ("identities of senders", "SENDERS"),
):
    _source_store.lacks(f"{_what} have a limit", f"        limits.{_limit},\n", "        1 << 40,\n")
_source_store.lacks("clients are forgotten", "limits.SOURCE_KEPT_DAYS", "1 << 20")
_source_store.lacks("clients that drop offers are forgotten", "limits.HARMED_KEPT_DAYS", "1 << 20")

_learnt = Room("gateway/runtime/supervisor/sources.py")
_learnt.lacks(
    "what is learnt of clients between two writes has a limit",
    " or len(self._sources) >= limits.SOURCES_PENDING:",
    ":",
)

_dead_end = Room("gateway/policy/dead_end.py")
_dead_end.lacks(
    "servers that are counted have a limit", "len(self._runs) > limits.DEAD_ENDS_COUNTED", "False"
)

_ignored = Room("gateway/policy/ignored_offers.py")
_ignored.lacks(
    "clients whose ignored offers are counted have a limit",
    "len(self._counts) > limits.SOURCES_IGNORING",
    "False",
)

_memory = Room("gateway/runtime/worker/memory.py")
_memory.lacks("what a worker keeps in mind has a limit", "len(self._known) > self._most", "False")
_memory.lacks("what a worker keeps in mind gets old", "now - known[0] < self._seconds", "True")

_keys = Room("gateway/crypto/keys.py")
_keys.lacks("endorsements that are remembered have a limit", "len(self._verified) > self._capacity", "False")

_pins = Room("gateway/peers/pins.py")
_pins.lacks(
    "a rest grows no longer than a day",
    "min(limits.FAILURE_REST_SECONDS << min(over, 16), limits.FAILURE_REST_MOST_SECONDS)",
    "limits.FAILURE_REST_SECONDS << min(over, 16)",
)
_pins.lacks(
    "an old identity is forgotten",
    "limits.OLD_IDENTITY_DAYS * limits.DAY_SECONDS",
    "1 << 40",
)

_store = Room("gateway/peers/store.py")
_store.lacks("failures are forgotten", "(now - limits.FAILURE_KEPT_SECONDS,)", "(0,)")

_bell = Room("gateway/observe/counters.py")
_bell.lacks("causes that are remembered have a limit", "len(self._causes) > limits.ALARM_CAUSES", "False")
_bell.lacks("counters that a worker tells have a limit", "len(told) > limits.COUNTER_NAMES or ", "")
_bell.lacks("counters that a worker tells have a depth", " or depth > _DEPTH", "")

# --- What is said ------------------------------------------------------------------------------------

_log = Room("gateway/observe/log.py")
_log.lacks("a log line has a length", "        if len(middle) + len(part) > room:", "        if False:")
_log.lacks("a value in a log line has a length", "        if len(piece) > room:", "        if False:")
_log.lacks(
    "lines that wait for the log have a limit",
    "        if len(self._entries) >= limits.LOG_BUFFER_LINES:",
    "        if False:",
)

_said = Room("gateway/runtime/said.py")
_said.lacks("a text that a worker tells has a length", " or len(told) > limits.SAID_TEXT_LETTERS:", ":")

_ping = Room("gateway/operator/ping_told.py")
_ping.lacks("what a server announces in a ping has a limit", "keywords[: limits.PING_KEYWORDS]", "keywords")

_alarms = Room("gateway/runtime/supervisor/alarms_out.py")
_alarms.lacks(
    "alarms that wait for their command have a limit",
    "self._waiting: deque[Alarm] = deque(maxlen=limits.ALARMS_WAITING)",
    "self._waiting: deque[Alarm] = deque()",
)
_alarms.lacks(
    "no more alarms go out than a person reads",
    "        return full and 0 <= now",
    "        return False and 0 <= now",
)
_alarms.lacks(
    "what a command says is kept up to a limit",
    "octets[: limits.ENV_TEXT_OCTETS - len(self._kept)]",
    "octets",
)

# --- Who asks on this machine, and files that are read ---------------------------------------------------

_metrics = Room("gateway/runtime/supervisor/metrics.py")
_metrics.lacks(
    "askers for metrics have a limit",
    "        if len(self._answering) >= limits.METRICS_CONNECTIONS:",
    "        if False:",
)
_metrics.lacks(
    "askers for metrics have so long", "asyncio.timeout(limits.METRICS_SECONDS)", "asyncio.timeout(3600)"
)
_metrics.lacks(
    "a request for metrics has a length",
    "max_incomplete_event_size=limits.METRICS_REQUEST_OCTETS",
    "max_incomplete_event_size=1 << 40",
)
_metrics.lacks(
    "metrics are made so often at most",
    "        if now - self._made_at >= limits.METRICS_EVERY_SECONDS:",
    "        if True:",
)

_control = Room("gateway/runtime/supervisor/control.py")
_control.lacks(
    "who asks the daemon has so long",
    "            async with asyncio.timeout(limits.CONTROL_SECONDS):\n",
    "            async with asyncio.timeout(3600):\n",
)

_causes = Room("gateway/runtime/supervisor/causes.py")
_causes.lacks("the kernel is asked about resets so often at most", " or not self._may_ask():", ":")

_config = Room("gateway/config.py")
_config.lacks(
    "a configuration has a length", "    if len(octets) > limits.CONFIG_FILE_OCTETS:", "    if False:"
)
_config.lacks(
    "a line of a configuration has so many dots",
    '        if row.count(b".") > limits.CONFIG_LINE_DOTS:',
    "        if False:",
)

_identity = Room("gateway/operator/identity.py")
_identity.lacks(
    "a file to import has a length", "    if len(octets) > limits.IDENTITY_FILE_OCTETS:", "    if False:"
)
_export = Room("gateway/crypto/export.py")
_export.lacks(
    "an export asks for no more memory than is sane",
    " and 1 << 13 <= octets <= limits.EXPORT_KDF_MOST_OCTETS",
    "",
)
_export.lacks(
    "an export asks for no more passes than is sane",
    "1 <= passes <= limits.EXPORT_KDF_MOST_PASSES",
    "1 <= passes",
)

# --- Time -------------------------------------------------------------------------------------------------

_gate = Room("gateway/intercept/gate.py")
_gate.lacks(
    "a taken SYN whose client never comes is forgotten",
    "_older_than(self._expected, now - limits.UNCLAIMED_SECONDS)",
    "_older_than(self._expected, 0.0)",
)
_gate.lacks(
    "a SYN that waits for an end of its flow is let go",
    "        bound = now - limits.UNCLAIMED_SECONDS\n",
    "        bound = -1e9\n",
)

_intake = Room("gateway/runtime/worker/intake.py")
_intake.lacks("a silent dial is given up", "call_later(limits.DIAL_SECONDS, ", "call_later(1e6, ")

_endpoint = Room("gateway/runtime/worker/endpoint.py")
_endpoint.lacks(
    "last octets for a slow socket have so long",
    "call_later(limits.LINGER_SECONDS, ",
    "call_later(1e6, ",
)
_endpoint.lacks(
    "a peer that is not done has so long",
    "call_later(limits.DRAIN_SECONDS, ",
    "call_later(1e6, ",
)

_sending = Room("gateway/session/sending.py")
_sending.lacks("a redial has so long", "now + limits.REDIAL_SECONDS", "now + 1e6")
_receiving = Room("gateway/session/receiving.py")
_receiving.lacks("a signature has so long", "now + limits.SIGN_SECONDS", "now + 1e6")
_signing = Room("gateway/runtime/worker/signing.py")
_signing.lacks(
    "a signer that does not answer is told",
    "                if now - asked_at < limits.SIGN_SECONDS:",
    "                if True:",
)
_signing.lacks(
    "questions that are lost are forgotten",
    "            if now - asked_at < limits.SIGNATURES_LOST_SECONDS:",
    "            if True:",
)

BOUNDS: Final[tuple[Mutant, ...]] = mutants_of(
    *(_history, _looks, _sources, _source_store, _learnt, _dead_end, _ignored, _memory, _keys, _pins, _store),
    *(_bell, _log, _said, _ping, _alarms, _metrics, _control, _causes, _config, _identity, _export),
    *(_gate, _intake, _endpoint, _sending, _receiving, _signing),
)
