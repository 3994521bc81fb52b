"""`run`, `status`, `check`, `plan`, `up`, `down`; and the rules' whole life in a namespace (prefix nmc-)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.intercept.wanted import Wanted, Word, read_wanted, record_octets, record_word
from gateway.operator import check, lifecycle, planning
from gateway.runtime.supervisor import supervisor
from tests.unit.cli.asking import invoked
from tests.unit.operator.fake_daemon import STATUS, daemon


@pytest.mark.usefixtures("two_interfaces")
def test_run_gives_the_supervisor_a_resolved_configuration(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Config] = []

    def run(config: Config) -> int:
        given.append(config)
        return 0

    monkeypatch.setattr(supervisor, "run", run)
    assert invoked(file, "run").exit_code == 0
    assert (given[0].inside, given[0].outside) == (("lan",), ("wan",))


@pytest.mark.usefixtures("two_interfaces")
def test_run_that_cannot_start_is_one_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(config: Config) -> int:
        raise EnvironmentFailureError("not permitted")

    monkeypatch.setattr(supervisor, "run", run)
    result = invoked(file, "run")
    assert (result.exit_code, result.stderr) == (1, "nightmail: not permitted\n")


def test_run_without_interfaces_to_tell_apart_is_two(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "discover", list)
    assert invoked(file, "run").exit_code == 2


def test_status_of_a_running_daemon(file: Path) -> None:
    with daemon(file.parent / "run" / "control.sock", questions=2):
        text, facts = invoked(file, "status"), invoked(file, "status", "--json")
    assert text.exit_code == facts.exit_code == 0
    assert text.stdout.startswith("YES, mail to and from sites with a gateway is protected now\n")
    assert json.loads(facts.stdout) == {**STATUS, "running": True, "protecting": True}


def test_status_of_a_daemon_that_does_not_protect(file: Path) -> None:
    with daemon(file.parent / "run" / "control.sock", {**STATUS, "workers": []}):
        result = invoked(file, "status")
    assert result.exit_code == 1
    assert result.stdout.startswith("NO, ")
    with daemon(file.parent / "run" / "control.sock", {**STATUS, "workers": []}):
        assert json.loads(invoked(file, "status", "--json").stdout)["protecting"] is False


@pytest.mark.parametrize(("trouble", "status"), [("", 0), ("exit status 3", 1)])
def test_ring(file: Path, trouble: str, status: int) -> None:
    with daemon(file.parent / "run" / "control.sock", {"ways": {"mail": trouble}}, questions=2):
        text, facts = invoked(file, "ring"), invoked(file, "ring", "--json")
    assert text.exit_code == facts.exit_code == status
    assert text.stdout == (f"mail: FAILED, {trouble}\n" if trouble else "mail: went\n")
    assert json.loads(facts.stdout) == [{"by": "mail", "went": not trouble, "trouble": trouble}]


def test_status_without_a_daemon(file: Path) -> None:
    result = invoked(file, "status")
    assert result.exit_code == 1
    assert result.stdout.startswith("NO, mail passes in clear: no daemon is running")
    assert json.loads(invoked(file, "status", "--json").stdout) == {"running": False, "protecting": False}


def test_status_without_a_daemon_behind_a_down(file: Path) -> None:
    """A daemon alone would carry nothing. A word that cannot be read is the doctor's matter."""
    wanted = file.parent / "state" / "wanted.json"
    record_word(wanted, Word(Wanted.DOWN))
    assert (
        "(`nightmail down` was said: `nightmail up`, then `nightmail run`," in invoked(file, "status").stdout
    )
    record_octets(wanted, b"?")
    assert "(`nightmail run` starts it)" in invoked(file, "status").stdout


def test_check(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [check.Finding("tools", True, "there"), check.Finding("kernel", False, "does not route")]
    monkeypatch.setattr(check, "findings", lambda config: findings)
    result = invoked(file, "check")
    leads_on = f"1 BAD: `nightmail --config {file} doctor` names the command that mends it\n"
    assert result.stdout == f"ok   tools: there\nBAD  kernel: does not route\n{leads_on}"
    assert result.exit_code == 1
    assert json.loads(invoked(file, "check", "--json").stdout)[1]["good"] is False
    del findings[1]
    assert invoked(file, "check").exit_code == 0


@pytest.mark.usefixtures("two_interfaces")
def test_plan(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = planning.Plan(["add     ip -4 route x"], ["write   file f"], ["start   service s"], ["y"])
    asked: list[bool] = []

    def plan(config: Config, service: object, *, until_reboot: bool) -> planning.Plan:
        assert service is None, "the service reads another configuration"
        asked.append(until_reboot)
        return found

    monkeypatch.setattr(planning, "plan", plan)
    does = "add 1 route, 1 file or folder, start nightmail.service"
    in_all = f"in all: `up` would {does}; nothing of yours is removed"
    said = f"add     ip -4 route x\nwrite   file f\nstart   service s\n{in_all}\nnote: y\n"
    assert invoked(file, "plan").stdout == said
    told = json.loads(invoked(file, "plan", "--json", "--until-reboot").stdout)
    assert told == {
        "rules": ["add     ip -4 route x"],
        "files": ["write   file f"],
        "services": ["start   service s"],
        "remarks": ["y"],
        "summary": {"told": in_all, "adds": {"routes": 1, "files": 1}, "removes": {}},
    }
    assert asked == [False, True]
    for lines in (found.rules, found.files, found.services):
        lines.clear()
    assert invoked(file, "plan").stdout.startswith("nothing to change")


# --- In a kernel -------------------------------------------------------------------------------------------


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"nmc-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in (
            "link set lo up",
            "link add lan type bridge",
            "link add wan type bridge",
            "address add 192.0.2.1/24 dev lan",
            "address add 198.51.100.1/24 dev wan",
            "link set lan up",
            "link set wan up",
            "route add default via 198.51.100.254",
        ):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.mark.kernel
@pytest.mark.root
def test_rules_come_and_go(namespace: str, file: Path) -> None:
    def inside(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, timeout=60
        )

    def command(*words: str) -> str:
        done = inside(sys.executable, "-m", "gateway", "--config", str(file), *words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def rules() -> str:
        saved = [inside(tool).stdout for tool in ("iptables-save", "ip6tables-save")]
        kept = [line for text in saved for line in text.splitlines() if line.startswith(("-", ":NIGHT"))]
        return "\n".join([*kept, inside("nft", "list", "tables", "inet").stdout, inside("ip", "rule").stdout])

    wanted = file.parent / "state" / "wanted.json"
    before = rules()
    assert "add " in command("plan")
    assert rules() == before
    assert "rules are in place" in command("up")
    assert "NIGHTMAIL" in rules()
    assert read_wanted(wanted) is Wanted.UP
    assert command("plan").startswith("nothing to change")
    assert "rules are in place" in command("up")
    assert "rules are out" in command("down")
    assert rules() == before
    assert read_wanted(wanted) is Wanted.DOWN
    assert "rules are out" in command("down")
