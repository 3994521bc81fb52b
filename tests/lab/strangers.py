"""Mail servers that no gateway has met, at addresses of their own: so that gateways need no new memory.

A daemon that is started for each test costs more than the test itself, and rings once a day for one address.
Counterpart: `two_sites`, whose mail servers have one address each.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from gateway.lab.topology import MAIL_INTERFACE
from gateway.peers.database import Database
from gateway.peers.source_store import SourceStore
from tests.lab.probes import Dialogue, MailServer, eventually, mail
from tests.lab.two_sites import Sites

PAST_A: Final = "7000:7999"
"""Clients with such a port pass gateway a by: below all that the kernel chooses by itself."""
_PORTS = itertools.count(7000)
_NUMBERS = itertools.count(101)
"""The last parts of addresses; none is the beginning of another one."""
_FIELD: Final = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


@dataclass(frozen=True, slots=True)
class Strangers:
    """Mail servers of both sites, and one elsewhere, at addresses that no gateway has met."""

    sites: Sites
    client: str
    target: str
    elsewhere: str

    @classmethod
    def of(cls, sites: Sites, v6: bool) -> Strangers:
        number = next(_NUMBERS)
        return cls(sites, *(add_address(sites, node, number, v6) for node in ("mta-a", "mta-b", "mta-c")))

    def told(self, letter: str, event: str) -> list[dict[str, str]]:
        """The lines of one kind about them in a gateway's log, each with its fields."""
        return told(self.sites, letter, event, self.client, self.target, self.elsewhere)

    def connect(self, **words: Any) -> Dialogue:
        """From the client, or from the one elsewhere."""
        return Dialogue(self.sites.connect("mta-a", self.target, source=self.client, **words))

    def connect_from_elsewhere(self) -> Dialogue:
        return Dialogue(self.sites.connect("mta-c", self.target, source=self.elsewhere))

    def connect_past_a(self) -> Dialogue:
        """From the client, and its gateway does not see it."""
        return self.connect(port=next(_PORTS))

    def send(self, server: MailServer, body: bytes = b"hello") -> dict[str, str]:
        """One mail from a to b, whole and once; what the sending gateway's log says of the decision."""
        before = len(self.told("a", "session decided"))
        mail(self.sites, "mta-a", server, self.target, body, source=self.client)
        found: list[dict[str, str]] = eventually(
            lambda: self.told("a", "session decided")[before:], what="a decision in the log"
        )
        assert len(found) == 1
        return found[0]

    def shown(self) -> dict[str, Any]:
        answer = self.sites.command("a", "peers", "show", self.target, "--json")
        found: dict[str, Any] = json.loads(answer)
        return found

    def listed(self, address: str = "") -> dict[str, Any] | None:
        """What `peers sources` says at b of the client, or of another one."""
        listed = json.loads(self.sites.command("b", "peers", "sources", "--json"))
        return next((one for one in listed if one["address"] == (address or self.client)), None)


def told(sites: Sites, letter: str, event: str, *about: str) -> list[dict[str, str]]:
    """The lines of one kind in a gateway's log about any of these addresses, each with its fields."""
    ours = set()
    found = []
    for line in sites.log(letter).splitlines():
        fields = {key: value.strip('"') for key, value in _FIELD.findall(line)}
        ends = " ".join(fields.get(key, "") for key in ("source", "to", "subject"))
        if any(one in ends for one in about):
            ours.add(fields.get("session"))
        elif fields.get("session", "") not in ours:
            continue
        if f" {event} " in line:
            found.append(fields)
    return found


def await_known_at_b(sites: Sites, address: str) -> None:
    """Until gateway b remembers, for all its workers, that this client has upgraded."""
    path = sites.gateway("b").folder / "state" / "peers.db"
    with contextlib.closing(Database.read_only(path)) as database:
        store = SourceStore(database)
        eventually(lambda: store.source(address).has_upgraded, what=f"{address} in b's memory")


def add_address(sites: Sites, node: str, number: int, v6: bool) -> str:
    """One more of a mail server's, beside its own on the same network."""
    own = sites.address(node, v6)
    address = f"{own.rpartition(':' if v6 else '.')[0]}{':' if v6 else '.'}{number}"
    one, ip = (f"{address}/128", "ip -6") if v6 else (f"{address}/32", "ip")
    sites.sh(node, f"{ip} addr add {one} dev {MAIL_INTERFACE}" + (" nodad" if v6 else ""))
    if node == "mta-c":
        # Alone on its cable, whose other end has a route for each of its addresses.
        sites.sh("wire", f"{ip} route add {one} dev {node}")
    return address


def pass_a_by(sites: Sites) -> None:
    """Lets connections from PAST_A by at gateway a."""
    sites.sh("gw-a", f"iptables -t raw -I PREROUTING -p tcp --sport {PAST_A} -j ACCEPT")
