"""What the daemon needs of a machine beside its kernel: programs, and room among its ports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Final

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.intercept import ruleset
from gateway.intercept.ruleset import Slot
from gateway.runtime.supervisor import preflight

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


def room(config: Config) -> tuple[tuple[Slot, ...], tuple[int, ...]]:
    """Which slots the workers of a daemon would have that began now, fewer where there is no room for all;
    and those of our ports on which somebody listens, which it passes over."""
    taken = preflight.slots_in_use(config)
    ports = tuple(slot.port for slot in ruleset.all_slots(config) if slot.index in taken)
    try:
        return ruleset.slots_with_room(config, taken), ports
    except EnvironmentFailureError:
        return (), ports
