"""Checks of what a gateway tells, and to whom. Counterpart: docs/security.md, "A malicious peer"."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Room, mutants_of

_exposition = Room("gateway/observe/exposition.py")
_exposition.lacks(
    "a metric's reason is a word of the closed set",
    "            if reason in _REASONS and _is_number(count):",
    "            if _is_number(count):",
)
_exposition.lacks(
    "an alarm's reason in the metrics is a word of the closed set",
    "        if isinstance(reason, str) and reason in _REASONS:",
    "        if isinstance(reason, str):",
)
_exposition.lacks(
    "a worker's label is a number",
    "        if isinstance(slot, int) and not isinstance(slot, bool):",
    "        if slot is not None:",
)

_outlets = Room("gateway/outlets.py")
_outlets.lacks(
    "metrics are served on the loopback alone",
    "or not host.is_loopback or",
    "or",
)
_outlets.lacks(
    "the postmaster's address is no option and no second line",
    "not re.fullmatch(_ADDRESS, value)",
    '"@" not in value',
)

_text = Room("gateway/runtime/supervisor/alarm_text.py")
_text.lacks(
    "what a peer said is escaped before it goes to a command",
    '        "detail": printable(alarm.detail),',
    '        "detail": alarm.detail,',
)

_alarms = Room("gateway/runtime/supervisor/alarms_out.py")
_alarms.lacks(
    "an alarm goes out once a day over restarts",
    "        return before is not None and 0 <= int(self._clock()) - before < self._again_seconds",
    "        return False",
)
_alarms.lacks(
    "a command gets its time and no more",
    "        async with asyncio.timeout(limits.ALARM_COMMAND_SECONDS):",
    "        async with asyncio.timeout(None):",
)

_ping = Room("gateway/operator/ping_told.py")
_ping.lacks(
    "what a server says in a ping is escaped",
    '    return printable(octets.decode("latin-1"), limits.PING_TEXT_OCTETS)',
    '    return octets.decode("latin-1")',
)

SEEING: Final[tuple[Mutant, ...]] = mutants_of(_exposition, _outlets, _text, _alarms, _ping)
