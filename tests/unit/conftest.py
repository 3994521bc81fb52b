"""What tests of several rooms need of the machine."""

from __future__ import annotations

import pytest

from gateway.operator import identity
from gateway.runtime import identity_file
from gateway.runtime.machine import Machine
from gateway.runtime.supervisor import site


@pytest.fixture
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """This one can be told from others, whatever it is that the tests run on."""
    here = Machine("3" * 32, "4" * 32)
    for module in (identity_file, identity, site):
        monkeypatch.setattr(module, "this_machine", lambda: here)
