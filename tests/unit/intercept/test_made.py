"""Whose a bridge is that we have made: ours until somebody shows that it is theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.intercept.kernel import made


class Link(dict[str, Any]):
    def get_attr(self, name: str) -> Any:
        return self.get(name)


class Kernel:
    """Interfaces, and the addresses of the bridge."""

    def __init__(self, alias: str | None, *addresses: str, ports: tuple[str, ...] = ("eth0", "eth1")) -> None:
        self._addresses = addresses
        self.links = {name: Link(index=n, IFLA_IFNAME=name, IFLA_MASTER=1) for n, name in enumerate(ports, 2)}
        self.links["br0"] = Link(index=1, IFLA_IFNAME="br0", IFLA_IFALIAS=alias)

    def get_addr(self, index: int) -> list[Link]:
        return [Link(IFA_ADDRESS=each) for each in self._addresses]

    def claims(self) -> list[str]:
        return made.claims(self, self.links, self.links["br0"], ["nm0", "nm1"])


OURS = made.alias(["eth0", "eth1"])


@pytest.fixture(autouse=True)
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(made, "_CONFIGURATIONS", (f"{tmp_path}/interfaces", f"{tmp_path}/network/*"))
    (tmp_path / "network").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("kernel", "claims"),
    [
        (Kernel(OURS), []),
        (Kernel(OURS, "fe80::1", ports=("eth0", "nm0")), []),
        (Kernel(None), ["it was made by another"]),
        (Kernel("the site's"), ["it was made by another"]),
        (Kernel(OURS, "192.0.2.1"), ["it has the address 192.0.2.1"]),
        (Kernel(OURS, ports=("eth0", "tap7")), ["it has the port tap7"]),
    ],
)
def test_who_has_shown_that_it_is_theirs(kernel: Kernel, claims: list[str]) -> None:
    assert kernel.claims() == claims


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        ("interfaces", "auto br0\niface br0 inet manual\n", True),
        ("interfaces", "# auto br0\nauto br01\n", False),
        ("network/br0.netdev", "[NetDev]\nName=br0\nKind=bridge\n", True),
        ("network/90.yaml", "network: {bridges: {br0: {interfaces: [eth0]}}}\n", True),
        ("network/eth0.network", "[Match]\nName=eth0\n", False),
    ],
)
def test_what_the_sites_own_configuration_names_is_the_sites(
    configured: Path, file: str, text: str, names: bool
) -> None:
    (configured / file).write_text(text)
    assert Kernel(OURS).claims() == ([f"{configured / file} names it"] if names else [])
