"""A bridge that tells VLANs apart, as pyroute2 shows one of Linux 6.1: the VLAN of frames without a tag.

The kernel of the lab has none; `vagrant/prove-vlan.sh` is the same on one that has.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel, ruleset
from gateway.intercept.kernel import lifts, nft, vlans
from gateway.intercept.objects import BridgeLift, NftTable
from tests.unit.intercept.configs import BRIDGE, RICH_BRIDGE

Flags = tuple[int, int]
BOTH, IN_ONLY, OUT_ONLY, TAGGED = 6, 2, 4, 0
RANGE_BEGINS, RANGE_ENDS = 8, 16
BRIDGE_INDEX = 2
LIFT = BridgeLift("br0", ("lan", "wan"), "nm0", "nm1", "02:4e:4d:00:00:19")


class Attributes(dict[str, Any]):
    """As one of pyroute2's messages: fields by index, attributes by these two."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)

    def get_attrs(self, name: str) -> list[Any]:
        return [self[name]] if name != "IFLA_BRIDGE_VLAN_INFO" else self[name]


class Kernel:
    """A bridge with these ports, each with its VLANs (number, flags); `aware`: None without such a kernel."""

    def __init__(self, aware: int | None, **ports: tuple[Flags, ...]) -> None:
        data = Attributes({} if aware is None else {"IFLA_BR_VLAN_FILTERING": aware})
        info = Attributes(IFLA_INFO_KIND="bridge", IFLA_INFO_DATA=data)
        bridge = Attributes(index=BRIDGE_INDEX, IFLA_IFNAME="br0", IFLA_LINKINFO=info)
        self.links: dict[str, Any] = {"br0": bridge}
        self._vlans = {BRIDGE_INDEX: ((1, BOTH),), **dict(enumerate(ports.values(), 4))}
        for index, name in enumerate(ports, 4):
            self.links[name] = Attributes(index=index, IFLA_IFNAME=name, IFLA_MASTER=BRIDGE_INDEX)
        self.joined: list[dict[str, Any]] = []

    def link(self, command: str, **asked: Any) -> list[Attributes]:
        assert (command, asked) == ("dump", {"family": socket.AF_BRIDGE, "ext_mask": 4})
        shown = []
        for index, known in self._vlans.items():
            each = [{"vid": number, "flags": flags} for number, flags in known]
            spec = Attributes(IFLA_BRIDGE_VLAN_INFO=each) if each else None
            shown.append(Attributes(index=index, IFLA_AF_SPEC=spec))
        return shown

    def vlan_filter(self, command: str, **words: Any) -> None:
        self.joined.append({"command": command, **words})

    def get_links(self) -> list[Any]:
        return list(self.links.values())

    def of(self, lift: BridgeLift = LIFT) -> int:
        return vlans.of(self, self.links["br0"], self.links, lift)

    def require(self, vlan: int) -> None:
        lifts._require_bridge(self, self.links, replace(LIFT, vlan=vlan), is_made_by_us=False)


PLAIN = Kernel(0, lan=((1, BOTH),), wan=((1, BOTH),))
ACCESS = Kernel(1, lan=((1, OUT_ONLY), (10, BOTH)), wan=((7, TAGGED), (10, BOTH), (20, 8), (4000, 16)))


@pytest.mark.parametrize(
    ("bridge", "vlan"),
    [
        (Kernel(None, lan=(), wan=()), 0),
        (PLAIN, 0),
        (Kernel(0, lan=((10, BOTH),), wan=((20, BOTH),)), 0),
        (Kernel(1, lan=((1, BOTH),), wan=((1, BOTH),)), 1),
        (ACCESS, 10),
        (Kernel(1, lan=((10, BOTH),), wan=((10, BOTH),), nm0=((1, BOTH),), tap7=((20, BOTH),)), 10),
    ],
    ids=["no-such-kernel", "plain", "plain-whatever-it-would-do", "default", "access", "other-ports"],
)
def test_the_vlan_of_frames_without_a_tag(bridge: Kernel, vlan: int) -> None:
    assert bridge.of() == vlan
    bridge.require(vlan)


@pytest.mark.parametrize(
    ("lan", "wan", "told"),
    [
        (((10, BOTH),), ((20, BOTH),), "lan in VLAN 10, wan in VLAN 20"),
        # A server's port, and a trunk that has its VLAN with a tag.
        (((10, BOTH),), ((1, BOTH), (10, TAGGED)), "lan in VLAN 10, wan in VLAN 1"),
        (((10, BOTH),), ((10, IN_ONLY), (1, OUT_ONLY)), "lan in VLAN 10, wan in none"),
        (((10, TAGGED),), ((10, TAGGED),), "lan in none, wan in none"),
        ((), ((2, RANGE_BEGINS), (4094, RANGE_ENDS)), "lan in none, wan in none"),
    ],
    ids=["two", "trunk", "tagged-on-its-way-out", "tagged", "nothing"],
)
def test_ports_that_have_none_in_common_are_refused(
    lan: tuple[Flags, ...], wan: tuple[Flags, ...], told: str
) -> None:
    bridge = Kernel(1, lan=lan, wan=wan)
    for vlan in (0, 1, 10):
        with pytest.raises(
            vlans.OtherVlansError, match=rf"^bridge\.name: br0 tells VLANs apart, .*: {told}$"
        ):
            bridge.require(vlan)


@pytest.mark.parametrize(
    ("bridge", "was", "told"),
    [
        (ACCESS, 1, "were in VLAN 1, and are in VLAN 10 now"),
        (ACCESS, 0, "were in no VLAN, and are in VLAN 10 now"),
        (PLAIN, 10, "were in VLAN 10, and are in no VLAN now"),
    ],
    ids=["another", "since", "no-more"],
)
def test_rules_for_another_vlan_are_told_from_those_for_this_one(bridge: Kernel, was: int, told: str) -> None:
    with pytest.raises(vlans.OtherVlansError, match=told):
        bridge.require(was)


def test_a_port_that_is_not_in_the_bridge_yet_is_not_asked() -> None:
    """Of a bridge that we have made; it is put in later."""
    bridge = Kernel(1, lan=((10, BOTH),), wan=())
    bridge.links["wan"]["IFLA_MASTER"] = None
    assert bridge.of() == 10


def test_our_port_joins_by_name_and_only_where_there_is_something_to_join() -> None:
    bridge = Kernel(
        1, lan=((10, BOTH),), wan=((10, BOTH),), nm0=((1, BOTH),), nm9=((1, OUT_ONLY), (10, BOTH))
    )
    assert [vlans.is_joined(bridge, bridge.links[name], 10) for name in ("nm0", "nm9")] == [False, True]
    assert vlans.is_joined(bridge, bridge.links["nm0"], 0)
    for vlan in (0, 10):
        vlans.join(bridge, 6, vlan)
    assert bridge.joined == [{"command": "add", "index": 6, "vlan_info": {"vid": 10, "flags": BOTH}}]


@pytest.mark.parametrize(("takes", "line"), [(True, True), (False, False)])
def test_what_the_machine_knows_goes_into_the_rules(
    takes: bool, line: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a kernel whose nft cannot ask for a VLAN gets no rule that asks."""

    def run(command: list[str], text: str) -> str:
        assert (command[:2], "hook" in text) == (["nft", "-c"], False), "it would drop what waits in queues"
        if "ibrpvid" in text and not takes:
            raise EnvironmentFailureError("nft: Operation not supported")
        return ""

    monkeypatch.setattr(nft, "run", lambda command, text: run(list(command), text))
    monkeypatch.setattr(lifts, "with_routes", lambda ask: ask(ACCESS))
    monkeypatch.setattr(lifts, "unfiltered", lambda lift: (4,))
    config = kernel.as_found(BRIDGE)
    assert (config.unfiltered, config.untagged_vlan, config.vlan_asked) == ((4,), 10, takes)
    rules = ruleset.render(config, ruleset.slots_of(config))
    assert [lift.vlan for lift in rules.of(BridgeLift)] == [10]
    assert guards(rules) == (
        ['iifname != { "lan", "wan" } meta ibrpvid != 10', "meta ibrpvid != 10"] if line else []
    )


def guards(rules: ruleset.RuleSet) -> list[str]:
    """What passes because of its VLAN, before any frame is learned from, or any SYN marked for the gate."""
    (text,) = (table.text for table in rules.of(NftTable) if table.family == "bridge")
    arriving = text[text.index("chain arriving") :]
    arriving = arriving[: arriving.index("}\n")]
    lines = [line.strip() for line in arriving[: arriving.index("goto learning")].splitlines()]
    return [
        line.removesuffix(" accept").partition(" meta mark set")[0]
        for line in lines
        if "ibrpvid" in line and line.endswith("accept")
    ]


def test_a_bridge_that_is_refused_is_in_no_vlan_for_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` and `plan` say why; what they render before never stands."""
    bridge = Kernel(1, lan=((10, BOTH),), wan=((20, BOTH),))
    monkeypatch.setattr(lifts, "with_routes", lambda ask: ask(bridge))
    assert lifts.vlan(LIFT) == 0
    assert "tells VLANs apart" in lifts.refusal(LIFT)
    bridge.links.pop("br0")
    assert lifts.vlan(LIFT) == 0


@pytest.mark.parametrize("config", [BRIDGE, RICH_BRIDGE], ids=["bridge", "rich_bridge"])
def test_what_is_for_us_leaves_by_no_other_port(config: Any) -> None:
    """However the bridge has lost the way to our port: flooded, it would be on the wire in clear."""
    (table,) = (each for each in ruleset.render(config, ()).of(NftTable) if each.family == "bridge")
    horizon = table.text[table.text.index("chain horizon") :]
    assert f'oifname != "{config.bridge_port}" ether daddr {LIFT.mac} counter drop' in horizon


def test_a_named_port_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Kernel(1, lan=((10, BOTH),), wan=((10, BOTH),))
    del bridge.links["wan"]
    monkeypatch.setattr(lifts, "with_routes", lambda ask: ask(bridge))
    assert lifts.vlan(LIFT) == 10
    assert lifts.refusal(LIFT) == "interfaces: no interface wan here"
