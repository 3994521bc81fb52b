"""Which form of the product the tests run on: a checkout's sources, or with `--compiled` what a package has.

Then `gateway` is to come from a tree of `scripts.compiled`, which PYTHONPATH names; `tests` are the
checkout's either way, and every program that a test starts finds the same `gateway`. What is about the source
form alone is not run: it stands here, with why. Counterpart: `scripts/run_tests.py`, which starts both.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

import gateway
from scripts import compiled

_WHY: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "gives Noise other hashes and ciphers, which compiled callers do not look up": {
        "tests/unit/crypto/test_noise_suites.py": (
            "test_every_vector_of_ix",
            "test_every_vector_of_nnpsk0",
            "test_every_vector_of_ixhfs_with_mlkem768",
        ),
    },
    "changes keys after fewer records, a number that is compiled in": {
        "tests/unit/session/test_flights.py": ("test_rekey_in_the_midst_of_a_large_flight",),
        "tests/unit/crypto/test_never_twice.py": (
            "test_in_a_thousand_sessions",
            "test_in_a_hundred_thousand_sessions",
        ),
    },
    "names another socket, which is compiled in": {
        "tests/unit/observe/test_sinks.py": ("test_a_process_logs_where_the_configuration_says",),
    },
    "changes a limit, which is compiled in": {
        "tests/unit/runtime/worker/test_connection.py": ("test_a_sender_that_never_reads_is_let_go",),
        "tests/unit/runtime/worker/test_memory.py": (
            "test_what_the_file_says",
            "test_who_has_upgraded_near_a_client",
            "test_a_worker_keeps_only_so_much_in_mind",
        ),
        "tests/unit/runtime/worker/test_sessions.py": ("test_all_sessions_are_looked_at_again_and_again",),
        "tests/unit/runtime/worker/test_intake.py": ("test_a_dial_that_nobody_answers_is_given_up",),
        "tests/lab/test_channels_break.py": ("test_channels_that_break_off_in_a_row_ring",),
        "tests/lab/test_rules_queue.py": ("test_a_full_queue_lets_packets_pass",),
    },
    "puts a bug or a fake in the place of what compiled callers do not look up": {
        "tests/unit/runtime/worker/test_connection_bugs.py": (
            "test_a_bug_in_a_relayed_session_resets_it_alone",
            "test_a_bug_in_what_is_called_later_resets_that_session",
        ),
        "tests/unit/runtime/worker/test_intake.py": (
            "test_a_flow_that_is_over_leaves_nothing_behind",
            "test_a_dial_is_not_over_when_the_copy_of_an_icmp_error_wakes_us",
            "test_what_slept_for_long_forgets_and_what_slept_for_a_moment_goes_on",
            "test_where_the_clients_port_is_taken_it_is_dialled_from_another_one",
            "test_what_keeps_us_from_dialling_is_told_as_what_it_is",
            "test_what_a_started_connect_says_of_this_machine_is_told_too",
            "test_a_syn_passes_where_a_bug_meets_it",
            "test_a_syn_passes_where_its_dial_ends_in_a_bug_and_the_dial_is_reset_before",
            "test_a_client_is_reset_where_its_session_cannot_begin",
            "test_a_syn_that_has_waited_passes_where_its_dial_cannot_be_watched",
            "test_the_names_of_interfaces_are_asked_for_again",
        ),
        "tests/unit/runtime/worker/test_sessions.py": (
            "test_a_session_that_cannot_begin_or_end_as_it_should_is_over_all_the_same",
            "test_a_route_that_swallows_what_is_for_a_peer_rings",
            "test_how_each_channel_of_the_sending_side_ended_is_noted",
        ),
        "tests/unit/runtime/worker/test_worker.py": (
            "test_one_that_is_told_to_end_leaves_them_to_its_successor",
            "test_one_that_retires_has_no_successor_and_keeps_them",
            "test_what_waits_to_be_heard_is_said_with_each_proof_of_life_and_before_it",
            "test_one_that_is_asked_says_once_that_no_session_is_left",
            "test_who_sees_to_the_end_of_one_that_a_signal_tells_to",
        ),
        "tests/unit/runtime/worker/test_learning.py": (
            "test_one_that_there_is_no_place_for_is_told_of_each_time",
            "test_one_that_is_known_is_told_of_once_an_hour",
        ),
        "tests/lab/test_bugs.py": ("test_a_bug_costs_one_session_or_one_syn",),
    },
}
SOURCE_ALONE: Final = {
    f"{file}::{test}": why for why, files in _WHY.items() for file, tests in files.items() for test in tests
}
"""Tests, with all their parameters, and why."""


def interpreted() -> list[str]:
    """Modules that should be compiled and are loaded as sources."""
    package = Path(gateway.__file__).parent
    names = [".".join(path.with_suffix("").parts) for path in compiled.modules(package)]
    files = {name: importlib.import_module(name).__file__ or "" for name in names}
    return [name for name, file in files.items() if not file.endswith(tuple(EXTENSION_SUFFIXES))]


def source_alone(test: str) -> bool:
    return test.partition("[")[0] in SOURCE_ALONE


def stale(tests: Iterable[str]) -> list[str]:
    """Lines above that are of no test any more, though their file is among those of `tests`."""
    names = {name.partition("[")[0] for name in tests}
    files = {name.partition("::")[0] for name in names}
    return [name for name in SOURCE_ALONE if name.partition("::")[0] in files and name not in names]
