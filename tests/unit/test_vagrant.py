"""The Vagrant lab without Vagrant: its names and addresses are the one table's, and bash can read it all."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from gateway.lab.topology import TABLE, Role, load

VAGRANT = Path(__file__).parents[2] / "vagrant"
TOPOLOGY = load()
SCRIPTS = sorted(VAGRANT.glob("**/*.sh"))
MACHINES = {node.name for node in TOPOLOGY.nodes.values() if node.role is not Role.WIRE}


def code(path: Path) -> str:
    """Without the lines that are comments."""
    return "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))


def test_the_vagrantfile_reads_the_table() -> None:
    (named,) = re.findall(r'File\.join\(__dir__, "([^"]+\.json)"\)', code(VAGRANT / "Vagrantfile"))
    assert (VAGRANT / named).resolve() == TABLE.resolve()


def test_the_vagrantfile_has_no_names_or_addresses_of_its_own() -> None:
    text = code(VAGRANT / "Vagrantfile")
    assert not [name for name in MACHINES if name in text]
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", text)) <= {"255.255.255.255"}
    assert not re.findall(r"[0-9a-f]+:[0-9a-f:]*::", text)


def test_what_runs_in_the_guests_knows_no_names_or_addresses() -> None:
    for name in ("network.sh", "provision.sh"):
        text = code(VAGRANT / name)
        assert not [machine for machine in MACHINES if machine in text]
        assert all(found.startswith("127.") for found in re.findall(r"\d+\.\d+\.\d+\.\d+", text))


def named(script: str) -> set[str]:
    return set(re.findall(r"\b(?:mta|gw)-[a-z]\b", code(VAGRANT / script)))


def test_the_proof_names_every_machine_and_no_other() -> None:
    assert named("prove.sh") == MACHINES


def test_the_proof_of_vlans_names_none_that_is_not_there() -> None:
    assert {"mta-a", "gw-a", "gw-b", "mta-b"} == named("prove-vlan.sh") <= MACHINES


def test_the_proof_on_a_mail_server_names_none_that_is_not_there() -> None:
    assert {"gw-b", "mta-b", "mta-c"} == named("prove-host.sh") <= MACHINES


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_executable_and_bash_can_read_it(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True, timeout=10)


def test_there_are_scripts() -> None:
    assert {script.name for script in SCRIPTS} >= {
        "lab.sh",
        "prove.sh",
        "prove-vlan.sh",
        "prove-host.sh",
        "build.sh",
    }
