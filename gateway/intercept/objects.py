"""The kinds of thing that we put into the kernel, as data: rules, tables, routes, sysctls.

Pure. A placement is a list of these; each kind has one class in `kernel` that finds what is missing of it,
makes it, and takes it away again. Counterparts: `ruleset`, which makes the list; `kernel.kind`, the form of
what acts on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

RULE_PRIORITY: Final = 25
"""Of our routing rules: behind `local` (0), before whatever the site routes by."""
LAST_RESORT_PRIORITY: Final = 40000
"""Behind `main` and `default` (32767): for what the site has no route at all."""
NFT_TABLE: Final = "nightmail"
CHAIN_PREFIX: Final = "NIGHTMAIL-"
FAMILIES: Final = (4, 6)
LOOPBACK: Final = "lo"

VOUCHING_CHAIN: Final = "vouching"
_GATE_CHAIN: Final = f"{CHAIN_PREFIX}GATE"
GATE_LINE: Final = "# $gate"


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """`ip rule`: what comes in by this interface with all bits of this mark is looked up in our table.

    What starts here comes, in the words of routing, by lo. A mark of 0: with any mark, or none.

    Bound to the interface, so that neither a reverse-path check by mark (src_valid_mark) nor an answer
    that reflects the mark (fwmark_reflect) ever meets our table.
    """

    family: int
    interface: str
    mark: int
    table: int
    priority: int = RULE_PRIORITY


@dataclass(frozen=True, slots=True)
class LocalRoute:
    """`ip route`: everything in this table is delivered here."""

    family: int
    table: int


@dataclass(frozen=True, slots=True)
class InterfaceRoute:
    """`ip route`: everything in this table leaves by this interface."""

    family: int
    interface: str
    table: int


@dataclass(frozen=True, slots=True)
class BridgeLift:
    """A way out of a bridge and back: a port of it, whose other end is an interface without an address.

    Frames for `mac` leave the bridge by `port` and arrive at `interface` as packets of this machine; what
    leaves by `interface` comes into the bridge as a frame. If there is no `bridge`, one is made from `ports`.
    `vlan`: that of frames without a tag, where the bridge tells VLANs apart; else 0.
    """

    bridge: str
    ports: tuple[str, ...]
    port: str
    interface: str
    mac: str
    vlan: int = 0


@dataclass(frozen=True, slots=True)
class NftTable:
    """A table of nft, with the input of `nft -f` that replaces it in one transaction."""

    text: str
    family: str = "inet"
    name: str = NFT_TABLE


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A switch of the kernel, and what it is while our rules stand. `name` is its path below /proc/sys."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class IptablesRules:
    """All rules of one address family. `template` is input of iptables-restore, without the gate's rules."""

    family: int
    template: str

    def restore_text(self, live_queues: Iterable[int]) -> str:
        """Input of iptables-restore: our chains filled, jumps as they should be found afterwards."""
        return self.template.replace(GATE_LINE, "\n".join(gate_rules(live_queues)))


KernelObject = PolicyRule | LocalRoute | InterfaceRoute | BridgeLift | NftTable | Sysctl | IptablesRules


def gate_rules(live_queues: Iterable[int]) -> list[str]:
    """Rules of the gate chain: SYNs to the live queues, or none where nobody lives.

    The kernel balances over one contiguous run and by a hash of the addresses. With a hole in the run, the
    longest part serves: splitting further would need a second hash that sends a retransmitted SYN to the
    worker that holds the first one, and iptables has none for both families. It lasts as long as the dead
    worker's successor takes to bind its queue again.
    """
    run = queues_served(live_queues)
    if not run:
        return []
    where = f"--queue-num {run[0]}" if len(run) == 1 else f"--queue-balance {run[0]}:{run[-1]}"
    return [f"-A {_GATE_CHAIN} -p tcp -j NFQUEUE {where} --queue-bypass"]


def render_gate(live_queues: Iterable[int]) -> str:
    """Input of iptables-restore, the same for both families, that swaps the gate chain and nothing else."""
    return "\n".join(["*raw", f":{_GATE_CHAIN} - [0:0]", *gate_rules(live_queues), "COMMIT", ""])


def queues_served(live_queues: Iterable[int]) -> list[int]:
    """Those of them that the gate sends SYNs to, in order."""
    return _longest_run(sorted(set(live_queues)))


def render_vouching(
    slot_ports: Iterable[int], *, alive: Iterable[int] = (), seconds: float | None = None
) -> str:
    """Input of nft: SYNs come to the gate only while each of these slots' workers has been heard of lately.

    `alive`: marks of slots that count as heard of, for so many `seconds`, or as if they had just been.
    """
    chain = f"inet {NFT_TABLE} {VOUCHING_CHAIN}"
    lines = [f"flush chain {chain}", *(f"add rule {chain} jump vouched_{port}" for port in slot_ports)]
    until = "" if seconds is None else f" timeout {seconds:.0f}s"
    marks = ", ".join(f"{mark:#x}{until}" for mark in alive)
    return "\n".join([*lines, *([f"add element inet {NFT_TABLE} alive {{ {marks} }}"] if marks else []), ""])


def element_query(name: str, element: str) -> list[str]:
    """A command that succeeds where this set of our table has this element. Changes nothing: it asks whether
    that could be taken out. For `get element` nft 1.0.6 reads first what all sets of the machine hold."""
    return ["nft", "-c", "delete", "element", "inet", NFT_TABLE, name, element]


def _longest_run(numbers: list[int]) -> list[int]:
    best: list[int] = []
    run: list[int] = []
    for number in numbers:
        run = [*run, number] if run and number == run[-1] + 1 else [number]
        if len(run) > len(best):
            best = run
    return best
