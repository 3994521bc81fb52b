"""What the daemon needs of a machine beside its kernel: programs, and ports that nobody listens on."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from typing import Final

from gateway.config import Config

_TOOLS: Final = ("iptables-restore", "iptables-save", "ip6tables-restore", "ip6tables-save", "nft")


def missing_tools() -> list[str]:
    """Programs that the daemon works by and that are not here."""
    return [tool for tool in _TOOLS if shutil.which(tool) is None]


def alarms_unheard(config: Config) -> str:
    """Which program that alarms go out by is not here; empty where all are, or none is asked for."""
    for key, program in _alarm_programs(config):
        if shutil.which(program) is None:
            return f"alarms.{key}: {program} is no program here"
    return ""


def _alarm_programs(config: Config) -> Iterator[tuple[str, str]]:
    if config.alarm_command:
        yield "command", config.alarm_command[0]
    if config.alarm_mail_to and config.alarm_server is None:
        yield "sendmail", str(config.alarm_sendmail)


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("", port))
        except OSError:
            return False
    return True
