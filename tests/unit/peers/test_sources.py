"""What follows for a client from what a session has seen of it."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.peers.sources import (
    Sender,
    Source,
    after_drop,
    after_endorsement,
    after_going_on,
    after_upgrade,
    beginnings,
    greeting_name,
    is_another,
)
from gateway.policy import limits
from tests.unit.peers.pinned import NOW

TODAY = NOW // 86400
BLANK = Source("192.0.2.1")
MAIL = b"mail.a.example"


def test_two_drops_in_a_row_and_it_rests_for_a_day() -> None:
    once = after_drop(BLANK, NOW)
    assert not once.rests(NOW)
    twice = after_drop(once, NOW)
    assert twice.rests(NOW)
    assert twice.rests(NOW + limits.SOURCE_REST_SECONDS - 1)
    assert not twice.rests(NOW + limits.SOURCE_REST_SECONDS)
    assert not twice.rests(NOW - 1), "a clock set back must not prolong the rest"


def test_going_on_in_between_begins_anew() -> None:
    source = after_drop(after_going_on(after_drop(BLANK, NOW), NOW), NOW)
    assert source.drops == 1
    assert not source.rests(NOW)


def test_after_the_rest_one_more_drop_is_enough() -> None:
    source = after_drop(after_drop(BLANK, NOW), NOW)
    later = NOW + limits.SOURCE_REST_SECONDS
    assert after_drop(source, later).rests(later)


def test_one_that_has_upgraded_never_rests() -> None:
    source = after_upgrade(BLANK, MAIL, TODAY)
    assert after_drop(source, NOW) is source
    assert not after_upgrade(after_drop(after_drop(BLANK, NOW), NOW), MAIL, TODAY).rests(NOW)


def test_an_upgrade_is_written_once_a_day_and_for_another_name() -> None:
    source = after_upgrade(BLANK, MAIL, TODAY)
    assert source.has_upgraded
    assert after_upgrade(source, MAIL, TODAY) is source
    assert after_upgrade(source, MAIL, TODAY + 1).upgraded_day == TODAY + 1
    assert after_upgrade(source, b"other", TODAY).name == b"other"


def test_going_on_costs_nothing_without_a_drop() -> None:
    assert after_going_on(BLANK, NOW) is BLANK


def test_the_highest_epoch_is_kept() -> None:
    sender = after_endorsement(Sender(b"A" * 32), 20_000, TODAY)
    assert (sender.epoch, sender.seen_day) == (20_000, TODAY)
    assert after_endorsement(sender, 19_999, TODAY) is sender
    assert after_endorsement(sender, 19_999, TODAY + 1).epoch == 20_000
    assert after_endorsement(sender, 20_001, TODAY).epoch == 20_001


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"EHLO Mail.A.example\r\n", MAIL),
        (b"helo mail.a.example and more\r\n", MAIL),
        (b"EHLO\r\n", b""),
        (b"", b""),
        (b"EHLO " + b"a" * 900 + b"\r\n", b"a" * 255),
    ],
)
def test_the_name_in_a_greeting(line: bytes, name: bytes) -> None:
    assert greeting_name(line) == name


def test_another_mailer_is_one_with_another_name() -> None:
    source = after_upgrade(BLANK, MAIL, TODAY)
    assert not is_another(source, MAIL)
    assert is_another(source, b"printer")
    assert not is_another(source, b""), "who says no name is not known to be another"
    assert not is_another(BLANK, MAIL)


WORDS = st.sampled_from(["upgrade", "drop", "go-on", "tomorrow"])


@given(st.lists(WORDS, max_size=60))
def test_it_rests_if_and_only_if_the_last_two_were_drops_and_it_never_upgraded(words: list[str]) -> None:
    source, now, row, upgraded, since = BLANK, NOW, 0, False, NOW
    for word in words:
        if word == "tomorrow":
            now += limits.DAY_SECONDS
        elif word == "upgrade":
            source, upgraded = after_upgrade(source, MAIL, now // 86400), True
        elif word == "drop":
            source, row, since = after_drop(source, now), row + 1, now
        else:
            source, row = after_going_on(source, now), 0
        fresh = now - since < limits.SOURCE_REST_SECONDS
        assert source.rests(now) == (row >= limits.SOURCE_DROPS_IN_A_ROW and not upgraded and fresh)
        assert 0 <= source.drops <= limits.SOURCE_DROPS_IN_A_ROW
        assert source.has_upgraded == upgraded


# --- Neighbours ---------------------------------------------------------------------------------------------

PARTS = st.one_of(st.just(0), st.integers(0, 0xFFFF))


def near(one: str, other: str) -> bool:
    return other.startswith(beginnings(one))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 31))
def test_neighbours_of_an_ipv4_address_share_24_bits(one: int, noise: int, kept: int) -> None:
    other = one ^ (noise >> kept)
    first, second = str(IPv4Address(one)), str(IPv4Address(other))
    assert near(first, second) is (one >> 8 == other >> 8)


@given(
    st.integers(1, 0xFFFF),
    st.tuples(PARTS, PARTS),
    st.tuples(PARTS, PARTS),
    st.tuples(*[PARTS] * 5),
    st.data(),
)
def test_neighbours_of_an_ipv6_address_share_48_bits(
    first: int, mine: tuple[int, int], theirs: tuple[int, int], rest: tuple[int, ...], data: st.DataObject
) -> None:
    """However their texts leave out zeros."""
    one = ":".join(f"{part:x}" for part in (first, *mine, *data.draw(st.tuples(*[PARTS] * 5))))
    other = str(IPv6Address(":".join(f"{part:x}" for part in (first, *theirs, *rest))))
    assert near(str(IPv6Address(one)), other) is (mine == theirs)


@pytest.mark.parametrize("prefix", ["64:ff9b::", "64:ff9b:1::", "64:ff9b:1:2:3:4::"])
@given(st.integers(2**16, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 31))
def test_neighbours_of_an_ipv4_address_behind_a_translator_share_16_bits(
    prefix: str, one: int, noise: int, kept: int
) -> None:
    """All of IPv4 is no network: there are many sites in it."""
    other = one ^ (noise >> kept)
    first, second = (str(IPv6Address(int(IPv6Address(prefix)) | ipv4)) for ipv4 in (one, other))
    assert near(first, second) is (one >> 16 == other >> 16)


@pytest.mark.parametrize("address", ["::1", "::ffff:192.0.2.1", "64:ff9b::201", "64:ff9b:1:c000:2:100::"])
def test_what_is_no_sites_address_has_no_neighbours(address: str) -> None:
    assert beginnings(address) == ()
