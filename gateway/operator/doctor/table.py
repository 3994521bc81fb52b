"""All checks, in the order in which an operator would mend what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from gateway.config import Placement
from gateway.operator.doctor import (
    closed,
    files,
    firewall,
    nftables,
    passing,
    routing,
    running,
    settings,
    uplinks,
)
from gateway.operator.doctor.snapshot import Snapshot
from gateway.operator.doctor.trouble import Trouble

Check = Callable[[Snapshot], Iterable[Trouble]]

CHECKS: Final[dict[str, Check]] = {
    "privileges": files.privileges,
    "tools": files.tools,
    "interfaces": routing.named_interfaces,
    "links": routing.links_up,
    "forwarding": settings.forwarding,
    "families": settings.ipv6_on_one_side,
    "mtu": settings.packet_sizes,
    "default-route": routing.default_routes,
    "inside-routes": routing.inside_routes,
    "reverse-path": routing.strict_reverse_path,
    "routing-rules": routing.early_routing_rules,
    "uplinks": uplinks.rules_by_interface,
    "bridge-nf": settings.bridged_mail,
    "bridge": settings.bridge_able,
    "sets": settings.sets_there,
    "conntrack-room": settings.conntrack_room,
    "conntrack-patience": settings.conntrack_patience,
    "conntrack-zone": firewall.foreign_zone,
    "untracked": firewall.untracked,
    "drops": firewall.drops_before_ours,
    "bypasses": firewall.bypasses,
    "drops-of-dials": firewall.drops_of_dials,
    "redirections": firewall.redirections,
    "segments": firewall.smaller_segments,
    "marks": firewall.marks_overwritten,
    "nftables": nftables.foreign_rules,
    "closed": closed.closed,
    "passing": passing.passing,
    "legacy": firewall.old_tables,
    "clock": running.clock_right,
    "state-directory": files.state_directory,
    "identity": files.identity,
    "memory": files.memory,
    "log": files.log_file,
    "alarms": files.alarm_programs,
    "ports": running.ports_free,
    "wanted": running.wanted_up,
    "daemon": running.daemon_runs,
    "workers": running.workers_serve,
    "signer": running.signer_serves,
    "inside": running.inside_known,
    "version": running.same_version,
    "kernel": firewall.refused_rules,
    "rules": firewall.missing_rules,
}
"""By the names under which docs/doctor.md explains them; `connection`, the trial, comes last."""

_OF_PLACEMENTS: Final[dict[str, frozenset[Placement]]] = {
    "forwarding": frozenset({Placement.ROUTER}),
    "default-route": frozenset({Placement.ROUTER, Placement.HOST}),
    "inside-routes": frozenset({Placement.ROUTER}),
    "reverse-path": frozenset({Placement.ROUTER, Placement.HOST}),
    "uplinks": frozenset({Placement.ROUTER}),
    "segments": frozenset({Placement.ROUTER}),
    "bridge-nf": frozenset({Placement.ROUTER, Placement.HOST}),
    "bridge": frozenset({Placement.BRIDGE}),
    "passing": frozenset({Placement.ROUTER, Placement.BRIDGE}),
    "inside": frozenset({Placement.ROUTER, Placement.HOST}),
}
"""Those that mean something in some placements only."""


def checks_for(placement: Placement) -> dict[str, Check]:
    everywhere = frozenset(Placement)
    return {
        name: check for name, check in CHECKS.items() if placement in _OF_PLACEMENTS.get(name, everywhere)
    }
