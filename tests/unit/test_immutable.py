"""`immutable` promises what the type checker holds: asked here about one assignment that must not be."""

from __future__ import annotations

import subprocess
import sys

from gateway.session.events import OctetsReceived, Side

PROGRAM = """\
from gateway.session.events import OctetsReceived, Side
event = OctetsReceived(Side.NEAR, b"")
event.octets = b"others"
"""


def test_an_assignment_to_a_field_is_an_error_of_types() -> None:
    command = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", "-c", PROGRAM]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert '<string>:3: error: Property "octets" defined in "OctetsReceived" is read-only' in checked.stdout


def test_two_of_the_same_octets_are_one_key() -> None:
    one, another = OctetsReceived(Side.NEAR, b"x"), OctetsReceived(Side.NEAR, b"x")
    assert one == another
    assert len({one, another, OctetsReceived(Side.FAR, b"x")}) == 2
