"""What a worker tells a new session: keys, the operator's lists, what is remembered of the other side.

Counterparts: `session.context`, which is what is told; `sessions`, which asks; `memory`, which remembers.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import Protocol

from gateway.config import Config, Network
from gateway.crypto.keys import EndorsementCache, Ephemerals
from gateway.crypto.messages import DialledAddress
from gateway.crypto.tickets import HeldTickets, OfferedTickets, TicketsOfPair
from gateway.errors import Reason
from gateway.intercept.counted import counted_as
from gateway.intercept.syn import Flow
from gateway.peers.looks import Look
from gateway.peers.pins import Destination, Pin
from gateway.peers.sources import Sender, Source, SourceSeen
from gateway.policy import limits
from gateway.policy.budget import HandshakeBudget
from gateway.policy.ignored_offers import GETS_AN_OFFER, IgnoredOffers, Neighbourhood, Run
from gateway.runtime.order import Presented
from gateway.runtime.worker.ahead import Ahead
from gateway.session.context import ReceivingContext, SendingContext
from gateway.smtp.events import Role


class Pins(Protocol):
    """The memory of peers, as sessions see it."""

    def pin_of(self, destination: Destination) -> Pin | None: ...
    def is_resting(self, destination: Destination) -> bool: ...
    def looks_of(self, destination: Destination) -> tuple[Look, ...]: ...
    def expect_looks(self, destination: Destination, looks: tuple[Look, ...]) -> None: ...
    def forget_for_a_while(self, destination: Destination) -> None: ...


class Sources(Protocol):
    """The memory of clients, as sessions see it."""

    def source_of(self, address: str) -> Source: ...
    def sender_of(self, identity: bytes) -> Sender: ...
    def neighbourhood_of(self, address: str) -> Neighbourhood: ...
    def expect(self, source: Source, sender: Sender) -> None: ...
    def expect_upgrade(self, address: str, name: bytes, today: int) -> None: ...
    def learn(self, address: str, seen: SourceSeen) -> None: ...


class Surroundings:
    """Of all sessions of one worker, which began at `began`."""

    def __init__(
        self, config: Config, presented: Presented, pins: Pins, sources: Sources, began: float
    ) -> None:
        self._config = config
        self.pins = pins
        self.sources = sources
        self.ignored = IgnoredOffers()
        self._endorsements = EndorsementCache()
        self._for_offers = Ahead(partial(Ephemerals.draw, os.urandom))
        self._for_answers = Ahead(partial(Ephemerals.draw_for_answer, os.urandom))
        self._handshakes = HandshakeBudget(config.handshakes_per_second, config.handshakes_per_source, began)
        self._held, self._offered = HeldTickets(), OfferedTickets()
        self._keys, self._statements = presented.keys, presented.statements

    def present(self, presented: Presented) -> None:
        """Who the site is, for sessions that begin from now on."""
        keys = presented.keys
        is_another = keys.identity != self._keys.identity
        # New ones: what sessions under way still leave in the old ones, nobody will look for.
        if is_another:
            self._held = HeldTickets()
        if is_another or presented.statements != self._statements:
            # Statements are shown in whole handshakes only, and nobody has seen the new ones.
            self._offered = OfferedTickets()
        self._keys, self._statements = keys, presented.statements

    def draw_ahead(self) -> None:
        """In idle time."""
        self._for_offers.draw_one()
        self._for_answers.draw_one()

    def forget_old_tickets(self, now: float) -> None:
        """Once in a while; `now` as in `receiving`."""
        self._held.forget_old(now)
        self._offered.forget_old(now)

    def sending(self, flow: Flow) -> SendingContext:
        destination = Destination(flow.destination, flow.destination_port)
        pin = self.pins.pin_of(destination)
        refusal = None
        if self._is_always(flow):
            pass
        elif self._config.never and _concerned(self._config.never, flow):
            refusal = Reason.NEVER
        elif pin is None and self.pins.is_resting(destination):
            refusal = Reason.RECENTLY_FAILED
        return SendingContext(
            keys=self._keys,
            dialled=_dialled(flow.destination, flow.destination_port),
            pin=pin,
            today=_today(),
            entropy=os.urandom,
            draw_ephemerals=self._for_answers.take,
            tickets=self._held if self._config.tickets else None,
            refusal=refusal,
        )

    def receiving(self, flow: Flow, now: float) -> ReceivingContext:
        """Takes a handshake from the budget; `now` in seconds, of the clock that `began` was of."""
        unwanted = self._config.never + self._config.never_offer
        always = self._is_always(flow)
        source = self.sources.source_of(flow.source)
        counted = counted_as(flow, Role.RECEIVING)
        granted = self._handshakes.grants(counted, is_known=source.has_upgraded, now=now)
        return ReceivingContext(
            keys=self._keys,
            dialled=_dialled(flow.destination, flow.destination_port),
            own_addresses=self._is_own_address,
            today=_today(),
            entropy=os.urandom,
            draw_ephemerals=self._for_offers.take,
            tickets=TicketsOfPair(self._offered, flow.source, flow.destination)
            if self._config.tickets
            else None,
            draw_for_ticket=self._for_answers.take,
            endorsements=self._endorsements,
            statements=self._statements,
            may_offer=always or not (unwanted and _concerned(unwanted, flow)),
            overloaded=not granted,
            source=source,
            source_rests=not always and source.rest_until > 0 and source.rests(int(time.time())),
            offers_ignored=_never if always else partial(self._rests, flow),
            sender_of=self.sources.sender_of,
        )

    def _is_always(self, flow: Flow) -> bool:
        """The operator's word comes before every reason of ours to leave a session alone, but for limits."""
        return bool(self._config.always) and _concerned(self._config.always, flow)

    def _rests(self, flow: Flow) -> bool:
        if not self._config.offers_rest:
            return False
        return self.ignored.rests(flow.source, flow.source_port, self.sources.neighbourhood_of)

    def offers_ignored(self, source: str) -> tuple[int, bool]:
        """How many offers in a row it has ignored, and whether it gets fewer for that. Counts nothing."""
        count = self.ignored.in_a_row(source)
        if not self.ignored.has_ignored_many(source) or not self._config.offers_rest:
            return count, False
        return count, not GETS_AN_OFFER[Run.LONG][self.sources.neighbourhood_of(source)]

    def _is_own_address(self, dialled: DialledAddress) -> bool:
        return _listed(self._config.nat_addresses, dialled.address)


@lru_cache(maxsize=limits.ADDRESSES_CACHED)
def _dialled(address: str, port: int) -> DialledAddress:
    return DialledAddress.from_text(address, port)


def _today() -> int:
    return int(time.time()) // limits.DAY_SECONDS


@lru_cache(maxsize=limits.ADDRESSES_CACHED)
def _listed(networks: tuple[Network, ...], address: str) -> bool:
    if not networks:
        return False
    parsed = ip_address(address)
    return any(parsed in network for network in networks if network.version == parsed.version)


def _concerned(networks: tuple[Network, ...], flow: Flow) -> bool:
    """Whether either end is listed."""
    return _listed(networks, flow.source) or _listed(networks, flow.destination)


def _never() -> bool:
    return False
