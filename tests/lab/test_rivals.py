"""The bench's rivals really stand, carry mail encrypted where they say so, and leave nothing behind."""

from __future__ import annotations

import os

import pytest

from bench import delivery, load, planes
from bench.rivals import holding, measures
from bench.rivals.variants import Rival, stand_all
from gateway.lab import network

pytestmark = pytest.mark.timeout(120)

OTHERS = [Rival.HAPROXY, Rival.STUNNEL, Rival.POSTFIX]
MAILS = 3


def test_each_rival_carries_mail_from_end_to_end_and_is_gone_afterwards() -> None:
    owner = f"test{os.getpid()}"
    body = delivery.body_of(4096)
    with planes.standing(owner, OTHERS) as standing:
        stand_all(standing)
        for variant, plane in standing.items():
            with load.sink(plane):
                for number in range(MAILS):
                    assert measures.delivered(plane, variant, body, 0, number) > 0
                paced = measures.paced(plane, variant, 5.0, 1.0, number)
                assert paced and None not in paced
                with holding.held(plane, 2):
                    assert plane.gateway_pids("gw-a")
            if variant.made.sealed is not None:
                assert variant.made.sealed(plane) >= MAILS
        names = [name for plane in standing.values() for name in plane.namespaces]
        assert network.existing(names)
    assert not network.existing(names)
