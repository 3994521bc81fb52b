"""Many sites without their offer at once: is it they, or is it our own path? Pure.

A site that has been switched off is one; a provider that strips our lines takes them from all. So sites are
counted, not addresses, and those that still make their offer count against it. They must be of as many
networks: anybody makes identities, and in one network he has an address for each, which he could all switch
off to hide what he does to another site. Once it is our path, it stays so until most sites are well: at night
there may be an hour without five of them.
Counterpart: `runtime.supervisor.hearing`, which feeds it and rings for our path in the place of each peer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from gateway.peers.sources import Beginnings
from gateway.policy import limits

_WELL_SECONDS = limits.MANY_MISSING_SECONDS + limits.PIN_LAST_SEEN_SECONDS
"""Good news of one site comes once an hour at most, so it must count for longer than bad news."""


class _Heard(NamedTuple):
    """Of one site, the last time."""

    at: int
    network: Beginnings = ()


class OwnPath:
    """What was heard of sites lately; a site is an identity. Bounded: the oldest go first."""

    def __init__(self) -> None:
        self._missing: OrderedDict[bytes, _Heard] = OrderedDict()
        self._well: OrderedDict[bytes, _Heard] = OrderedDict()
        self._ours = False

    def well(self, site: bytes, now: int) -> None:
        """A good session with `site`."""
        self._missing.pop(site, None)
        _put(self._well, site, _Heard(now))

    def missing(self, site: bytes, network: Beginnings, now: int) -> int:
        """`site` came without its offer in `network`. How many did lately, if it is our own path; else 0."""
        self._well.pop(site, None)
        _put(self._missing, site, _Heard(now, network))
        if not self._ours:
            _drop_old(self._missing, now, limits.MANY_MISSING_SECONDS)
        _drop_old(self._well, now, _WELL_SECONDS)
        many, networks = len(self._missing), len({heard.network for heard in self._missing.values()})
        self._ours = networks >= limits.MANY_MISSING and many > len(self._well)
        return many if self._ours else 0


def _put(heard: OrderedDict[bytes, _Heard], site: bytes, lately: _Heard) -> None:
    heard[site] = lately
    heard.move_to_end(site)
    while len(heard) > limits.ALARM_CAUSES:
        heard.popitem(last=False)


def _drop_old(heard: OrderedDict[bytes, _Heard], now: int, seconds: int) -> None:
    """Also what lies ahead: a clock set back must not make old news last."""
    for site in [site for site, one in heard.items() if not 0 <= now - one.at < seconds]:
        del heard[site]
