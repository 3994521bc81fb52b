"""Many sites at once are one cause, and it is ours; few, or one site with many addresses, are theirs."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import limits
from gateway.policy.own_path import OwnPath

NOW, HOUR = 1_800_000_000, 3600


def site(number: int) -> bytes:
    return number.to_bytes(32, "big")


def came_without(path: OwnPath, number: int, now: int, network: int | None = None) -> int:
    """Each site in a network of its own, where nothing else is said."""
    return path.missing(site(number), (f"10.{number if network is None else network}.",), now)


def test_many_sites_within_an_hour() -> None:
    path = OwnPath()
    told = [came_without(path, number, NOW + number) for number in range(limits.MANY_MISSING + 2)]
    assert told == [0] * (limits.MANY_MISSING - 1) + [limits.MANY_MISSING + n for n in range(3)]


def test_one_site_with_many_addresses_is_one() -> None:
    path = OwnPath()
    assert not any(came_without(path, 1, NOW + number) for number in range(100))


def test_many_sites_of_one_network_are_one() -> None:
    """One host's identities, which it makes as it likes, must not take the alarm from another site."""
    path = OwnPath()
    for number in range(100):
        assert came_without(path, number, NOW, network=number % (limits.MANY_MISSING - 1)) == 0
    assert came_without(path, 200, NOW) == 101


def test_over_hours_is_theirs() -> None:
    path = OwnPath()
    told = [came_without(path, number, NOW + number * HOUR // 3) for number in range(50)]
    assert not any(told)


def test_while_most_sites_are_well_it_is_theirs() -> None:
    path = OwnPath()
    for number in range(100):
        path.well(site(number), NOW)
    assert not any(came_without(path, number, NOW + 60) for number in range(50))
    assert came_without(path, 50, NOW + 60) == 51


def test_good_news_of_an_hour_before_the_hour_counts() -> None:
    """A well peer is told of once an hour, so its word must hold until the next."""
    path = OwnPath()
    for number in range(100, 110):
        path.well(site(number), NOW)
    assert not any(came_without(path, number, NOW + 2 * HOUR - 1) for number in range(10))
    assert came_without(path, 10, NOW + 2 * HOUR) == 11


def test_a_site_that_is_well_again_is_not_missing() -> None:
    path = OwnPath()
    for number in range(limits.MANY_MISSING):
        came_without(path, number, NOW)
        path.well(site(number), NOW)
    assert came_without(path, 99, NOW) == 0


def test_a_clock_set_back_forgets() -> None:
    path = OwnPath()
    for number in range(limits.MANY_MISSING - 1):
        came_without(path, number, NOW)
    assert came_without(path, 99, NOW - 30 * 86400) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 4 * HOUR))))
def test_never_without_five_sites_and_a_majority(news: list[tuple[bool, int, int]]) -> None:
    path = OwnPath()
    last: dict[int, tuple[bool, int]] = {}
    for good, number, at in sorted(news, key=lambda one: one[2]):
        last[number] = good, at
        if good:
            path.well(site(number), NOW + at)
            continue
        many = came_without(path, number, NOW + at)
        lately = [n for n, (well, when) in last.items() if not well and at - when < HOUR]
        missing = [n for n, (well, _) in last.items() if not well]
        assert many == 0 or len(lately) <= many <= len(missing)
        well = [n for n, (well, when) in last.items() if well and at - when < 2 * HOUR]
        assert many == 0 or (many >= limits.MANY_MISSING and many > len(well))
        if len(lately) >= limits.MANY_MISSING and len(lately) > len(well):
            assert many


def test_once_ours_it_stays_so_through_a_quiet_night_until_most_are_well() -> None:
    path = OwnPath()
    for number in range(limits.MANY_MISSING):
        came_without(path, number, NOW)
    assert came_without(path, 1, NOW + 12 * HOUR) == limits.MANY_MISSING
    for number in range(3):
        path.well(site(number), NOW + 13 * HOUR)
    assert came_without(path, 4, NOW + 13 * HOUR) == 0
    assert came_without(path, 4, NOW + 14 * HOUR) == 0


def test_bounded() -> None:
    path = OwnPath()
    for number in range(limits.ALARM_CAUSES + 100):
        many = came_without(path, number, NOW)
    assert many == limits.ALARM_CAUSES
