"""A worker's order is one packet: what would be cut off is refused before any worker is started."""

from __future__ import annotations

from dataclasses import make_dataclass
from ipaddress import ip_network
from typing import Any

import pytest

from gateway import config as configuration
from gateway.config import Config, Marks
from gateway.crypto.primitives import ED25519_SIGNATURE_OCTETS
from gateway.errors import EnvironmentFailureError
from gateway.policy import limits
from gateway.runtime.hardening import Confinement
from gateway.runtime.order import Order, Presented, heard, require_tellable, told


def listing(count: int) -> Config:
    return Config(never=tuple(ip_network(f"2001:db8:{number:x}::/48") for number in range(count)))


def ordered(config: Config) -> Order:
    statements = (bytes(300),) * limits.STATEMENTS_SHOWN
    presented = Presented(bytes(32), bytes(32), 20_000, 20_015, bytes(ED25519_SIGNATURE_OCTETS), statements)
    return Order(config, 31, 2531, (7, 8), 9, presented, Confinement(None, None))


def test_the_largest_configuration_that_is_taken_fits_in_an_order() -> None:
    most = next(count for count in range(0, 20_000, 100) if not _is_taken(listing(count + 100)))
    assert most >= 2000
    order = ordered(listing(most))
    assert len(told(order)) <= limits.LINK_MESSAGE_OCTETS


def test_a_larger_one_is_refused_in_one_line() -> None:
    with pytest.raises(EnvironmentFailureError, match=r"^the configuration comes to \d+ octets.*lists"):
        require_tellable(listing(20_000))


def test_an_order_is_heard_as_it_was_told() -> None:
    order = ordered(Config(ports=(25, 26), never=(ip_network("192.0.2.0/24"),), marks=Marks(0xFF)))
    there = heard(told(order))
    assert (there.config, there.slot, there.listeners) == (order.config, order.slot, order.listeners)
    assert there.presented.as_json() == order.presented.as_json()
    assert there.confinement == order.confinement


def test_one_of_another_version_is_heard_as_far_as_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind an upgrade that no reload has followed, the supervisor's next worker is of the new version."""
    names = [("mood", str), ("never", tuple), ("ports", tuple), ("user", str)]
    other: Any = make_dataclass(
        "Config", names, frozen=True, slots=True, namespace={"__module__": Config.__module__}
    )
    never = (ip_network("192.0.2.0/24"),)
    with monkeypatch.context() as then:
        then.setattr(configuration, "Config", other)
        octets = told(ordered(other("good", never, (25, 26), "mail")))
    assert heard(octets).config == Config(never=never, ports=(25, 26), user="mail")


def _is_taken(config: Config) -> bool:
    try:
        require_tellable(config)
    except EnvironmentFailureError:
        return False
    return True
