"""Every transition that a test makes a session machine take must be a declared one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.session.transitions import MACHINES, recording


@pytest.fixture(autouse=True, scope="package")
def _only_declared_transitions() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    for machine in MACHINES:
        patch.setattr(machine, "handle", recording(machine.handle))
    yield
    patch.undo()
