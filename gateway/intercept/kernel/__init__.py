"""Puts a rule set into the kernel, looks whether it still stands, and takes it out again.

kind      the form of all the others: what is missing, make it, take it away
lifts     the way out of a bridge and back into it, and the bridge itself if need be
made      whether that is still ours
vlans     in which VLAN frames without a tag are, where the bridge tells VLANs apart
routing   routing rules and routes
nft       our tables of nft
spared    whose SYNs pass without being judged: dead ends, clients that rest
sysctls   switches that we change and give back
iptables  the rules of iptables, and the gate in them
fitness   what this kernel, or the tools here, cannot do
news      told by the kernel, of changes
commands  runs the tools; the only user of subprocess in this room

Blocking, a few milliseconds a call. Must never leave half of a rule set: each tool's input is one
transaction, and the gate comes last and goes first. Counterpart: `ruleset`, which spells everything.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.config import Config, Network
from gateway.errors import EnvironmentFailureError
from gateway.intercept import ruleset
from gateway.intercept.kernel import commands, lifts, nft, routing, vlans
from gateway.intercept.kernel.fitness import OFF_ON_LOOPBACK, notes, remarks, require_taken
from gateway.intercept.kernel.iptables import (
    Iptables,
    gate_counts,
    is_in_ipset,
    lacks_ipset,
    passed_counts,
)
from gateway.intercept.kernel.kind import Kind
from gateway.intercept.kernel.lifts import Lifts
from gateway.intercept.kernel.nft import NftTables
from gateway.intercept.kernel.routing import (
    Routing,
    families,
    interface_to,
    keep_open,
    let_go,
    spoken,
    with_routes,
)
from gateway.intercept.kernel.spared import DEAD_ENDS, RESTING, SparedSet
from gateway.intercept.kernel.sysctls import Sysctls, icmp_seconds_apart
from gateway.intercept.kernel.vlans import OtherVlansError
from gateway.intercept.marks import MarkBits
from gateway.intercept.objects import (
    LOOPBACK,
    BridgeLift,
    InterfaceRoute,
    LocalRoute,
    NftTable,
    Sysctl,
    queues_served,
)
from gateway.intercept.placements import InsideNetworks, layout_of
from gateway.intercept.ruleset import RuleSet
from gateway.policy import limits

__all__ = [
    "DEAD_ENDS",
    "OFF_ON_LOOPBACK",
    "RESTING",
    "KernelRules",
    "Mended",
    "OtherVlansError",
    "SparedSet",
    "as_found",
    "bridge_refusal",
    "changes",
    "families",
    "gate_counts",
    "icmp_seconds_apart",
    "inside_networks",
    "interface_to",
    "is_in_ipset",
    "keep_open",
    "lacks_ipset",
    "let_go",
    "notes",
    "passed_counts",
    "plan",
    "remarks",
    "require_interfaces",
    "require_taken",
    "reset_was_odd",
    "spoken",
    "table_refusal",
    "with_routes",
]


@dataclass(frozen=True, slots=True)
class Mended:
    """What was `gone` and is back. `counted` is what the counters of SYNs that passed by the gate had said,
    if they have begun anew."""

    gone: tuple[str, ...] = ()
    counted: int | None = None


class KernelRules:
    """The rules of one configuration in this network namespace."""

    def __init__(self, config: Config) -> None:
        self._nft, self._sysctls, self._iptables = NftTables(), Sysctls(), Iptables()
        # What acts on a mark stands before what gives it.
        tables = (config.table, config.bridge_table)
        self._kinds: Sequence[Kind] = (Lifts(), Routing(tables), self._nft, self._sysctls, self._iptables)
        self._marks = MarkBits(config.marks.mask)
        self._holds_own = layout_of(config).holds_own
        self._wanted: RuleSet | None = None
        self._seen_generation: int | None = None

    def apply(
        self, wanted: RuleSet, live_queues: Iterable[int], vouched_seconds: float | None = None
    ) -> None:
        """Make the kernel hold exactly `wanted`, whatever of ours stood there before.

        Raises EnvironmentFailureError, and then nothing of ours stands: half of a rule set might stop mail.
        What others have put into the kernel is not touched. `vouched_seconds`: so long the workers of these
        queues need not prove that they live; None: from now on.
        """
        self._wanted, self._iptables.live, self._seen_generation = wanted, tuple(live_queues), None
        self._nft.vouching = _vouching(wanted, self._marks, self._iptables.live)
        self._nft.vouched_seconds = vouched_seconds
        try:
            for kind in self._kinds:
                kind.put(_of(kind, wanted))
        except Exception:
            for kind in reversed(self._kinds):
                with contextlib.suppress(EnvironmentFailureError):
                    kind.take_away()
            raise
        finally:
            self._nft.vouched_seconds = None

    @property
    def standing(self) -> dict[str, str]:
        """For `adopt`, in another process."""
        return {} if self._wanted is None else self._nft.standing

    def adopt(self, wanted: RuleSet, live_queues: Iterable[int], standing: Mapping[str, str]) -> bool:
        """Take over what the process before this one has put in, untouched; False if it is not `wanted`.

        `apply` would do as well, but a first packet can get lost while nft's table is replaced.
        """
        self._iptables.live = tuple(live_queues)
        # Whom the gate needs is among what must stand.
        self._nft.vouching = _vouching(wanted, self._marks, self._iptables.live)
        if not self._nft.adopt(wanted.of(NftTable), standing):
            return False
        for kind in self._kinds:
            objects = _of(kind, wanted)
            if kind.missing(objects) or kind.surplus(objects):
                return False
        self._sysctls.recall()
        self._wanted, self._seen_generation = wanted, None
        return True

    def swap_gate(self, live_queues: Iterable[int]) -> None:
        """Send SYNs to these queues from now on (to none: everything passes). One transaction a family.

        First the gate: a worker that hangs is out of it before the kernel misses that one's proof of life.
        """
        live = tuple(live_queues)
        self._iptables.swap_gate(live)
        self._nft.swap_vouching(_vouching(self._wanted, self._marks, live))

    def release_held(self) -> None:
        """Drop the SYNs that wait in queues, so that those who sent them send them again.

        Where they do that anyway, nothing. Raises EnvironmentFailureError.
        """
        if self._holds_own:
            nft.drop_held()

    def missing(self) -> list[str]:
        """What should stand and does not, in words for a log; empty if all is well.

        Cheap when nothing has changed since the last look: the kernel numbers its rule sets.
        """
        if self._wanted is None:
            return []
        generation = nft.generation()
        unchanged = generation is not None and generation == self._seen_generation
        gone: list[str] = []
        numbered: list[str] = []
        for kind in self._kinds:
            if not kind.numbered:
                gone += kind.missing(_of(kind, self._wanted))
            elif not unchanged:
                numbered += kind.missing(_of(kind, self._wanted))
        if not numbered:
            self._seen_generation = generation
        return gone + numbered

    def mend(self) -> Mended:
        """Put back what is missing, kind by kind, each as soon as it is seen to be gone.

        What stands stays untouched: it remembers connections. As cheap as `missing` where nothing is gone.
        Raises EnvironmentFailureError, and then what `missing` tells is to be put in by `apply`.
        """
        if self._wanted is None:
            return Mended()
        generation = nft.generation()
        unchanged = generation is not None and generation == self._seen_generation
        gone = {
            kind: kind.mend(_of(kind, self._wanted))
            for kind in self._kinds
            if not (kind.numbered and unchanged)
        }
        if gone.get(self._nft):
            self._settle(self._wanted)
        if not any(lines for kind, lines in gone.items() if kind.numbered):
            self._seen_generation = generation
        counted = self._iptables.counted if gone.get(self._iptables) else None
        return Mended(tuple(line for lines in gone.values() for line in lines), counted)

    def _settle(self, wanted: RuleSet) -> None:
        """What can wait until everything is back: the notes in our table went with it."""
        with contextlib.suppress(EnvironmentFailureError):
            self._sysctls.put(wanted.of(Sysctl))
        with contextlib.suppress(EnvironmentFailureError):
            self._nft.learn(wanted.of(NftTable))

    def remove(self) -> None:
        """Take out everything that is ours, from whichever version, process or placement it is."""
        for kind in reversed(self._kinds):
            kind.take_away()
        # Not before: what has gone half way and is wanted again after all has to be missed.
        self._wanted = None

    def differences(self, wanted: RuleSet, live_queues: Iterable[int]) -> list[str]:
        """What `apply` would change now, one line for each thing; empty if nothing."""
        self._iptables.live = tuple(live_queues)
        lines: list[str] = []
        for kind in reversed(self._kinds):
            objects = _of(kind, wanted)
            lines += [f"remove  {line}" for line in kind.surplus(objects)]
            lines += [f"add     {line}" for line in kind.missing(objects)]
        return lines


def _vouching(wanted: RuleSet | None, marks: MarkBits, live: Sequence[int]) -> dict[int, int]:
    """Port -> mark of those slots that the gate sends SYNs to."""
    slots = {slot.queue: slot for slot in wanted.slots} if wanted is not None else {}
    serving = [slots[queue] for queue in queues_served(live) if queue in slots]
    return {slot.port: marks.take(slot.index) for slot in serving}


def _of(kind: Kind, wanted: RuleSet) -> list[object]:
    return [each for each in wanted.objects if isinstance(each, kind.of)]


def changes() -> list[socket.socket]:
    """Readable when rules of nftables (iptables-nft included) or routing rules change, whoever does it.

    What comes is of no interest; too much of it is an OSError of recv, and means the same. Raises
    EnvironmentFailureError.
    """
    return [nft.changes(), routing.changes()]


def plan(config: Config, wanted: RuleSet, live_queues: Iterable[int]) -> list[str]:
    """What `KernelRules.apply` would change now; changes nothing."""
    return KernelRules(config).differences(wanted, live_queues)


def inside_networks(config: Config) -> tuple[Network, ...]:
    """Whose mail servers are inside: as configured, or else what this machine knows; see `InsideNetworks`.

    Raises EnvironmentFailureError, also for more than a worker can be told.
    """
    if config.inside_networks:
        return config.inside_networks
    layout = layout_of(config)
    if layout.inside_networks is InsideNetworks.OWN:
        return routing.own_addresses()
    if layout.inside_networks is InsideNetworks.SIDE:
        return ()
    found = routing.networks_behind(layout.inside, layout.outside or ())
    if len(found) > limits.INSIDE_NETWORKS:
        raise EnvironmentFailureError(
            f"{len(found)} networks are routed to the inside interfaces, more than {limits.INSIDE_NETWORKS}:"
            " name those of your mail servers as inside_networks"
        )
    return found


def reset_was_odd(server: str, client: str) -> bool | None:
    """Whether a reset that reached `client` lately in the name of `server` had a TTL with which that does not
    begin its connections. None: there was none, or the kernel does not tell."""
    if commands.succeeds(ruleset.reset_query("odd", server, client)):
        return True
    return False if commands.succeeds(ruleset.reset_query("plain", server, client)) else None


def require_interfaces(config: Config) -> None:
    """Raises EnvironmentFailureError for the first interface of the configuration that does not exist."""
    names = {name for _, name in socket.if_nameindex()}
    for key, wanted in (("inside", config.inside), ("outside", config.outside)):
        for name in wanted:
            if name not in names:
                known = ", ".join(sorted(names - {LOOPBACK}))
                raise EnvironmentFailureError(f"{key}: no interface {name!r}; there are {known}")


def table_refusal(config: Config) -> str:
    """Which routing table, of those that are to be ours, is another's; empty where none is. Our default route
    would take the place of theirs there, and what they look up would be delivered here."""
    for wanted in layout_of(config).objects:
        if isinstance(wanted, LocalRoute | InterfaceRoute) and (other := routing.other_route(wanted)):
            key = "kernel.table" if wanted.table == config.table else "bridge.table"
            return f"{key}: routing table {wanted.table} has a route of others ({other}); name another one"
    return ""


def as_found(config: Config) -> Config:
    """With what only this machine knows of this placement's bridge, if it has one."""
    for lift in _lifts(config):
        config = replace(
            config,
            unfiltered=lifts.unfiltered(lift),
            untagged_vlan=lifts.vlan(lift),
            vlan_asked=vlans.can_ask(),
        )
    return config


def bridge_refusal(config: Config) -> str:
    """Why this placement's bridge or its ports cannot be had; empty where they can, and without one."""
    return next(filter(None, map(lifts.refusal, _lifts(config))), "")


def _lifts(config: Config) -> list[BridgeLift]:
    return [each for each in layout_of(config).objects if isinstance(each, BridgeLift)]
