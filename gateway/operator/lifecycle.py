"""Rules up, rules down, and what either would change: the operator's hand on the kernel.

What the operator wants is written down first and done second, so that a running daemon, which puts back rules
that others removed, and the next boot both know. Counterparts: `intercept.kernel` does the work,
`intercept.wanted` keeps the word, `runtime.supervisor` obeys it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.config import Config, FoundInterface, with_interfaces
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel, ruleset
from gateway.intercept.wanted import Wanted, read_wanted, record_wanted
from gateway.operator.status import is_running
from gateway.policy import limits

_DAEMON_CHECKS: Final = 8
"""So many of its looks at the rules a running daemon is given to put them in."""
_LOOPBACK: Final = "lo"
_MAIN_TABLE: Final = 254  # <linux/rtnetlink.h>
_IFF_UP: Final = 1  # <linux/if.h>
_AF_INET, _AF_INET6 = 2, 10


@dataclass(frozen=True, slots=True)
class Plan:
    """`changes`: one line for each rule that would come or go. `remarks`: what stands in mail's way."""

    changes: list[str]
    remarks: list[str]


def discover() -> list[FoundInterface]:
    """The interfaces of this machine. Raises EnvironmentFailureError."""
    found: list[FoundInterface] = kernel.with_routes(_found_interfaces)
    return found


def resolved(config: Config) -> Config:
    """`config` with both sides named. Raises ConfigurationError where they cannot be told."""
    named = with_interfaces(config, discover())
    return replace(named, unfiltered=kernel.unfiltered(named))


def plan(config: Config) -> Plan:
    """What `up` would change now; changes nothing. Takes a resolved configuration."""
    rules = ruleset.render(config, ruleset.slots_to_render(config, ()))
    return Plan(kernel.plan(config, rules, _queues(config)), kernel.remarks(config))


def up(config: Config, pause: Callable[[float], None] = time.sleep) -> str:
    """Put the rules in and keep them; answers one line for the operator. Takes a resolved configuration.

    Whole or not at all: what fails or is interrupted (SIGINT) in between leaves things as they were. Raises
    EnvironmentFailureError.
    """
    before, stood = _said_before(config), bool(kernel.gate_counts())
    record_wanted(config.wanted_file, Wanted.UP)
    if is_running(config.control_socket):
        for _ in range(_DAEMON_CHECKS):
            if kernel.gate_counts():
                return "rules are in place, and the daemon keeps them"
            pause(limits.RULES_CHECK_SECONDS)
        raise EnvironmentFailureError("the daemon has not put the rules in place; its log says why")
    rules = ruleset.render(config, ruleset.slots_to_render(config, ()))
    # No daemon: nobody listens on the queues, and --queue-bypass lets mail pass as if there were no rule.
    try:
        kernel.KernelRules(config).apply(rules, _queues(config))
    except BaseException as error:
        _undo_up(config, before, stood)
        if isinstance(error, KeyboardInterrupt):
            raise EnvironmentFailureError("interrupted; everything is as it was before") from None
        raise
    return "rules are in place; no daemon is running, so mail passes in clear until one is"


def down(config: Config, pause: Callable[[float], None] = time.sleep) -> str:
    """Take the rules out and leave them out; answers one line for the operator."""
    record_wanted(config.wanted_file, Wanted.DOWN)
    rules = kernel.KernelRules(config)
    if is_running(config.control_socket):
        # The daemon takes them out at the same moment: one of the two may find gone what it has just seen.
        with contextlib.suppress(EnvironmentFailureError):
            rules.remove()
        # A repair that had begun before the word was written may still have put them back.
        pause(2 * limits.RULES_CHECK_SECONDS)
    rules.remove()
    return "rules are out and stay out; mail passes in clear until `nightmail up`"


def _said_before(config: Config) -> Wanted:
    try:
        return read_wanted(config.wanted_file)
    except EnvironmentFailureError:
        return Wanted.UP


def _undo_up(config: Config, before: Wanted, stood: bool) -> None:
    """As far as it goes: what has made `up` fail may be in the way of this, too. Left-over rules do no harm.

    Rules that `stood` before are left to serve: taking them out would be no undoing.
    """
    with contextlib.suppress(EnvironmentFailureError):
        if not stood:
            kernel.KernelRules(config).remove()
    with contextlib.suppress(EnvironmentFailureError):
        record_wanted(config.wanted_file, before)


def _queues(config: Config) -> list[int]:
    return [slot.queue for slot in ruleset.slots_of(config)]


def _found_interfaces(ip: Any) -> list[FoundInterface]:
    ways_out = {
        hop
        for family in (_AF_INET, _AF_INET6)
        for route in ip.get_routes(family=family, table=_MAIN_TABLE)
        if route["dst_len"] == 0
        for hop in _outgoing(route)
    }
    return [
        FoundInterface(link.get_attr("IFLA_IFNAME"), link["index"] in ways_out, bool(link["flags"] & _IFF_UP))
        for link in ip.get_links()
        if link.get_attr("IFLA_IFNAME") != _LOOPBACK
    ]


def _outgoing(route: Any) -> list[int]:
    hops = route.get_attr("RTA_MULTIPATH") or []
    return [index for index in (route.get_attr("RTA_OIF"), *(hop["oif"] for hop in hops)) if index]
