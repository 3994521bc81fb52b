"""Troubles of the machine that the doctor cannot be shown by one command each, and mended by another.

Some are made for the doctor's eyes alone, in mounts of its own or by a program that stands in for another: a
kernel without a module, a full table of connections and a wrong clock would be those of the whole machine.
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.operator.doctor.table import CHECKS
from tests.lab import test_doctor
from tests.lab.examined import SOURCE, Site, standing
from tests.lab.own_namespaces import WITHOUT_ROOTS_TOOLS

DAY = 86_400
NOBODY = (
    "setpriv --reuid=65534 --regid=65534 --clear-groups"
    " --inh-caps=-all,+dac_read_search --ambient-caps=+dac_read_search"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with standing(tmp_path_factory.mktemp("site")) as here:
        yield here


def found(check: str, troubles: list[dict[str, str]]) -> dict[str, str]:
    """The one trouble of this check."""
    (one,) = [one for one in troubles if one["check"] == check]
    assert "\n" not in one["what"] + one["why"] + one["mend"]
    return one


def is_gone(check: str, site: Site) -> bool:
    return not [one for one in site.troubles() if one["check"] == check]


def test_not_root(site: Site) -> None:
    """Nobody, who may read this source tree wherever it lies."""
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder, "nightmail.toml")
        shutil.copy(site.configuration, configuration)
        for path in (configuration, Path(folder)):
            path.chmod(0o755)
        command = f"nightmail --config {configuration} doctor"
        told = site.shell(f"{NOBODY} {command} --json", must=False)
        assert told.returncode == 1, told.stderr
        trouble = found("privileges", json.loads(told.stdout)["troubles"])
        assert trouble["what"].startswith("this is not root")
        assert trouble["mend"] == f"sudo {command}"
        site.shell(command)


def test_tools_missing(site: Site) -> None:
    """Those that are named are in the packages that the command installs."""
    path = site.folder / "few"
    path.mkdir()
    for name in ("sh", "env", "nsenter"):
        (path / name).symlink_to(str(shutil.which(name)))
    command = f"{site.folder}/bin/nightmail --config {site.configuration} doctor --json"
    hidden = f"{WITHOUT_ROOTS_TOOLS}; PATH={path} {command}"
    told = site.shell(f"unshare --mount sh -c '{hidden}'", must=False)
    trouble = found("tools", json.loads(told.stdout)["troubles"])
    named = trouble["what"].removeprefix("not installed: ").split(", ")
    assert {"iptables-restore", "nft"} <= set(named)
    packages = trouble["mend"].removeprefix("apt-get install -y ").split()
    for tool in named:
        file = Path(str(shutil.which(tool))).resolve().name
        owners = site.shell(f"dpkg-query -S '*bin/{file}'").stdout
        assert {line.split(":")[0] for line in owners.splitlines()} & set(packages), f"{tool}: {owners}"


def test_inside_without_an_address(site: Site) -> None:
    site.shell("ip address flush dev lan")
    try:
        told = site.until("it is not named", lambda troubles: [t for t in troubles if t["check"] == "inside"])
        assert found("inside", told)["mend"].startswith("# give lan its address")
    finally:
        site.shell("ip address add 10.1.0.1/24 dev lan; ip address add fd00:1::1/64 dev lan nodad")
    site.until("it is not mended", lambda troubles: not troubles)


def test_another_version_is_installed(site: Site, tmp_path: Path) -> None:
    """As a package does it: the files are new, the daemon is the one before."""
    shutil.copytree(SOURCE / "gateway", tmp_path / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SOURCE / "iptables", tmp_path / "iptables")
    text = tmp_path / "gateway" / "__init__.py"
    text.write_text(text.read_text().replace('__version__ = "', '__version__ = "9.'))
    program = site.folder / "program"
    program.unlink()
    program.symlink_to(tmp_path)
    try:
        trouble = found("version", site.troubles())
        assert "and 9." in trouble["what"]
        site.shell(trouble["mend"])
        site.until("it is not mended", lambda troubles: not troubles)
    finally:
        program.unlink()
        program.symlink_to(SOURCE)
        site.shell(f"nightmail --config {site.configuration} reload")


def test_a_table_of_connections_without_room(site: Site) -> None:
    """The true one is the whole machine's."""
    switch = "/proc/sys/net/netfilter/nf_conntrack_max"
    with site.own_mounts() as here:
        here.shell(f"echo 1000 >{site.folder}/max; mount --bind {site.folder}/max {switch}")
        trouble = found("conntrack-room", here.troubles())
        assert "has room for 1000 only" in trouble["what"]
        here.shell(trouble["mend"])
        assert is_gone("conntrack-room", here)


def test_a_clock_that_is_behind(site: Site) -> None:
    """The doctor's own: what it would have to be mended by sets the whole machine's."""
    skew = site.folder / "clock"
    injected = SOURCE / "bench" / "chaos" / "injected"
    doctor = f"{sys.executable} -m gateway --config {site.configuration} doctor --json"
    for days, wrong in ((-3, True), (0, False)):
        skew.write_bytes(struct.pack("d", days * DAY))
        told = site.shell(f"NIGHTMAIL_CHAOS_CLOCK={skew} PYTHONPATH={injected}:{SOURCE} {doctor}", must=False)
        troubles = json.loads(told.stdout)["troubles"]
        assert [one["check"] for one in troubles] == ["clock"] * wrong
        for one in troubles:
            assert one["what"].startswith("the clock is wrong")
            assert one["mend"].split()[0] in ("timedatectl", "chronyd")


def test_a_kernel_that_takes_no_rules(site: Site) -> None:
    """Said by a stand-in, in nft's own words where a module is missing; it goes as a missing module does."""
    says = "Could not process rule: No such file or directory"
    daemon = site.pids()["daemon"]
    stand_in = site.folder / "bin" / "nft"
    site.shell(f"kill -STOP {daemon}; iptables -w -t raw -F NIGHTMAIL-PREROUTING")
    try:
        else_true = f'[ "$1" = -c ] || exec {shutil.which("nft")} "$@"'
        stand_in.write_text(f"#!/bin/sh\n{else_true}\necho 'Error: {says}' >&2\nexit 1\n")
        stand_in.chmod(0o755)
        trouble = found("kernel", site.troubles())
        assert says in trouble["what"]
        assert trouble["mend"].startswith("modprobe -a ")
        stand_in.unlink()
        site.shell(trouble["mend"], must=False)  # a kernel that has all of them built in has no modprobe
        assert is_gone("kernel", site)
    finally:
        stand_in.unlink(missing_ok=True)
        site.shell(f"kill -CONT {daemon}")
    site.until("it is not mended", lambda troubles: not troubles)


def test_a_kernel_without_br_netfilter(site: Site) -> None:
    """Its switches are hidden, and modprobe knows no such module; then it does."""
    bridged = site.beside("no-bridge", **{"version = 1": 'version = 1\nplacement = "bridge"'})
    (bridged.folder / "bin").unlink()
    shutil.copytree(site.folder / "bin", bridged.folder / "bin")
    stand_in = bridged.folder / "bin" / "modprobe"
    stand_in.write_text("#!/bin/sh\nexit 1\n")
    stand_in.chmod(0o755)
    with bridged.own_mounts() as here:
        here.shell("mount -t tmpfs none /proc/sys/net")
        trouble = found("bridge", here.troubles())
        assert "br_netfilter" in trouble["what"]
        assert trouble["mend"] == "modprobe br_netfilter"
        stand_in.write_text("#!/bin/sh\n")
        here.shell("umount /proc/sys/net")
        here.shell(trouble["mend"])
        # Then this router is told why it cannot be a bridge.
        assert "in a new bridge br0: make the bridge first" in found("bridge", here.troubles())["what"]


def test_a_program_for_alarms_that_is_not_there(site: Site) -> None:
    ring = site.folder / "ring"
    alarmed = site.beside("alarmed", **{"version = 1": f'version = 1\n[alarms]\ncommand = ["{ring}"]'})
    assert f"alarms.command: {ring} is no program here" in found("alarms", alarmed.troubles())["what"]
    ring.write_text("#!/bin/sh\n")
    ring.chmod(0o755)
    assert is_gone("alarms", alarmed)


@pytest.mark.parametrize("version", [4, 6])
def test_a_set_that_the_kernel_does_not_have(site: Site, version: int) -> None:
    kind = {4: "ipset", 6: "ipset6"}[version]
    key = f'[exceptions]\nnever = ["{kind}:traps"]'
    listed = site.beside(f"listed-{kind}", **{"version = 1": f"version = 1\n{key}"})
    trouble = found("sets", listed.troubles())
    assert f"a set that the kernel does not have: {kind}:traps" in trouble["what"]
    listed.shell(trouble["mend"])
    try:
        assert is_gone("sets", listed)
        said = listed.shell(f"nightmail --config {listed.configuration} check", must=False).stdout
        assert "ok   kernel" in said, "a set of this kind is what the rules ask for"
    finally:
        listed.shell("ipset destroy traps")


ELSEWHERE = {
    "sets": test_a_set_that_the_kernel_does_not_have,
    "privileges": test_not_root,
    "tools": test_tools_missing,
    "alarms": test_a_program_for_alarms_that_is_not_there,
    "inside": test_inside_without_an_address,
    "version": test_another_version_is_installed,
    "conntrack-room": test_a_table_of_connections_without_room,
    "clock": test_a_clock_that_is_behind,
    "kernel": test_a_kernel_that_takes_no_rules,
    "bridge": test_a_kernel_without_br_netfilter,
    "bridge-nf": test_doctor.test_frames_of_a_bridge,
    "ports": test_doctor.test_numbers_of_other_programs,
}
"""Checks whose trouble is none of `test_doctor.CASES`."""


def test_each_check_has_its_trouble() -> None:
    assert {case.check for case in test_doctor.CASES} | set(ELSEWHERE) == {*CHECKS, "connection"}
