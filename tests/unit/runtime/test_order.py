"""A worker's order is one packet: what would be cut off is refused before any worker is started."""

from __future__ import annotations

import pickle
from ipaddress import ip_network

import pytest

from gateway.config import Config
from gateway.crypto.primitives import ED25519_SIGNATURE_OCTETS
from gateway.errors import EnvironmentFailureError
from gateway.policy import limits
from gateway.runtime.hardening import Confinement
from gateway.runtime.order import Order, Presented, require_tellable


def listing(count: int) -> Config:
    return Config(never=tuple(ip_network(f"2001:db8:{number:x}::/48") for number in range(count)))


def test_the_largest_configuration_that_is_taken_fits_in_an_order() -> None:
    most = next(count for count in range(0, 20_000, 100) if not _is_taken(listing(count + 100)))
    assert most >= 2000
    statements = (bytes(300),) * limits.STATEMENTS_SHOWN
    presented = Presented(bytes(32), bytes(32), 20_000, 20_015, bytes(ED25519_SIGNATURE_OCTETS), statements)
    order = Order(listing(most), 31, 2531, (7, 8), 9, presented, Confinement(None, None))
    assert len(pickle.dumps(order)) <= limits.LINK_MESSAGE_OCTETS


def test_a_larger_one_is_refused_in_one_line() -> None:
    with pytest.raises(EnvironmentFailureError, match=r"^the configuration comes to \d+ octets.*lists"):
        require_tellable(listing(20_000))


def _is_taken(config: Config) -> bool:
    try:
        require_tellable(config)
    except EnvironmentFailureError:
        return False
    return True
