"""What is kept of tickets: each serves once, ages, and they are never too many (docs/protocol.md, 4.6)."""

from __future__ import annotations

import pickle

import pytest

from gateway.crypto.keys import IdentityPublic
from gateway.crypto.messages import TICKET_NAME_OCTETS, TICKET_SECRET_OCTETS
from gateway.crypto.noise import NNPSK0, HandshakeState, NoiseRole
from gateway.crypto.primitives import X25519Private
from gateway.crypto.tickets import HeldTickets, OfferedTickets, Ticket, TicketsOfPair
from gateway.errors import LocalMisuseError
from gateway.policy import limits
from tests.unit.crypto.pairs import R_IDENTITY, octets

NOW = 5000.0
SOURCE, OTHER_SOURCE = "192.0.2.1", "192.0.2.2"
HERE, THERE = "198.51.100.1", "198.51.100.2"


def ticket(label: str = "one", root: float | None = None) -> Ticket:
    name, secret = octets(f"name {label}", TICKET_NAME_OCTETS), octets(label, TICKET_SECRET_OCTETS)
    return Ticket(name, secret, IdentityPublic(R_IDENTITY.public.octets), 20781, root)


def offered(*labels: str, source: str = SOURCE, destination: str = HERE) -> OfferedTickets:
    tickets = OfferedTickets()
    for label in labels:
        tickets.keep(source, destination, ticket(label), NOW)
    return tickets


# --- S: by name ---------------------------------------------------------------------------------------------
def test_a_held_ticket_is_found_by_its_name_once() -> None:
    held = HeldTickets()
    held.keep(ticket(), NOW)
    held.keep(ticket("two"), NOW)
    found = held.take(ticket().name, NOW)
    assert found is not None
    assert found.secret == ticket().secret
    assert held.take(ticket().name, NOW) is None
    assert len(held) == 1


def test_a_held_ticket_gets_too_old() -> None:
    """A little later than at R, so that what R has offered in its last second is found."""
    held, until = HeldTickets(), NOW + limits.TICKET_SECONDS + limits.TICKET_GRACE_SECONDS
    held.keep(ticket(), NOW)
    held.keep(ticket("two"), NOW)
    assert held.take(ticket().name, until - 0.1) is not None
    assert held.take(ticket("two").name, until) is None


def test_s_knows_whether_it_has_room() -> None:
    held = HeldTickets(capacity=2)
    for label, room in (("one", True), ("two", False), ("three", False)):
        held.keep(ticket(label), NOW)
        assert held.has_room == room
    assert held.take(ticket("three").name, NOW) is not None
    assert held.has_room


def test_the_oldest_of_too_many_held_ones_goes() -> None:
    held = HeldTickets(capacity=2)
    for label in ("one", "two", "three"):
        held.keep(ticket(label), NOW)
    assert held.take(ticket("one").name, NOW) is None
    assert held.take(ticket("two").name, NOW) is not None
    assert held.take(ticket("three").name, NOW) is not None


def test_old_ones_do_not_stay_in_memory() -> None:
    held, tickets = HeldTickets(), offered("one", "two")
    held.keep(ticket(), NOW)
    tickets.keep(OTHER_SOURCE, HERE, ticket("young"), NOW + 1)
    tickets.forget_old(NOW + limits.TICKET_SECONDS)
    held.forget_old(NOW + limits.TICKET_SECONDS + limits.TICKET_GRACE_SECONDS)
    assert (len(held), len(tickets)) == (0, 1)
    tickets.forget_old(NOW + limits.TICKET_SECONDS + 1)
    assert len(tickets) == 0
    assert not tickets._of


# --- Both: the full handshake that a ticket goes back to ----------------------------------------------------
@pytest.mark.parametrize("age", [0.0, 1000.0, limits.TICKET_ROOT_SECONDS - 100])
def test_a_ticket_ends_with_the_hour_of_its_full_handshake(age: float) -> None:
    """However often it was renewed meanwhile."""
    held, tickets = HeldTickets(), OfferedTickets()
    root = NOW - age
    until = min(NOW + limits.TICKET_SECONDS, root + limits.TICKET_ROOT_SECONDS)
    for now, there in ((until - 0.1, True), (until, False)):
        held.keep(ticket(root=root), NOW)
        tickets.keep(SOURCE, HERE, ticket(root=root), NOW)
        assert (held.take(ticket().name, now + limits.TICKET_GRACE_SECONDS) is not None) == there
        assert (tickets.take(SOURCE, HERE, now) is not None) == there


def test_a_ticket_of_a_full_handshake_begins_its_hour_when_it_is_kept() -> None:
    held, tickets = HeldTickets(), offered("one")
    held.keep(ticket(), NOW)
    for found in (held.take(ticket().name, NOW + 1), tickets.take(SOURCE, HERE, NOW + 1)):
        assert found is not None
        assert found.root == NOW


def test_keeping_an_inherited_ticket_does_not_make_it_younger() -> None:
    held = HeldTickets()
    held.keep(ticket(root=NOW - 3000), NOW)
    found = held.take(ticket().name, NOW)
    assert found is not None
    assert found.root == NOW - 3000


# --- R: by the two addresses --------------------------------------------------------------------------------
def test_an_offered_ticket_is_that_of_its_two_addresses() -> None:
    tickets = offered("one")
    assert tickets.take(OTHER_SOURCE, HERE, NOW) is None
    assert tickets.take(SOURCE, THERE, NOW) is None
    assert tickets.take(SOURCE, HERE, NOW) is not None
    assert tickets.take(SOURCE, HERE, NOW) is None
    assert len(tickets) == 0


def test_the_youngest_is_taken_first() -> None:
    tickets = offered("one", "two")
    names = [found.name for _ in range(2) if (found := tickets.take(SOURCE, HERE, NOW)) is not None]
    assert names == [ticket("two").name, ticket("one").name]


def test_where_the_youngest_is_too_old_all_are() -> None:
    tickets = offered("one", "two")
    assert tickets.take(SOURCE, HERE, NOW + limits.TICKET_SECONDS) is None
    assert len(tickets) == 0


def test_a_pair_has_so_many_at_most_and_loses_its_oldest() -> None:
    tickets = offered(*(f"number {n}" for n in range(limits.TICKETS_OF_A_PAIR + 1)))
    assert len(tickets) == limits.TICKETS_OF_A_PAIR
    names = set()
    while (found := tickets.take(SOURCE, HERE, NOW)) is not None:
        names.add(found.name)
    assert ticket("number 0").name not in names
    assert len(names) == limits.TICKETS_OF_A_PAIR


def test_of_too_many_in_all_the_source_that_was_silent_longest_loses_its_own() -> None:
    tickets = OfferedTickets(capacity=3)
    for source, label in ((SOURCE, "one"), (OTHER_SOURCE, "two"), (SOURCE, "three"), ("192.0.2.3", "four")):
        tickets.keep(source, HERE, ticket(label), NOW)
    assert len(tickets) == 3
    assert tickets.take(OTHER_SOURCE, HERE, NOW) is None
    assert tickets.take(SOURCE, HERE, NOW) is not None
    assert tickets.take("192.0.2.3", HERE, NOW) is not None


def test_a_source_that_did_not_take_one_loses_all_and_rests() -> None:
    tickets = offered("one")
    tickets.keep(SOURCE, THERE, ticket("two"), NOW)
    tickets.keep(OTHER_SOURCE, HERE, ticket("three"), NOW)
    tickets.not_taken(SOURCE, NOW)
    assert len(tickets) == 1
    tickets.keep(SOURCE, HERE, ticket("four"), NOW)
    assert tickets.take(SOURCE, HERE, NOW + limits.TICKETS_REST_SECONDS - 0.1) is None
    tickets.keep(SOURCE, HERE, ticket("five"), NOW + limits.TICKETS_REST_SECONDS)
    assert tickets.take(SOURCE, HERE, NOW + limits.TICKETS_REST_SECONDS) is not None
    assert tickets.take(OTHER_SOURCE, HERE, NOW) is not None


def test_resting_sources_are_bounded_and_forgotten() -> None:
    tickets = OfferedTickets(capacity=2)
    for number in range(3):
        tickets.not_taken(f"192.0.2.{number}", NOW)
    assert list(tickets._resting) == ["192.0.2.1", "192.0.2.2"]
    tickets.forget_old(NOW + limits.TICKETS_REST_SECONDS)
    assert not tickets._resting


def test_a_session_sees_those_of_its_own_two_addresses() -> None:
    tickets = OfferedTickets()
    of_pair, of_another = TicketsOfPair(tickets, SOURCE, HERE), TicketsOfPair(tickets, OTHER_SOURCE, HERE)
    of_pair.keep(ticket(), NOW)
    of_another.not_taken(NOW)
    assert of_another.take(NOW) is None
    assert of_pair.take(NOW) is not None


# --- The ticket itself --------------------------------------------------------------------------------------
def test_a_ticket_prints_and_travels_nowhere() -> None:
    secret = ticket()
    assert secret.secret.hex() not in repr(secret)
    assert repr(secret.secret)[2:-1] not in repr(secret)
    with pytest.raises(LocalMisuseError):
        pickle.dumps(secret)


def test_a_handshake_that_is_not_over_leaves_none() -> None:
    e = X25519Private(octets("e", 32))
    noise = HandshakeState(NNPSK0, NoiseRole.INITIATOR, b"", None, e, psk=bytes(32))
    noise.write_tokens()
    with pytest.raises(LocalMisuseError):
        Ticket.of(noise, IdentityPublic(R_IDENTITY.public.octets), 20781, None)
