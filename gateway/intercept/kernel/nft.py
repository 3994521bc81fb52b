"""Our tables of nft, notes in them of what we have changed elsewhere, and the number of all rules."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.intercept.kernel.commands import finish, run, start
from gateway.intercept.kernel.news import heard_of
from gateway.intercept.objects import NFT_TABLE, VOUCHING_CHAIN, KernelObject, NftTable, render_vouching
from gateway.intercept.statements import statements
from gateway.policy import limits

_NOTE: Final = "former/"
"""An empty chain by such a name is a note: so the kernel remembers what to give back, whoever does it."""
_NOTE_FAMILY: Final = "inet"
_NOTE_CHAIN: Final = re.compile(rf"\n?\tchain {_NOTE}(\S+) \{{\n\t\}}\n")
_TRIAL: Final = ("nft", "-c", "-f", "-")
_UNSHARE: Final = "unshare"
"""The tool; what it complains of, in whatever language, begins with its name."""
_VOUCHING: Final = re.compile(rf"(?<=\tchain {VOUCHING_CHAIN} \{{\n)((?:\t\t.*\n)*)")


class NftTables:
    """Ours by their name, in whichever family."""

    of: tuple[type[KernelObject], ...] = (NftTable,)
    numbered = True

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._listings: dict[str, str] = {}
        self.vouching: dict[int, int] = {}
        """Slots whose workers the gate needs: port -> mark."""
        self.vouched_seconds: float | None = None
        """With a table that is put, they count as heard of for so long; None: as if they had just been."""

    def missing(self, wanted: Sequence[NftTable]) -> list[str]:
        looks = _raw_listings(wanted)
        lines = [line for table in wanted for line in self._missing(table, looks[table.family])]
        if self._listings and not lines:
            lines += self._missing_vouching(looks.get(_NOTE_FAMILY))
        return lines

    def surplus(self, wanted: Sequence[NftTable]) -> list[str]:
        families = {table.family for table in wanted}
        return [f"nft table {family} {NFT_TABLE}" for family in _families_present() if family not in families]

    def put(self, wanted: Sequence[NftTable]) -> None:
        """Notes stay where they are."""
        known = notes()
        families = {table.family for table in wanted}
        removal = [_removal(family) for family in _families_present() if family not in families]
        texts = (table.text for table in wanted)
        run(["nft", "-f", "-"], "".join([*removal, *texts, _noting(known), self._vouching_text]))
        self.learn(wanted)

    def mend(self, wanted: Sequence[NftTable]) -> list[str]:
        """A table that stands keeps what its sets remember. `learn` has to follow, when there is time."""
        looks = _raw_listings(wanted)
        broken = {table: lines for table in wanted if (lines := self._missing(table, looks[table.family]))}
        if broken:
            known = _noted(looks.get(_NOTE_FAMILY))
            again = (
                [_noting(known), self._vouching_text]
                if any(table.family == _NOTE_FAMILY for table in broken)
                else []
            )
            run(["nft", "-f", "-"], "".join([*(table.text for table in broken), *again]))
            return [line for lines in broken.values() for line in lines]
        gone = self._missing_vouching(looks.get(_NOTE_FAMILY)) if self._listings else []
        if gone:
            run(["nft", "-f", "-"], self._vouching_text)
        return gone

    def learn(self, wanted: Sequence[NftTable]) -> None:
        """How the tables that were just put look in the tool's own words: what is otherwise was changed."""
        self._texts = {table.family: table.text for table in wanted}
        self._listings = {family: _bare(raw) or "" for family, raw in _raw_listings(wanted).items()}

    def swap_vouching(self, vouching: Mapping[int, int]) -> None:
        """The gate needs these workers from now on. Where the table is gone it comes back with them."""
        self.vouching = dict(vouching)
        with contextlib.suppress(EnvironmentFailureError):
            run(["nft", "-f", "-"], render_vouching(self.vouching))

    def _missing(self, table: NftTable, look: str | None) -> list[str]:
        listing = _bare(look)
        if listing is None:
            return [f"nft {line}" for line in statements(table)]
        if listing != self._listings.get(table.family, listing):
            return [f"nft table {table.family} {table.name}: its rules differ from ours"]
        return []

    @property
    def _vouching_text(self) -> str:
        """For a table put anew: who serves has been heard of as long as the old one stood."""
        return render_vouching(self.vouching, alive=self.vouching.values(), seconds=self.vouched_seconds)

    def _missing_vouching(self, look: str | None) -> list[str]:
        found = _VOUCHING.search(look or "")
        present = [line.strip() for line in found[1].splitlines()] if found else []
        if present == [f"jump vouched_{port}" for port in self.vouching]:
            return []
        return [f"nft chain {_NOTE_FAMILY} {NFT_TABLE} {VOUCHING_CHAIN}: its rules differ from ours"]

    def take_away(self) -> None:
        run(["nft", "-f", "-"], "".join(map(_removal, _families_present())))
        self._texts, self._listings = {}, {}

    @property
    def standing(self) -> dict[str, str]:
        """For `adopt`, in another process."""
        texts = {f"text {family}": text for family, text in self._texts.items()}
        return texts | {f"listing {family}": listing for family, listing in self._listings.items()}

    def adopt(self, wanted: Sequence[NftTable], standing: Mapping[str, str]) -> bool:
        """Whether the tables are the wanted ones, and as the process before this one left them."""
        listings: dict[str, str] = {}
        for table in wanted:
            listing = _listing(table.family)
            if listing is None or standing.get(f"listing {table.family}") != listing:
                return False
            if standing.get(f"text {table.family}") != table.text:
                return False
            listings[table.family] = listing
        self._texts, self._listings = {table.family: table.text for table in wanted}, listings
        return True


def drop_held() -> None:
    """The kernel drops all packets that wait in queues of this namespace, as always when a hook goes.

    Raises EnvironmentFailureError.
    """
    chain = f"chain {_NOTE_FAMILY} {NFT_TABLE} dropping_held"
    run(["nft", "-f", "-"], f"add {chain} {{ type filter hook output priority 300; }}\ndelete {chain}\n")


def complaint(table: NftTable) -> str | None:
    """Why nft or the kernel would not take this table, in one line; None if they would. Changes nothing.

    Tried in a network namespace of its own: the kernel hooks its chains in to see whether it can, and with a
    hook that it takes out again it drops all that waits in queues of the same namespace (see `drop_held`).
    """
    try:
        finish("nft", start([_UNSHARE, "--net", *_TRIAL]), table.text)
    except EnvironmentFailureError as error:
        return str(error) if _UNSHARE not in str(error) else _complaint_here(table)
    return None


def _complaint_here(table: NftTable) -> str | None:
    """Where no other namespace is to be had, as in many a container. One that stands was taken, and is left
    alone."""
    try:
        if table.family not in _families_present():
            run(_TRIAL, table.text)
    except EnvironmentFailureError as error:
        return str(error)
    return None


def is_taken(text: str) -> bool:
    """Whether nft and the kernel would take this, which has no hook: nobody's packets are dropped for it."""
    try:
        run(_TRIAL, text)
    except EnvironmentFailureError:
        return False
    return True


# --- Notes -------------------------------------------------------------------------------------------


def notes() -> dict[str, str]:
    """What was noted: name -> what it was before us."""
    return _noted(_raw_listing(_NOTE_FAMILY))


def _noted(look: str | None) -> dict[str, str]:
    found = _NOTE_CHAIN.findall(look or "")
    return dict(one.rpartition("/")[::2] for one in found)


def note(former: Mapping[str, str]) -> None:
    """Note these, beside what is noted already. Names and values are of letters, digits and ._-/ alone."""
    if former:
        run(["nft", "-f", "-"], _noting(former))


def _noting(former: Mapping[str, str]) -> str:
    chains = (f"{_NOTE}{name}/{value}" for name, value in former.items())
    return "".join(f"add chain {_NOTE_FAMILY} {NFT_TABLE} {chain}\n" for chain in chains)


# --- The tool ----------------------------------------------------------------------------------------


def _families_present() -> list[str]:
    return re.findall(rf"^table (\w+) {NFT_TABLE}$", run(["nft", "list", "tables"]), re.MULTILINE)


def _removal(family: str) -> str:
    return f"table {family} {NFT_TABLE}\ndelete table {family} {NFT_TABLE}\n"


def _listing(family: str) -> str | None:
    return _bare(_raw_listing(family))


def _bare(listing: str | None) -> str | None:
    """Our table without notes, without the contents of its sets, and without what the gate needs just now;
    None if it is not there."""
    return listing if listing is None else _VOUCHING.sub("", _NOTE_CHAIN.sub("", listing))


def _raw_listing(family: str) -> str | None:
    return _listed([family])[family]


def _raw_listings(wanted: Sequence[NftTable]) -> dict[str, str | None]:
    return _listed([table.family for table in wanted])


def _listed(families: Sequence[str]) -> dict[str, str | None]:
    """All at once. Raises EnvironmentFailureError where the tool fails: a table that is taken for gone would
    be put in anew, without what it remembers."""
    running = {family: start(listing_command(family, "-s")) for family in families}
    return {family: ours_in(finish("nft", process, ""), family) for family, process in running.items()}


def listing_command(family: str, *options: str) -> list[str]:
    """All tables of a family, without what their sets hold. For less (a table, a counter) nft 1.0.6 reads
    that first, whatever it is told: 0.6 s for 60,000 connections that our own table remembers."""
    return ["nft", "-t", *options, "list", "ruleset", family]


def ours_in(listing: str, family: str) -> str | None:
    """Of what that has printed; None where our table is not there."""
    found = re.search(rf"^table {family} {NFT_TABLE} {{\n.*?^}}\n", listing, re.MULTILINE | re.DOTALL)
    return found[0] if found else None


# --- The number of the kernel's rule set --------------------------------------------------------------

_NETLINK_NETFILTER: Final = 12
_NFTABLES_GROUP: Final = 1 << 6  # NFNLGRP_NFTABLES, <linux/netfilter/nfnetlink.h>
_NFT_MSG_GETGEN: Final = 10 << 8 | 16  # subsystem NFNL_SUBSYS_NFTABLES
_NFT_MSG_NEWGEN: Final = 10 << 8 | 15
_NFTA_GEN_ID: Final = 1
_NLMSG: Final = struct.Struct("=IHHII")
_NFGENMSG_OCTETS: Final = 4
_ANSWER_OCTETS: Final = 4096


def changes() -> socket.socket:
    """Readable when nftables (iptables-nft included) changes in this network namespace, whoever does it.

    What comes is of no interest; too much of it is an OSError of recv, and means the same. Raises
    EnvironmentFailureError.
    """
    return heard_of(_NETLINK_NETFILTER, _NFTABLES_GROUP)


def generation() -> int | None:
    """Changes with every change of any nftables rule (iptables-nft included); None where it says nothing."""
    if _is_legacy():
        return None
    request = _NLMSG.pack(_NLMSG.size + _NFGENMSG_OCTETS, _NFT_MSG_GETGEN, 1, 1, 0) + bytes(_NFGENMSG_OCTETS)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as ask:
            ask.settimeout(limits.TOOL_SECONDS)
            ask.sendto(request, (0, 0))
            answer = ask.recv(_ANSWER_OCTETS)
    except OSError:
        return None
    if len(answer) < _NLMSG.size or _NLMSG.unpack_from(answer)[1] != _NFT_MSG_NEWGEN:
        return None
    return _attribute_u32(answer[_NLMSG.size + _NFGENMSG_OCTETS :], _NFTA_GEN_ID)


def _attribute_u32(attributes: bytes, wanted: int) -> int | None:
    while len(attributes) >= 8:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == wanted and length == 8:
            return int.from_bytes(attributes[4:8])
        attributes = attributes[max(4, (length + 3) & ~3) :]
    return None


def _is_legacy() -> bool:
    """Old iptables keeps its rules outside nftables, whose number then says nothing about them."""
    # thread-self: /proc/net is the network namespace of the process, not of the thread that asks.
    names = [Path("/proc/thread-self/net", name) for name in ("ip_tables_names", "ip6_tables_names")]
    return any(path.exists() and path.read_text().strip() for path in names)
