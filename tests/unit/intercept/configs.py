"""A plain and a rich configuration for each placement."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from gateway.addresses import Ipset
from gateway.config import Config, Marks, Placement

PLAIN = Config(inside=("lan",), outside=("wan",))
RICH = Config(
    inside=("lan", "dmz"),
    outside=("wan", "ppp0"),
    always=(ip_network("192.0.2.7/32"), ip_network("2001:db8:7::/48")),
    never=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"), ip_network("198.51.100.9/32")),
    never_ipsets=(Ipset("traps", 4), Ipset("traps6", 6)),
    ports=(25, 2525),
    marks=Marks(0x0000FF00),
    table=77,
    zone=78,
    first_queue=100,
    first_listen_port=20000,
    workers=3,
)
HOST = replace(PLAIN, placement=Placement.HOST, inside=(), outside=())
RICH_HOST = replace(RICH, placement=Placement.HOST, inside=())
BRIDGE = replace(PLAIN, placement=Placement.BRIDGE, unfiltered=(4, 6))
RICH_BRIDGE = replace(
    RICH, placement=Placement.BRIDGE, bridge="br-mail", bridge_port="m0", bridge_interface="m1"
)
CONFIGS = {
    "plain": PLAIN,
    "rich": RICH,
    "host": HOST,
    "rich_host": RICH_HOST,
    "bridge": BRIDGE,
    "rich_bridge": RICH_BRIDGE,
}
EVERY_CONFIG = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
