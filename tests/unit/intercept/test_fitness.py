"""What keeps a kernel from being fit, said before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import Config
from gateway.intercept.kernel import fitness, sysctls

OF_THE_LINK = "fe80000000000000000000fffe000001 02 40 20 80     eth0\n"
GLOBAL = "20010db8000500000000000000000001 02 40 00 80     eth0\n"
ITS_OWN = "00000000000000000000000000000001 01 80 10 80       lo\n"


@pytest.mark.parametrize(
    ("addresses", "missed"),
    [(None, "4"), ("", "4"), (ITS_OWN + OF_THE_LINK, "4"), (OF_THE_LINK + GLOBAL, "46")],
)
def test_a_machine_without_ipv6_need_not_route_it(
    addresses: str | None, missed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "if_inet6"
    if addresses is not None:
        listed.write_text(addresses)
    monkeypatch.setattr(fitness, "_ADDRESSES6", listed)
    monkeypatch.setattr(fitness, "families", lambda: (4, 6))
    monkeypatch.setattr(fitness, "_untaken", lambda config: [])
    monkeypatch.setattr(sysctls, "value", lambda name: "0")
    told = fitness.remarks(Config(inside=("lan",), outside=("wan",)))
    assert [line.partition("does not route IPv")[2][0] for line in told] == list(missed)
