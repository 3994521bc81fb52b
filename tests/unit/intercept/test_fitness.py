"""What keeps a kernel from being fit, said before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import Config
from gateway.intercept.kernel import fitness, nft, sysctls
from gateway.intercept.objects import NftTable

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


OURS = NftTable("table inet nightmail {\n}\n")


class Tools:
    """Shell scripts that stand for the tools, and write down what they were asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(self, name: str, script: str) -> None:
        path = self._folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self._folder}/asked\n{script}\n')
        path.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return (self._folder / "asked").read_text().splitlines()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    return Tools(tmp_path, monkeypatch)


def test_a_table_is_tried_where_no_queue_is(tools: Tools) -> None:
    tools.make("unshare", 'shift; exec "$@"')
    tools.make("nft", "cat >/dev/null; echo 'Error: no such thing' >&2; exit 1")
    assert nft.complaint(OURS) == "nft: Error: no such thing"
    assert tools.asked == ["unshare --net nft -c -f -", "nft -c -f -"]
    tools.make("nft", "grep -q '^table inet nightmail'")
    assert nft.complaint(OURS) is None


@pytest.mark.parametrize("stands", [True, False])
def test_where_there_is_no_such_place_one_that_stands_is_not_tried(tools: Tools, stands: bool) -> None:
    tools.make("unshare", "echo 'unshare: unshare failed: No space left on device' >&2; exit 1")
    listed = "echo table inet nightmail" if stands else "echo table inet another"
    tools.make("nft", f'if [ "$1" = list ]; then {listed}; else echo "Error: no" >&2; exit 1; fi')
    assert nft.complaint(OURS) == (None if stands else "nft: Error: no")
    assert ("nft -c -f -" in tools.asked) is not stands


def test_a_tool_that_is_missing_is_named(tools: Tools) -> None:
    tools.make("unshare", "echo 'unshare: failed to execute nft: No such file or directory' >&2; exit 127")
    assert nft.complaint(OURS) == "nft is not installed"
