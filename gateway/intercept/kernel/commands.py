"""Runs iptables, nft and their like: one transaction each, a bound on its time, one line of complaint.

The only user of subprocess in this room.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Sequence
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.policy import limits

_NO_SET: Final = re.compile(r"Set (\S+) doesn't exist")
"""Of iptables, about the only sets that our rules ask for."""


def run(command: Sequence[str], text: str = "") -> str:
    """What the command prints. Raises EnvironmentFailureError if it is missing, fails, or takes too long."""
    return finish(command[0], start(command), text)


def succeeds(command: Sequence[str]) -> bool:
    """For a command that answers by its exit status. Raises as `run` does, but not for that."""
    process = start(command)
    end(command[0], process)
    if process.returncode < 0:
        raise EnvironmentFailureError(f"{command[0]} was killed by signal {-process.returncode}")
    return process.returncode == 0


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """Begin a command, to be ended with `finish`: so that two can run at once.

    Raises EnvironmentFailureError, also where there is no process or descriptor to be had for the moment.
    """
    pipe = subprocess.PIPE
    try:
        # A rule of somebody else's may bear a comment in any encoding: that must not hide ours from us.
        return subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8", errors="backslashreplace"
        )
    except FileNotFoundError as error:
        raise EnvironmentFailureError(f"{command[0]} is not installed") from error
    except OSError as error:
        raise EnvironmentFailureError(f"{command[0]} cannot be started: {error.strerror}") from error


def run_together(commands: Sequence[tuple[Sequence[str], str]]) -> list[str]:
    """Each with its input, all at once; what they print. Raises as `run`, when all have ended."""
    running = [(command[0], start(command), text) for command, text in commands]
    printed: list[str] = []
    failure: EnvironmentFailureError | None = None
    for tool, process, text in running:
        try:
            printed.append(finish(tool, process, text))
        except EnvironmentFailureError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return printed


def finish(tool: str, process: subprocess.Popen[str], text: str) -> str:
    """Give it its input and wait for its end; see `run`."""
    out, complaint = end(tool, process, text)
    if process.returncode != 0:
        raise EnvironmentFailureError(f"{tool}: {first_line(complaint)}")
    return out


def end(tool: str, process: subprocess.Popen[str], text: str = "") -> tuple[str, str]:
    """What it printed, and its complaint; its exit status is the caller's to look at."""
    try:
        return process.communicate(text, timeout=limits.TOOL_SECONDS)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.communicate()
        raise EnvironmentFailureError(f"{tool} has not ended after {limits.TOOL_SECONDS} s") from error


def first_line(complaint: str) -> str:
    if os.geteuid() != 0 and ("ermission denied" in complaint or "not permitted" in complaint):
        return why(errno.EPERM)
    if absent := _NO_SET.search(complaint):
        making = f"`ipset create {absent[1]} hash:ip`, of IPv6 with `family inet6`"
        return f"no set {absent[1]}, which exceptions.never names: make it first ({making})"
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    return lines[0] if lines else "failed without a word"


def why(code: int) -> str:
    """An errno in words for the operator."""
    if code in (errno.EPERM, errno.EACCES):
        return "not permitted: run as root, or give the service CAP_NET_ADMIN"
    return os.strerror(code)
