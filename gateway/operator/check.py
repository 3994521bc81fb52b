"""`nightmail check`: can this machine do what the configuration asks for? Looks only, changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.config import Config, Placement
from gateway.config_text import ConfigurationError
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel
from gateway.intercept.wanted import Wanted, read_word
from gateway.operator import lifecycle
from gateway.operator.doctor import filters
from gateway.operator.doctor.trouble import shell
from gateway.operator.needs import missing_tools, room
from gateway.operator.status import is_running
from gateway.peers.store import PinStore
from gateway.runtime import identity_file, landlock
from gateway.runtime.machine import this_machine

_ABLE: Final = {
    Placement.ROUTER: "routes between interfaces",
    Placement.HOST: "nothing is asked of it",
    Placement.BRIDGE: "shows frames of the bridge to iptables and nft; those with a VLAN tag pass in clear",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `good` is False where it would keep mail from being protected."""

    name: str
    good: bool
    text: str
    mend: str = ""
    """A line for a shell; empty where all is well, or where the doctor has to look closer."""


def findings(config: Config) -> list[Finding]:
    """All of them, in the order in which an operator would mend them."""
    looks: list[tuple[str, Callable[[Config], Iterator[Finding]]]] = [
        ("privileges", _privileges),
        ("workers", _workers),
        ("tools", _tools),
        ("interfaces", _interfaces),
        ("kernel", _kernel),
        ("firewall", _firewall),
        ("ports", _listen_ports),
        ("identity", _identity),
        ("peers", _peers),
        ("wanted", _wanted),
    ]
    found: list[Finding] = []
    for name, look in looks:
        try:
            found += look(config)
        except EnvironmentFailureError as error:
            found.append(Finding(name, False, str(error)))
        except OSError as error:  # not root, mostly: the first finding says so
            found.append(Finding(name, False, f"{error.filename}: {error.strerror}"))
    return found


def told(found: Sequence[Finding], doctor: Sequence[str]) -> Iterator[str]:
    """Lines for a person. `doctor`: the command that says more."""
    for one in found:
        yield f"{'ok  ' if one.good else 'BAD '} {one.name}: {one.text}"
        if one.mend:
            yield f"     mend: {one.mend}"
    bad = sum(not one.good for one in found)
    if bad:
        yield f"{bad} BAD: `{shell(*doctor)}` names the command that mends {'it' if bad == 1 else 'each'}"


def _privileges(config: Config) -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding("privileges", True, "running as root")
    else:
        yield Finding("privileges", False, "not root: rules and peers of other users cannot be looked at")


def _workers(config: Config) -> Iterator[Finding]:
    if not landlock.version():
        yield Finding("workers", True, "confined, but for the file system: this kernel has no Landlock")
    else:
        yield Finding("workers", True, "confined")


def _tools(config: Config) -> Iterator[Finding]:
    missing = missing_tools()
    if missing:
        yield Finding("tools", False, f"not installed: {', '.join(missing)} (packages iptables and nftables)")
    else:
        yield Finding("tools", True, "iptables and nft are installed")


def _interfaces(config: Config) -> Iterator[Finding]:
    named = lifecycle.resolved(config)
    refusal = kernel.bridge_refusal(named)
    if refusal:
        yield Finding("interfaces", False, refusal.removeprefix("interfaces: "))
        return
    inside = ", ".join(named.inside) or "this machine"
    outside = ", ".join(named.outside) or "all but lo"
    yield Finding("interfaces", True, f"inside {inside}, outside {outside}")


def _kernel(config: Config) -> Iterator[Finding]:
    try:
        named = lifecycle.resolved(config)
    except EnvironmentFailureError:
        yield Finding("kernel", True, "not asked: there are no rules without interfaces")
        return
    remarks = kernel.remarks(named)
    yield from (Finding("kernel", False, remark) for remark in remarks)
    if not remarks:
        yield Finding("kernel", True, _ABLE[config.placement])


def _firewall(config: Config) -> Iterator[Finding]:
    """Rules of others: what the doctor knows of them, before a packet has met them."""
    try:
        named = lifecycle.resolved(config)
    except (ConfigurationError, EnvironmentFailureError):
        yield Finding("firewall", True, "not asked: who would be on which side is not known")
        return
    if os.geteuid() != 0:
        yield Finding("firewall", True, "not asked: only root sees the rules of a packet filter")
        return
    troubles = list(filters.hindrances(named))
    for one in troubles:
        yield Finding("firewall", False, f"{one.what}; {one.why}", one.mend)
    if not troubles:
        yield Finding("firewall", True, "no rule of others stands in mail's way")


def _listen_ports(config: Config) -> Iterator[Finding]:
    """Of the row that is ours others may have some, but not so many that no workers fit in."""
    if is_running(config.control_socket):
        yield Finding("ports", True, "in use by the running daemon")
        return
    if os.geteuid() != 0:
        yield Finding("ports", True, "not asked: only root is told whether it is the daemon that has them")
        return
    slots, taken = room(config)
    others = f"somebody listens on {', '.join(map(str, taken))}"
    if not slots:
        yield Finding("ports", False, f"kernel.first_listen_port: {others}; choose another row")
        return
    fewer = f", for {len(slots)} of {config.workers} workers" if len(slots) < config.workers else ""
    passed_over = f" ({others}: passed over)" if taken else ""
    yield Finding("ports", True, f"{slots[0].port} to {slots[-1].port} are free{fewer}{passed_over}")


def _identity(config: Config) -> Iterator[Finding]:
    kept = identity_file.load(config.identity_file)
    if kept is None:
        yield Finding("identity", True, "none yet; it is made at the first start")
    elif kept.is_of_another(this_machine()):
        told = "made on another machine: the next start makes a new one, and sets this one aside"
        yield Finding("identity", False, f"{kept.site.key.public.fingerprint}: {told}")
    else:
        yield Finding("identity", True, kept.site.key.public.fingerprint)


def _peers(config: Config) -> Iterator[Finding]:
    path: Path = config.pins_file
    if not path.exists():
        yield Finding("peers", True, "none yet")
        return
    with PinStore.read_only(path) as store:
        yield Finding("peers", True, f"{len(store.pins())} remembered")


def _wanted(config: Config) -> Iterator[Finding]:
    word = read_word(config.wanted_file)
    if word.counts is Wanted.DOWN:
        until = " until the next boot" if word.ends_with_boot else ""
        told = f"rules were taken down{until} by `nightmail down`; `nightmail up` puts them back"
        yield Finding("wanted", False, told)
    else:
        yield Finding("wanted", True, "rules are wanted")
