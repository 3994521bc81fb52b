"""Clients that ignore what gateway b offers, until they rest; whose turn each session is its port says."""

from __future__ import annotations

import itertools
from typing import Final

from gateway.policy import limits
from gateway.policy.ignored_offers import is_turn_of
from tests.lab.probes import Dialogue, eventually
from tests.lab.strangers import told
from tests.lab.two_sites import Sites

MANY: Final = limits.OFFERS_IGNORED_IN_A_ROW
ONE_IN: Final = limits.OFFERS_REST_ONE_IN
REST: Final = [False] * (ONE_IN - 1) + [True]
_PORTS: Final = {
    turn: itertools.cycle([port for port in range(33_000, 47_000) if is_turn_of(port) is turn])
    for turn in (False, True)
}
"""Of no other test's; each once in a while."""


def configure(sites: Sites, letter: str, *, rest: bool) -> None:
    path = sites.gateway(letter).configuration
    text = path.read_text()
    wanted, other = ("rest = true\n", "rest = false\n") if rest else ("rest = false\n", "rest = true\n")
    assert wanted in text or other in text
    path.write_text(text.replace(other, wanted))


def session(sites: Sites, address: str, node: str = "mta-a", *, turn: bool = False) -> bool:
    """One mail of the client with this address; whether it saw an offer."""
    target, port = sites.address("mta-b", ":" in address), next(_PORTS[turn])
    with Dialogue(sites.connect(node, target, source=address, port=port)) as dialogue:
        seen = b"XNIGHTMAIL" in dialogue.begin()
        dialogue.send_mail(b"in clear or not")
        dialogue.say(b"QUIT")
    return seen


def one_round(sites: Sites, address: str, node: str = "mta-a") -> list[bool]:
    """As many sessions as one of them has its turn among, the last one: whether each saw an offer."""
    return [session(sites, address, node, turn=offered) for offered in REST]


def rests(sites: Sites, address: str, node: str = "mta-a") -> None:
    """It ignores as many offers as it takes, and then its sessions pass at the gate of b."""
    assert all(session(sites, address, node) for _ in range(MANY))
    assert not session(sites, address, node)
    eventually(lambda: told(sites, "b", "gate client-rests", address), what=f"{address} at rest")
