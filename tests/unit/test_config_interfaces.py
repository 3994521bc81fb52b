"""Which interfaces are inside and outside where the file does not name them."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.config import (
    Config,
    FoundInterface,
    Placement,
    with_interfaces,
)
from gateway.config_text import ConfigurationError
from tests.unit.configured import loaded

ETH0, ETH1, ETH2 = FoundInterface("eth0", True), FoundInterface("eth1", False), FoundInterface("eth2", False)
DOWN = FoundInterface("sit0", False, is_up=False)
NETWORKS = (ip_network("192.0.2.0/24"),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nightmail.toml"


@pytest.mark.parametrize(
    ("config", "found", "inside", "outside"),
    [
        (Config(), [ETH0, ETH1], ("eth1",), ("eth0",)),
        (Config(), [ETH0, ETH1, DOWN], ("eth1",), ("eth0",)),
        (Config(inside=("eth0",)), [ETH0, ETH1], ("eth0",), ("eth1",)),
        (Config(outside=("eth1",)), [ETH0, ETH1], ("eth0",), ("eth1",)),
        (Config(inside=("eth1", "eth2"), outside=("eth0",)), [ETH0, ETH1, ETH2], ("eth1", "eth2"), ("eth0",)),
        (Config(inside=("sit0",), outside=("eth0",)), [ETH0, DOWN], ("sit0",), ("eth0",)),
        (Config(inside_networks=NETWORKS), [ETH0], ("eth0",), ("eth0",)),
        (Config(placement=Placement.HOST), [ETH0, ETH1, ETH2], (), ()),
        (Config(placement=Placement.HOST, outside=("eth1",)), [ETH0, ETH1], (), ("eth1",)),
        (Config(inside=("eth0",), inside_networks=NETWORKS), [ETH0], ("eth0",), ("eth0",)),
    ],
)
def test_interfaces_found(
    config: Config, found: list[FoundInterface], inside: tuple[str, ...], outside: tuple[str, ...]
) -> None:
    resolved = with_interfaces(config, found)
    assert (resolved.inside, resolved.outside) == (inside, outside)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (Config(), []),
        (Config(), [ETH0]),
        (Config(), [ETH0, ETH1, ETH2]),
        (Config(), [ETH1, ETH2]),
        (Config(), [ETH0, FoundInterface("eth1", True)]),
        (Config(inside=("eth1",)), [ETH0, ETH1, ETH2]),
        (Config(inside=("eth0", "eth1")), [ETH0, ETH1]),
        (Config(inside_networks=NETWORKS), [ETH0, ETH1]),
        (Config(inside_networks=NETWORKS), []),
    ],
)
def test_interfaces_not_told_apart(config: Config, found: list[FoundInterface]) -> None:
    with pytest.raises(ConfigurationError, match=r"interfaces\.inside, interfaces\.outside: name them"):
        with_interfaces(config, found)


def test_a_single_interface_is_mostly_a_mail_servers() -> None:
    with pytest.raises(ConfigurationError, match=r'on a mail server itself: placement = "host"$'):
        with_interfaces(Config(), [ETH0])


def test_named_interface_that_is_not_there() -> None:
    with pytest.raises(
        ConfigurationError, match=r"interfaces\.outside: no interface eth9 here; there are: eth0"
    ):
        with_interfaces(Config(inside=("eth0",), outside=("eth9",)), [ETH0])


def test_what_only_the_machine_knows_to_be_wrong_is_told_by_file_and_line(path: Path) -> None:
    config = loaded(path, '[interfaces]\ninside = ["eth0"]\noutside = [\n"eth9",\n]\n')
    with pytest.raises(ConfigurationError, match=rf"^{path}:4: interfaces\.outside: no interface eth9 here"):
        with_interfaces(config, [ETH0])
    with pytest.raises(ConfigurationError, match=rf"^{path}: interfaces\.inside, interfaces\.outside: name"):
        with_interfaces(loaded(path, ""), [ETH0])
    # Where there is no file the one to write is named.
    with pytest.raises(ConfigurationError, match=r"^/etc/nightmail/nightmail\.toml: interfaces\.inside, "):
        with_interfaces(Config(), [ETH0])
