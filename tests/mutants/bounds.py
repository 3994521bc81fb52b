"""What bounds memory and time, whoever asks for more: peers, strangers, and whoever is on this machine.

Counterparts: gateway/policy/limits.py, docs/protocol.md "Limits".
"""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, mutants_in

BOUNDS: Final[tuple[Mutant, ...]] = mutants_in(
    {
        # --- What is remembered ---
        "gateway/peers/history.py": [
            ("the history of a peer has a limit", "if extra > 0 else history", "if False else history"),
        ],
        "gateway/peers/looks.py": [
            ("the faces of one address have a limit", "[: limits.LOOKS_PER_PIN]", ""),
            ("a reply that is remembered is cut", "[: limits.LOOK_OCTETS]", ""),
            ("a server's own name is cut", "host[: limits.NAME_OCTETS]", "host"),
        ],
        "gateway/peers/sources.py": [
            ("a client's own name is cut", "words[1][: limits.NAME_OCTETS]", "words[1]"),
            (
                "IPv4 behind a translator is many networks",
                "    if is_translated(address):\n",
                "    if False:\n",
            ),
        ],
        "gateway/peers/source_store.py": [
            (
                "clients that have upgraded have a limit",
                "        limits.SOURCES_UPGRADED,\n",
                "        1 << 40,\n",
            ),
            (
                "clients that drop offers have a limit",
                "        limits.SOURCES_HARMED,\n",
                "        1 << 40,\n",
            ),
            ("identities of senders have a limit", "        limits.SENDERS,\n", "        1 << 40,\n"),
            ("clients are forgotten", "limits.SOURCE_KEPT_DAYS", "1 << 20"),
            ("clients that drop offers are forgotten", "limits.HARMED_KEPT_DAYS", "1 << 20"),
        ],
        "gateway/runtime/supervisor/sources.py": [
            (
                "what is learnt of clients between two writes has a limit",
                " or max(len(self._sources), len(self._senders)) >= limits.SOURCES_PENDING:",
                ":",
            ),
            (
                "a network that has had enough new clients today teaches no more",
                "        if is_new and not newcomers.has_room(beginnings(address), today):",
                "        if False:",
            ),
            (
                "clients that drop offers have places that no identity takes",
                "self._upgrading if seen is SourceSeen.UPGRADED else self._dropping",
                "self._upgrading",
            ),
            (
                "an identity that is new counts for its network",
                "is_new = is_new or not sender.seen_day",
                "pass",
            ),
            (
                "what is learnt of identities between two writes has a limit",
                "max(len(self._sources), len(self._senders))",
                "len(self._sources)",
            ),
        ],
        "gateway/runtime/supervisor/peer_memory.py": [
            (
                "peers are not all counted for each one that comes",
                "        if time.monotonic() >= self._count_again_at:",
                "        if True:",
            ),
        ],
        "gateway/policy/newcomers.py": [
            (
                "clients of one network that are learnt of in a day have a limit",
                "        if count >= self._most:\n            return False\n",
                "",
            ),
            (
                "networks whose new clients are counted have a limit",
                "len(self._of) > limits.NEWCOMER_NETWORKS",
                "False",
            ),
        ],
        "gateway/policy/dead_end.py": [
            ("servers that are counted have a limit", "len(self._runs) > limits.DEAD_ENDS_COUNTED", "False"),
        ],
        "gateway/policy/ignored_offers.py": [
            (
                "clients whose ignored offers are counted have a limit",
                "len(self._counts) > limits.SOURCES_IGNORING",
                "False",
            ),
        ],
        "gateway/runtime/worker/memory.py": [
            ("what a worker keeps in mind has a limit", "len(self._known) > self._most", "False"),
            ("what a worker keeps in mind gets old", "now - known[0] < self._seconds", "True"),
        ],
        "gateway/crypto/keys.py": [
            (
                "endorsements that are remembered have a limit",
                "len(self._verified) > self._capacity",
                "False",
            ),
        ],
        "gateway/peers/pins.py": [
            (
                "a rest grows no longer than a day",
                "min(limits.FAILURE_REST_SECONDS << min(over, 16), limits.FAILURE_REST_MOST_SECONDS)",
                "limits.FAILURE_REST_SECONDS << min(over, 16)",
            ),
            ("an old identity is forgotten", "limits.OLD_IDENTITY_DAYS * limits.DAY_SECONDS", "1 << 40"),
        ],
        "gateway/peers/store.py": [
            ("failures are forgotten", "(now - limits.FAILURE_KEPT_SECONDS,)", "(0,)"),
        ],
        "gateway/observe/counters.py": [
            (
                "causes that are remembered have a limit",
                "len(self._causes) + len(self._of_clients) > limits.ALARM_CAUSES",
                "False",
            ),
            (
                "causes that clients can make leave room for others",
                "return self._of_clients if reason in OF_CLIENTS else self._causes",
                "return self._causes",
            ),
            (
                "counters that a worker tells have a limit",
                "if len(told) > limits.COUNTER_NAMES:",
                "if False:",
            ),
        ],
        # --- What is said ---
        "gateway/observe/log.py": [
            ("a log line has a length", "        if len(middle) + len(part) > room:", "        if False:"),
            ("a value in a log line has a length", "        if len(piece) > room:", "        if False:"),
            (
                "lines that wait for the log have a limit",
                "        if len(self._entries) >= limits.LOG_BUFFER_LINES:",
                "        if False:",
            ),
        ],
        "gateway/runtime/supervisor/spared.py": [
            (
                "dead ends that the kernel is told of in one go have a limit",
                "if there][:room]",
                "if there]",
            ),
            (
                "dead ends that wait for the kernel have a limit",
                "len(self._changes) < self._kind.most",
                "True",
            ),
        ],
        "gateway/runtime/worker/saying.py": [
            (
                "what comes again by itself leaves a full link's places to alarms",
                "        if self._crowds(message):\n            return False\n",
                "",
            ),
            ("what waits for a full link has a limit", "len(self._unheard) >= limits.UNHEARD_KEPT", "False"),
            ("what no link takes does not wait", "len(json.dumps(message)) > limits.UNHEARD_OCTETS", "False"),
        ],
        "gateway/runtime/link.py": [
            (
                "one link takes so much of a turn and no more",
                "if not self._open or time.monotonic() > until:",
                "if not self._open:",
            ),
        ],
        "gateway/runtime/said.py": [
            ("a text that a worker tells has a length", " or len(told) > limits.SAID_TEXT_LETTERS:", ":"),
            (
                "whom a worker's alarm is about has a length",
                " and len(told) <= limits.SAID_SUBJECT_LETTERS",
                "",
            ),
        ],
        "gateway/operator/ping_told.py": [
            ("what a server announces in a ping has a limit", "keywords[: limits.PING_KEYWORDS]", "keywords"),
        ],
        "gateway/runtime/supervisor/alarms_out.py": [
            (
                "alarms that wait for their command have a limit",
                "self._waiting: deque[Alarm] = deque(maxlen=limits.ALARMS_WAITING)",
                "self._waiting: deque[Alarm] = deque()",
            ),
            (
                "alarms that clients can make leave room for others",
                "    return 2 * (len(networks) + 1) > most or ",
                "    return ",
            ),
            (
                "alarms about clients of one network leave room for those of others",
                " or networks.count(_network(alarm)) >= of_network",
                "",
            ),
            (
                "no more alarms go out than a person reads",
                "        return full and 0 <= now",
                "        return False and 0 <= now",
            ),
            (
                "what a command says is kept up to a limit",
                "octets[: limits.ENV_TEXT_OCTETS - len(self._kept)]",
                "octets",
            ),
        ],
        # --- Who asks on this machine, and files that are read ---
        "gateway/runtime/supervisor/metrics.py": [
            (
                "askers for metrics have a limit",
                "        if len(self._answering) >= limits.METRICS_CONNECTIONS:",
                "        if False:",
            ),
            (
                "askers for metrics have so long",
                "asyncio.timeout(limits.METRICS_SECONDS)",
                "asyncio.timeout(3600)",
            ),
            (
                "a request for metrics has a length",
                "max_incomplete_event_size=limits.METRICS_REQUEST_OCTETS",
                "max_incomplete_event_size=1 << 40",
            ),
            (
                "metrics are made so often at most",
                "        if now - self._made_at >= limits.METRICS_EVERY_SECONDS:",
                "        if True:",
            ),
        ],
        "gateway/runtime/supervisor/control.py": [
            (
                "who asks the daemon has so long",
                "            async with asyncio.timeout(limits.CONTROL_SECONDS):\n                word",
                "            async with asyncio.timeout(3600):\n                word",
            ),
            (
                "who is asked by one that does not read waits so long",
                "asyncio.timeout(limits.CONTROL_SECONDS):\n                await writer.w",
                "asyncio.timeout(3600):\n                await writer.w",
            ),
        ],
        "gateway/runtime/supervisor/causes.py": [
            ("the kernel is asked about resets so often at most", " or not self._may_ask():", ":"),
            (
                "so many questions about resets are under way",
                "        if len(self._tasks) >= limits.RESETS_ASKED_PER_SECOND:\n            return False\n",
                "",
            ),
        ],
        "gateway/config_text.py": [
            (
                "a configuration has a length",
                "    if len(octets) > limits.CONFIG_FILE_OCTETS:",
                "    if False:",
            ),
            (
                "a line of a configuration has so many dots",
                '        if row.count(b".") > limits.CONFIG_LINE_DOTS:',
                "        if False:",
            ),
        ],
        "gateway/operator/identity.py": [
            (
                "a file to import has a length",
                "    if len(octets) > limits.IDENTITY_FILE_OCTETS:",
                "    if False:",
            ),
        ],
        "gateway/crypto/export.py": [
            (
                "an export asks for no more memory than is sane",
                " and 1 << 13 <= octets <= limits.EXPORT_KDF_MOST_OCTETS",
                "",
            ),
            (
                "an export asks for no more passes than is sane",
                "1 <= passes <= limits.EXPORT_KDF_MOST_PASSES",
                "1 <= passes",
            ),
        ],
        "gateway/intercept/icmp_budget.py": [
            (
                "clients that are told of ICMP errors have a limit",
                "len(self._due) > limits.ICMP_CLIENTS",
                "False",
            ),
        ],
        # --- Time ---
        "gateway/intercept/gate.py": [
            (
                "a taken SYN whose client never comes is forgotten",
                "_older_than(self._expected, now - limits.UNCLAIMED_SECONDS)",
                "_older_than(self._expected, 0.0)",
            ),
            (
                "servers inside that nobody waits for are forgotten",
                "                del self._servers[address]\n",
                "                pass\n",
            ),
            (
                "a SYN that waits for an end of its flow is let go",
                "        bound = now - limits.UNCLAIMED_SECONDS\n",
                "        bound = -1e9\n",
            ),
        ],
        "gateway/runtime/worker/dials.py": [
            (
                "a spare port is looked for so often",
                "for _ in range(limits.SPARE_PORT_TRIES):",
                "while True:",
            ),
            ("a silent dial is given up", "call_later(limits.DIAL_SECONDS, ", "call_later(1e6, "),
        ],
        "gateway/runtime/worker/listeners.py": [
            (
                "clients that are taken in one turn have a limit",
                "for _ in range(limits.ACCEPTS_PER_TURN):",
                "while True:",
            ),
        ],
        "gateway/runtime/worker/sessions.py": [
            (
                "tickets that are too old are looked for",
                "        self._surroundings.forget_old_tickets(now)\n",
                "",
            ),
        ],
        "gateway/runtime/worker/endpoint.py": [
            (
                "last octets for a slow socket have so long",
                "call_later(limits.LINGER_SECONDS, ",
                "call_later(1e6, ",
            ),
            (
                "a peer that takes nothing any more is given up",
                "        return now - since >= limits.STALLED_SECONDS\n",
                "        return False\n",
            ),
            ("a peer that is not done has so long", "call_later(limits.DRAIN_SECONDS, ", "call_later(1e6, "),
        ],
        "gateway/session/sending.py": [
            ("a redial has so long", "now + limits.REDIAL_SECONDS", "now + 1e6"),
        ],
        "gateway/session/receiving.py": [
            ("a signature has so long", "now + limits.SIGN_SECONDS", "now + 1e6"),
        ],
        "gateway/runtime/worker/signing.py": [
            (
                "a signer that does not answer is told",
                "                if now - asked_at < limits.SIGN_SECONDS:",
                "                if True:",
            ),
            (
                "questions that are lost are forgotten",
                "            if now - asked_at < limits.SIGNATURES_LOST_SECONDS:",
                "            if True:",
            ),
        ],
    }
)
