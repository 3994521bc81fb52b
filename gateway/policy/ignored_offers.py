"""Sources that read offers and take none, session after session: when does one get fewer of them? Pure.

An offer to a source without a gateway is the dearest part of its session, and for nothing. So it rests, but
never quite: a gateway that is installed there is found within a few sessions. Whatever hints at a gateway
makes it an offer in each session; in doubt it gets one, since whoever remembers us and sees none rings.
Whose turn it is the connection itself says, by its port: so the kernel can say it, too, and lets the others
by unseen, and a SYN that is sent again has the same fate.
Mirror image of `dead_end`. Counterparts: `session.receiving`, which asks where it would make an offer; the
chain `resting` in `iptables/*.nft`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gateway.errors import IdentityHashed
from gateway.policy import limits

TURN_BITS: Final = (limits.OFFERS_REST_ONE_IN - 1) << 1
"""Of a source port: where all of these are 0 it is the connection's turn. Above the lowest, for Linux opens
connections from ports of one parity, to one server one behind the other."""


class Run(IdentityHashed):
    """How many offers in a row a source has ignored."""

    SHORT = "short"
    LONG = "long"
    ITS_TURN = "its-turn"
    """Long, and its port says so, or the sessions behind the last offer were without one."""


class Neighbourhood(IdentityHashed):
    """Who of the source's network has upgraded, as far as is remembered."""

    NOBODY = "nobody"
    NEIGHBOUR = "neighbour"
    """Another address of its network: a site with several of them remembers us through any."""
    ITSELF = "itself"


GETS_AN_OFFER: Final[dict[Run, dict[Neighbourhood, bool]]] = {
    Run.SHORT: dict.fromkeys(Neighbourhood, True),
    Run.LONG: {Neighbourhood.NOBODY: False, Neighbourhood.NEIGHBOUR: True, Neighbourhood.ITSELF: True},
    Run.ITS_TURN: dict.fromkeys(Neighbourhood, True),
}
"""Total. docs/protocol.md, "When R makes an offer", is this table in words."""


def is_turn_of(port: int) -> bool:
    """Whether a connection from this port of a resting source gets an offer, and comes to the gate at all."""
    return port & TURN_BITS == 0


def run_of(count: int, port: int) -> Run:
    """`count`: offers ignored in a row, and behind that the sessions that came without one: a source that has
    always the same port must not wait for its turn for ever."""
    without = count - limits.OFFERS_IGNORED_IN_A_ROW
    if without < 0:
        return Run.SHORT
    return Run.ITS_TURN if is_turn_of(port) or without >= limits.OFFERS_REST_ONE_IN - 1 else Run.LONG


class IgnoredOffers:
    """One worker's count for each source; bounded, the ones heard of least recently go first."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def rests(self, source: str, port: int, neighbourhood: Callable[[str], Neighbourhood]) -> bool:
        """Whether this session, from this port, gets no offer; one that gets none is counted. Asks only where
        it matters."""
        count = self._counts.get(source, 0)
        run = run_of(count, port)
        if run is Run.SHORT:
            return False
        self._counts.move_to_end(source)
        if GETS_AN_OFFER[run][neighbourhood(source)]:
            self._counts[source] = limits.OFFERS_IGNORED_IN_A_ROW
            return False
        self._counts[source] = count + 1
        return True

    def in_a_row(self, source: str) -> int:
        """How many offers it has ignored, and behind that the sessions that came without one."""
        return self._counts.get(source, 0)

    def has_ignored_many(self, source: str) -> bool:
        """So many that it rests, unless somebody of its network has upgraded."""
        return self.in_a_row(source) >= limits.OFFERS_IGNORED_IN_A_ROW

    def ignored(self, source: str) -> None:
        """It had an offer, and has spoken on in clear."""
        count = self._counts.pop(source, 0)
        self._counts[source] = count + 1 if count < limits.OFFERS_IGNORED_IN_A_ROW else count
        if len(self._counts) > limits.SOURCES_IGNORING:
            self._counts.popitem(last=False)

    def anything_else(self, source: str) -> None:
        """Something there answers offers, or breaks off at them: what was counted is worth nothing."""
        self._counts.pop(source, None)

    def somebody_is_new(self) -> None:
        """A gateway that was not known: more of its addresses may be among those that rest."""
        self._counts.clear()
