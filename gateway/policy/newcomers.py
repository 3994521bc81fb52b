"""How many that are new are learnt of in a day, of one network. Pure: the day comes in.

Whoever has a network has very many addresses, and as many identities as he likes. What is learnt of each must
not push out what is known of all others.
Counterpart: `runtime.supervisor.sources`, which asks.
"""

from __future__ import annotations

from collections import OrderedDict

from gateway.peers.sources import Beginnings
from gateway.policy import limits


class Newcomers:
    """Of one day. Bounded: the network that was heard of first begins anew."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._day = 0
        self._of: OrderedDict[Beginnings, int] = OrderedDict()

    def has_room(self, network: Beginnings, day: int) -> bool:
        """Whether one more is learnt of; takes the place."""
        if day != self._day:
            self._day = day
            self._of.clear()
        count = self._of.get(network, 0)
        if count >= self._most:
            return False
        self._of[network] = count + 1
        if len(self._of) > limits.NEWCOMER_NETWORKS:
            self._of.popitem(last=False)
        return True
