"""All mutants, which tests see them first, and the sample that every run of scripts/test takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.mutants.bounds import BOUNDS
from tests.mutants.channel import CHANNEL
from tests.mutants.confinement import CONFINEMENT
from tests.mutants.crypto import CRYPTO
from tests.mutants.memory import MEMORY
from tests.mutants.mutant import Mutant
from tests.mutants.overload import OVERLOAD
from tests.mutants.rules import RULES
from tests.mutants.seeing import SEEING
from tests.mutants.session import SESSION
from tests.mutants.smtp import SMTP
from tests.mutants.tickets import TICKETS

MUTANTS: Final[tuple[Mutant, ...]] = (
    *CRYPTO,
    *CHANNEL,
    *TICKETS,
    *SESSION,
    *SMTP,
    *MEMORY,
    *CONFINEMENT,
    *SEEING,
    *OVERLOAD,
    *BOUNDS,
    *RULES,
)

EVERYTHING: Final = ("tests/unit",)
_SENDING: Final = tuple(
    f"tests/unit/session/test_{name}.py"
    for name in ("sending", "sending_ends", "redialling", "sending_channel")
)
_RECEIVING: Final = tuple(
    f"tests/unit/session/test_{name}.py" for name in ("receiving", "receiving_answers", "receiving_channel")
)
TESTS: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway/crypto/primitives.py": (
        "tests/unit/crypto/test_primitives.py",
        "tests/unit/test_secrets.py",
    ),
    "gateway/crypto/keys.py": ("tests/unit/crypto/test_keys.py",),
    "gateway/crypto/handshake.py": (
        "tests/unit/crypto/test_handshake.py",
        "tests/unit/crypto/test_handshake_forged.py",
    ),
    "gateway/crypto/noise.py": (
        "tests/unit/crypto/test_noise.py",
        "tests/unit/crypto/test_handshake.py",
        "tests/unit/crypto/test_handshake_forged.py",
    ),
    "gateway/runtime/worker/surroundings.py": (
        "tests/unit/runtime/worker/test_surroundings.py",
        "tests/unit/runtime/worker/test_sessions.py",
    ),
    "gateway/crypto/tickets.py": ("tests/unit/crypto/test_tickets.py",),
    "gateway/crypto/resumption.py": ("tests/unit/crypto/test_resumption.py",),
    "gateway/crypto/statement.py": ("tests/unit/crypto/test_statement.py",),
    "gateway/crypto/records.py": (
        "tests/unit/crypto/test_records.py",
        "tests/unit/crypto/test_records_refused.py",
    ),
    "gateway/crypto/frames.py": ("tests/unit/crypto/test_frames.py",),
    "gateway/crypto/params.py": ("tests/unit/crypto/test_params.py",),
    "gateway/crypto/padding.py": (
        "tests/unit/crypto/test_padding.py",
        "tests/unit/session/test_flights.py",
        "tests/unit/session/test_flights_whatever.py",
    ),
    "gateway/session/flights.py": (
        "tests/unit/session/test_flights.py",
        "tests/unit/session/test_flights_whatever.py",
    ),
    "gateway/session/channel.py": (
        *_SENDING,
        *_RECEIVING,
        "tests/unit/session/test_rollover.py",
    ),
    "gateway/session/sending.py": (
        *_SENDING,
        "tests/unit/session/test_rollover.py",
        "tests/unit/session/test_tickets.py",
        "tests/unit/session/test_tickets_unknown.py",
    ),
    "gateway/session/redials.py": (
        *_SENDING,
        "tests/unit/session/test_tickets_unknown.py",
    ),
    "gateway/session/attempt.py": (
        *_SENDING,
        "tests/unit/session/test_rollover.py",
        "tests/unit/session/test_tickets.py",
        "tests/unit/session/test_tickets_unknown.py",
    ),
    "gateway/session/unoffered.py": _SENDING,
    "gateway/session/receiving.py": (
        *_RECEIVING,
        "tests/unit/session/test_sources.py",
        "tests/unit/session/test_tickets.py",
        "tests/unit/session/test_tickets_unknown.py",
    ),
    "gateway/session/machine.py": (
        *_SENDING,
        *_RECEIVING,
        "tests/unit/session/test_tickets.py",
    ),
    "gateway/session/first_flight.py": _SENDING,
    "gateway/session/second_look.py": _SENDING,
    "gateway/smtp/capability.py": ("tests/unit/smtp/test_capability.py",),
    "gateway/smtp/firstflight.py": ("tests/unit/smtp/test_firstflight.py",),
    "gateway/smtp/buffer.py": ("tests/unit/smtp/test_buffer.py",),
    "gateway/smtp/observer.py": (
        "tests/unit/smtp/test_observer.py",
        "tests/unit/smtp/test_observer_chunks.py",
    ),
    "gateway/smtp/grammar.py": ("tests/unit/smtp/test_grammar.py", "tests/unit/smtp/test_observer.py"),
    "gateway/peers/comparison.py": ("tests/unit/peers/test_comparison.py",),
    "gateway/peers/pins.py": ("tests/unit/peers/test_pins.py", "tests/unit/peers/test_pins_statements.py"),
    "gateway/peers/store.py": ("tests/unit/peers/test_store.py", "tests/unit/peers/test_store_trouble.py"),
    "gateway/runtime/signer.py": ("tests/unit/runtime/test_signer.py",),
    "gateway/runtime/worker/signing.py": ("tests/unit/runtime/test_signer.py",),
    "gateway/runtime/supervisor/pool.py": (
        "tests/unit/runtime/supervisor/test_pool.py",
        "tests/unit/runtime/supervisor/test_said.py",
    ),
    "gateway/runtime/supervisor/rulekeeper.py": (
        "tests/unit/runtime/supervisor/test_rulekeeper.py",
        "tests/unit/runtime/supervisor/test_rulekeeper_down.py",
    ),
    "gateway/runtime/supervisor/sole.py": ("tests/unit/runtime/supervisor/test_sole.py",),
    "gateway/runtime/said.py": ("tests/unit/runtime/supervisor/test_said.py",),
    "gateway/runtime/link.py": ("tests/unit/runtime/supervisor/test_said.py",),
    "gateway/runtime/supervisor/hearing.py": ("tests/unit/runtime/supervisor/test_said.py",),
    "gateway/runtime/supervisor/peer_memory.py": (
        "tests/unit/runtime/supervisor/test_hearing.py",
        "tests/unit/runtime/supervisor/test_said.py",
    ),
    "gateway/runtime/supervisor/spared.py": ("tests/unit/runtime/supervisor/test_spared.py",),
    "gateway/intercept/ruleset.py": ("tests/unit/intercept/test_ruleset.py",),
    "gateway/intercept/kernel/__init__.py": ("tests/unit/intercept/test_kernel.py",),
    "gateway/intercept/kernel/lifts.py": ("tests/unit/intercept/test_vlans.py",),
    "gateway/intercept/placements/bridge.py": ("tests/unit/intercept/test_vlans.py",),
    "gateway/intercept/kernel/iptables.py": ("tests/unit/intercept/test_kernel.py",),
    "gateway/intercept/kernel/nft.py": (
        "tests/unit/intercept/test_kernel.py",
        "tests/unit/intercept/test_fitness.py",
    ),
    "gateway/observe/exposition.py": ("tests/unit/observe/test_exposition.py",),
    "gateway/outlets.py": ("tests/unit/test_config.py",),
    "gateway/runtime/supervisor/alarm_text.py": ("tests/unit/runtime/supervisor/test_alarm_mail.py",),
    "gateway/runtime/supervisor/alarms_out.py": (
        "tests/unit/runtime/supervisor/test_alarms_out.py",
        "tests/unit/runtime/supervisor/test_alarms_out_crowd.py",
        "tests/unit/runtime/supervisor/test_alarms_out_trial.py",
    ),
    "gateway/operator/ping_told.py": ("tests/unit/operator/test_ping.py",),
    "gateway/cli/shell.py": ("tests/unit/cli/test_shown.py",),
    "gateway/intercept/admission.py": (
        "tests/unit/intercept/test_admission.py",
        "tests/unit/intercept/test_counted.py",
    ),
    "gateway/intercept/gate.py": (
        "tests/unit/intercept/test_gate.py",
        "tests/unit/intercept/test_admission.py",
        "tests/unit/intercept/test_counted.py",
    ),
    "gateway/intercept/roles.py": ("tests/unit/intercept/test_roles.py",),
    "gateway/intercept/icmp_budget.py": ("tests/unit/intercept/test_icmp_budget.py",),
    "gateway/intercept/counted.py": ("tests/unit/intercept/test_counted.py",),
    "gateway/intercept/held.py": (
        "tests/unit/intercept/test_gate.py",
        "tests/unit/intercept/test_counted.py",
    ),
    "gateway/policy/ignored_offers.py": ("tests/unit/policy/test_ignored_offers.py",),
    "gateway/runtime/worker/memory.py": ("tests/unit/runtime/worker/test_memory.py",),
    "gateway/runtime/worker/saying.py": ("tests/unit/runtime/worker/test_saying.py",),
    "gateway/runtime/worker/worker.py": ("tests/unit/runtime/worker/test_worker.py",),
    "gateway/runtime/worker/learning.py": (
        "tests/unit/runtime/worker/test_sessions.py",
        "tests/unit/runtime/worker/test_learning.py",
    ),
    "gateway/policy/newcomers.py": ("tests/unit/policy/test_newcomers.py",),
    "gateway/policy/own_path.py": ("tests/unit/policy/test_own_path.py",),
    "gateway/policy/budget.py": ("tests/unit/policy/test_budget.py",),
    "gateway/runtime/worker/pressure.py": ("tests/unit/runtime/worker/test_pressure.py",),
    "gateway/runtime/worker/connection.py": ("tests/unit/runtime/worker/test_pressure.py",),
    "gateway/runtime/worker/endpoint.py": (
        "tests/unit/runtime/worker/test_pressure.py",
        "tests/unit/runtime/worker/test_connection.py",
    ),
    "gateway/peers/history.py": (
        "tests/unit/peers/test_history.py",
        "tests/unit/runtime/supervisor/test_hearing.py",
    ),
    "gateway/peers/looks.py": ("tests/unit/peers/test_looks.py",),
    "gateway/peers/sources.py": ("tests/unit/peers/test_sources.py",),
    "gateway/peers/source_store.py": ("tests/unit/peers/test_source_store.py",),
    "gateway/runtime/supervisor/sources.py": ("tests/unit/runtime/supervisor/test_sources.py",),
    "gateway/policy/dead_end.py": ("tests/unit/policy/test_dead_end.py",),
    "gateway/observe/counters.py": (
        "tests/unit/observe/test_counters.py",
        "tests/unit/runtime/supervisor/test_said.py",
    ),
    "gateway/observe/log.py": ("tests/unit/observe/test_log.py",),
    "gateway/runtime/supervisor/metrics.py": ("tests/unit/runtime/supervisor/test_metrics.py",),
    "gateway/runtime/supervisor/control.py": ("tests/unit/runtime/supervisor/test_control.py",),
    "gateway/runtime/supervisor/causes.py": ("tests/unit/runtime/supervisor/test_causes.py",),
    "gateway/config_text.py": ("tests/unit/test_config_text.py",),
    "gateway/operator/identity.py": ("tests/unit/operator/test_identity.py",),
    "gateway/crypto/export.py": ("tests/unit/crypto/test_export.py",),
    "gateway/runtime/worker/intake.py": ("tests/unit/runtime/worker/test_intake.py",),
    "gateway/runtime/worker/sessions.py": ("tests/unit/runtime/worker/test_sessions.py",),
    "gateway/runtime/worker/dials.py": (
        "tests/unit/runtime/worker/test_intake.py",
        "tests/unit/runtime/worker/test_dials.py",
    ),
    "gateway/runtime/worker/listeners.py": ("tests/unit/runtime/worker/test_listeners.py",),
    "gateway/policy/decision.py": (
        "tests/unit/policy/test_decision.py",
        "tests/unit/session/test_rollover.py",
    ),
}
"""The file that a mutant changes -> the tests that run first. What they let live meets all tests of its room,
then the whole unit suite."""

SAMPLE: Final = (
    "a signature is verified",
    "the tag of a record is verified",
    "the offer's signature is verified",
    "the prologue is in the transcript",
    "ephemerals serve once",
    "no record follows CLOSE",
    "an end without CLOSE is a reset",
    "the dialled address is compared",
    "no content leaves in the first flight",
    "a stranger never displaces an accepted identity",
)
