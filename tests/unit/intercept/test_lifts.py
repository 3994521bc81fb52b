"""What was before us, noted in an interface's alias (255 octets), and read by whatever process undoes it.

And who loads br_netfilter.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import EnvironmentFailureError
from gateway.intercept.kernel import commands, iptables, lifts, sysctls
from gateway.intercept.kernel.lifts import _Former
from gateway.intercept.objects import FAMILIES

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}", fullmatch=True)
SEVERAL = st.lists(NAMES, max_size=4, unique=True).map(tuple)
SOME_FAMILIES = st.sampled_from([(), (4,), (6,), FAMILIES])


@given(
    former=st.builds(
        _Former,
        bridge=NAMES,
        made=st.booleans(),
        called=SOME_FAMILIES,
        filtered=SOME_FAMILIES,
        down=SEVERAL,
        with_ipv6=SEVERAL,
    )
)
def test_a_note_says_what_was_noted_and_fits(former: _Former) -> None:
    assert _Former.read(former.note()) == former
    assert len(former.note()) < 256


def test_a_note_of_a_later_version_is_understood_as_far_as_it_goes() -> None:
    read = _Former.read("nightmail: bridge=br0 made=1 tint=blue called=4")
    assert read == _Former("br0", made=True, called=(4,), filtered=())


class Modules:
    """A kernel whose switches come with the module; `modprobe` and `rule`: whether it comes by them."""

    def __init__(self, switches: Path, *, modprobe: bool, rule: bool) -> None:
        self.switches, self.asked, self.off = switches, list[str](), list[str]()
        self._by = {"modprobe": modprobe, "rule": rule}

    def load(self, how: str) -> None:
        self.asked.append(how)
        if not self._by[how]:
            raise EnvironmentFailureError(f"{how}: not permitted")
        self.switches.mkdir()


@pytest.mark.parametrize(
    ("modprobe", "rule", "asked"),
    [(True, True, ["modprobe"]), (False, True, ["modprobe", "rule"]), (False, False, ["modprobe", "rule"])],
)
def test_who_may_load_no_module_has_the_kernel_do_it(
    modprobe: bool, rule: bool, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the packaged service; and once it is loaded, no other bridge's frames are shown to iptables."""
    kernel = Modules(tmp_path / "bridge", modprobe=modprobe, rule=rule)
    monkeypatch.setattr(lifts, "_BR_NETFILTER", kernel.switches)
    monkeypatch.setattr(commands, "run", lambda command: kernel.load(command[0]))
    monkeypatch.setattr(iptables, "name_bridged_frames", lambda: kernel.load("rule"))
    monkeypatch.setattr(sysctls, "turn", lambda name, wanted: kernel.off.append(f"{name}={wanted}"))
    if modprobe or rule:
        lifts._load_br_netfilter()
        assert sorted(kernel.off) == [
            f"net/bridge/bridge-nf-call-{kind}=0" for kind in ("arptables", "ip6tables", "iptables")
        ]
    else:
        with pytest.raises(EnvironmentFailureError, match="br_netfilter is missing"):
            lifts._load_br_netfilter()
        assert not kernel.off
    assert kernel.asked == asked


def test_a_module_that_is_there_is_asked_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are its switches touched: they are the machine's."""
    kernel = Modules(tmp_path, modprobe=False, rule=False)
    monkeypatch.setattr(lifts, "_BR_NETFILTER", kernel.switches)
    monkeypatch.setattr(commands, "run", lambda command: kernel.load(command[0]))
    monkeypatch.setattr(sysctls, "turn", lambda name, wanted: kernel.off.append(f"{name}={wanted}"))
    lifts._load_br_netfilter()
    assert not kernel.asked + kernel.off
