"""The trial: a connection from inside to outside through the real gate of the running daemon

It shows what no look at rules can: that a mail session passes, and that it passes through the gateway. The
client's packets bear a TTL of their own, so the server sees by the SYN who has sent it. Where it fails,
counters of rules that moved meanwhile name the rule that did it. Leaves nothing but one session in the
gateway's count (`no-offer`). Counterpart: `stand`, which builds what it needs.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.config import Placement
from gateway.operator.doctor import filters, nftables
from gateway.operator.doctor.saved import Rule, parse
from gateway.operator.doctor.snapshot import Snapshot
from gateway.operator.doctor.stand import CLIENT, Stand, standing
from gateway.operator.doctor.trouble import Trouble, shell
from gateway.policy import limits

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_CLIENTS_TTL: Final = 33
"""Odd enough: what is forwarded comes with one less, what this machine sends itself with just that. What the
gateway dials has another one, 64 mostly."""
_TTL_AT: Final = {4: 8, 6: 7}  # RFC 791, RFC 8200: the octet in the header
_TCP_SAVE_SYN, _TCP_SAVED_SYN = 27, 28  # <linux/tcp.h>
_SYN_OCTETS: Final = 256
_TALK: Final = (
    (b"220 doctor.invalid ESMTP\r\n", b"EHLO doctor.invalid\r\n"),
    (b"250 doctor.invalid\r\n", b"QUIT\r\n"),
    (b"221 doctor.invalid\r\n", b""),
)
_ENDS: Final = frozenset({"DROP", "REJECT"})
_PASSES: Final = frozenset({"ACCEPT", "NFQUEUE"})
_WOULD_FAIL: Final = frozenset(
    {
        "links",
        "routing-rules",
        "untracked",
        "drops",
        "bypasses",
        "drops-of-dials",
        "redirections",
        "marks",
        "nftables",
        "closed",
    }
)


class Outcome(enum.Enum):
    CARRIED = "carried by the gateway"
    PASSED_BY = "passed by the gateway"
    SILENT = "no answer"
    REFUSED = "refused"
    BROKEN = "connected, and then broken off"


@dataclass(frozen=True, slots=True)
class Trial:
    family: int
    outcome: Outcome
    detail: str = ""


def cannot(seen: Snapshot, found: Iterable[str]) -> str:
    """Why there is no trial; empty where there is one. `found`: checks that have found trouble."""
    config, certain = seen.config, sorted(_WOULD_FAIL.intersection(found))
    if not seen.root:
        return "needs root"
    if not seen.runs or seen.wanted != "up" or seen.missing_rules:
        return "needs a running daemon with its rules in place"
    if config.placement is Placement.BRIDGE:
        return "a bridge has no addresses of its own to make one with"
    if config.placement is Placement.HOST and config.outside:
        return "the outside is named: a cable of ours would be none of it"
    if set(config.inside) & set(config.outside):
        return "one interface is both sides: a connection of ours would not be told from others"
    missing = [name for name in seen.sides if seen.link(name) is None]
    if missing:
        return f"there is no interface {missing[0]}"
    if certain:
        return f"it would fail for what is found already ({', '.join(certain)})"
    return "" if families(seen) else "no address family is in use on both sides"


def families(seen: Snapshot) -> tuple[int, ...]:
    """Those that both sides speak; of a mail server, those that it has addresses of."""
    if seen.config.placement is Placement.HOST:
        return (4, 6) if any(seen.has_ipv6(link.name) for link in seen.links) else (4,)
    sides = (seen.config.inside[:1], seen.config.outside[:1])
    return tuple(
        version
        for version in (4, 6)
        if all(
            any(one.interface in side and one.address.version == version for one in seen.addresses)
            for side in sides
        )
        and (version == 4 or all(seen.has_ipv6(name) for side in sides for name in side))
    )


def tried(seen: Snapshot) -> Iterator[Trouble]:
    """One connection for each family. Raises EnvironmentFailureError where it cannot be made."""
    with standing(seen.config, families(seen)) as stand:
        for version in stand.server_at:
            before = filters.dumps()
            trial = _connected(stand, version, seen.config.ports[0])
            if trial.outcome is not Outcome.CARRIED:
                yield _trouble(seen, trial, before)


# --- One connection ----------------------------------------------------------------------------------


def _connected(stand: Stand, version: int, port: int) -> Trial:
    address = stand.server_at[version]
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(stand.server.run(lambda: _listening(version, address, port)))
        client = stack.enter_context(stand.client.run(lambda: _client(version)))
        try:
            client.connect((address, port))
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "timeout")
            silent = isinstance(error, TimeoutError) or error.errno in (errno.EHOSTUNREACH, errno.ETIMEDOUT)
            return Trial(version, Outcome.SILENT if silent else Outcome.REFUSED, name)
        try:
            accepted = stack.enter_context(listener.accept()[0])
            accepted.settimeout(limits.TRIAL_SECONDS)
            syn = accepted.getsockopt(socket.IPPROTO_TCP, _TCP_SAVED_SYN, _SYN_OCTETS)
            for reply, command in _TALK:
                _said(accepted, client, reply)
                _said(client, accepted, command)
        except OSError as error:
            return Trial(version, Outcome.BROKEN, os.strerror(error.errno) if error.errno else "timed out")
    carried = syn[_TTL_AT[version]] not in (_CLIENTS_TTL, _CLIENTS_TTL - 1)
    return Trial(version, Outcome.CARRIED if carried else Outcome.PASSED_BY)


def _listening(version: int, address: str, port: int) -> socket.socket:
    listener = socket.socket(_FAMILIES[version], socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, _TCP_SAVE_SYN, 1)
    listener.settimeout(limits.TRIAL_SECONDS)
    listener.bind((address, port))
    listener.listen()
    return listener


def _client(version: int) -> socket.socket:
    client = socket.socket(_FAMILIES[version], socket.SOCK_STREAM)
    client.settimeout(limits.TRIAL_SECONDS)
    if version == 4:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, _CLIENTS_TTL)
    else:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, _CLIENTS_TTL)
    client.bind((CLIENT[version], 0))
    return client


def _said(one: socket.socket, other: socket.socket, words: bytes) -> None:
    one.sendall(words)
    heard = b""
    while len(heard) < len(words):
        octets = other.recv(len(words) - len(heard))
        if not octets:
            raise ConnectionAbortedError(errno.ECONNABORTED, "ended early")
        heard += octets
    if heard != words:
        raise ConnectionAbortedError(errno.EBADMSG, "changed on the way")


# --- What it was -------------------------------------------------------------------------------------


def _trouble(seen: Snapshot, trial: Trial, before: Mapping[int, str]) -> Trouble:
    what = f"a trial connection by IPv{trial.family} from inside to outside: {trial.outcome.value}"
    what += f" ({trial.detail})" if trial.detail else ""
    after = filters.dumps()
    if trial.outcome is Outcome.PASSED_BY:
        why = "mail passes in clear although the daemon runs: it does not get to see the connections"
        for rule in moved(seen, before, after, _PASSES):
            if rule.table == "raw":
                return Trouble(f"{what}; what let it by: {rule}", why, rule.removal)
        restart = "systemctl restart nightmail" if seen.systemd else shell(*seen.ours("reload"))
        return Trouble(what, why, restart)
    why = "so it is with mail"
    for rule in moved(seen, before, after, _ENDS):
        return Trouble(f"{what}; what ended it: {rule}", why, rule.removal)
    for _, closed in nftables.closed_chains(seen):
        return Trouble(f"{what}; {closed.what}", closed.why, closed.mend)
    return Trouble(
        what,
        f"{why}; no rule is known to have done it (a filter of the site against {CLIENT[trial.family]}, an"
        " address for benchmarks, would be no harm). If mail stands still, take the gateway out of its way",
        shell(*seen.ours("down")),
    )


def moved(
    seen: Snapshot, before: Mapping[int, str], after: Mapping[int, str], targets: frozenset[str] = _ENDS
) -> Iterator[Rule]:
    """Rules of others with such a target that have met packets meanwhile; those that name our port first."""
    found: list[Rule] = []
    for family, dump in after.items():
        past = {str(rule): rule for rule in parse(before.get(family, ""), family, seen.config.ports).all()}
        for rule in parse(dump, family, seen.config.ports).all():
            earlier = past.get(str(rule))
            counted = rule.packets > (earlier.packets if earlier is not None else 0)
            if rule.target in targets and not rule.is_ours and not rule.other and counted:
                found.append(rule)
    yield from sorted(found, key=lambda rule: not rule.names_port)
