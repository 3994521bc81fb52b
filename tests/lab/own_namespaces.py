"""Namespaces that a test makes for itself, beside those of the labs: PREFIX-PID, or PREFIX-PID-NAME each."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from pyroute2 import netns

from gateway.lab import network
from gateway.lab.processes import kill_all_in


def ip(*commands: str) -> None:
    """Each as behind `ip` in a shell."""
    for command in commands:
        done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"ip {command}: {done.stderr}"


def remove_ours(prefix: str) -> None:
    """With all that runs in them: this process's, and those of test runs that were killed."""
    for name in netns.listnetns():
        owner = re.match(rf"{prefix}-(\d+)(-|$)", name)
        if owner and (int(owner[1]) == os.getpid() or not Path("/proc", owner[1]).exists()):
            kill_all_in([name])
            network.remove([name])
