"""What holds of all tests: how hypothesis searches, what becomes of a test that needs root, and which form of
the product they are run on.

Hypothesis searches the same cases in every run by default, other ones with NIGHTMAIL_TESTS=deep.

A run that judges a change must not depend on luck or on how busy the machine is; a run that looks for new
faults must. One that only asks whether something fails (tests/mutants) does not look for the smallest case.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests import compiled_form as form

# Not two minutes of compiling within a test; the tests of that form choose it themselves.
os.environ.setdefault("NIGHTMAIL_FORM", "source")

settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "deep", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "mutants",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile(os.environ.get("NIGHTMAIL_TESTS", "steady"))


def pytest_itemcollected(item: pytest.Item) -> None:
    """To scripts/test one that is skipped has not passed."""
    if os.geteuid() != 0 and item.get_closest_marker("root"):
        item.add_marker(pytest.mark.skip(reason="needs root"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--compiled", action="store_true", help="the product is: see compiled_form.py")


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("compiled") and (sources := form.interpreted()):
        raise pytest.UsageError(f"--compiled, and these are sources: {', '.join(sources)}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before -m and -k choose: a line about no test is seen wherever its file is."""
    if not config.getoption("compiled"):
        return
    if stale := form.stale(item.nodeid for item in items):
        raise pytest.UsageError(f"compiled_form.py has lines for no test: {', '.join(stale)}")
    alone = [item for item in items if form.source_alone(item.nodeid)]
    config.hook.pytest_deselected(items=alone)
    items[:] = [item for item in items if item not in alone]
