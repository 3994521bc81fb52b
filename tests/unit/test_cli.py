"""Exit statuses, one-line errors, help, JSON; and the rules' whole life in a namespace (prefix nmc-)."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from gateway import __version__, cli
from gateway.cli import nightmail, shell
from gateway.config import Config, FoundInterface
from gateway.crypto.keys import IdentityKey
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel
from gateway.intercept.wanted import Wanted, read_wanted
from gateway.operator import check, lifecycle, planning
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.store import PinStore
from gateway.runtime.identity_file import load_or_make
from gateway.runtime.supervisor import supervisor
from tests.unit.operator.fake_daemon import STATUS, daemon

HERE = Destination("192.0.2.7", 25)
OLD, NEW = IdentityKey.from_seed(b"o" * 32).public, IdentityKey.from_seed(b"n" * 32).public
NOW = 1_800_000_000
NOBODY = 65534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nightmail.toml"
    path.write_text(f'[daemon]\nstate_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n')
    (tmp_path / "state").mkdir(mode=0o700)
    return path


@pytest.fixture
def two_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        lifecycle, "discover", lambda: [FoundInterface("wan", True), FoundInterface("lan", False)]
    )


def invoked(file: Path, *words: str) -> Result:
    result = CliRunner().invoke(nightmail, ["--config", str(file), *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def remember(file: Path) -> None:
    with PinStore(file.parent / "state" / "peers.db") as store:
        store.remember(HERE, MetPeer(OLD.octets, 20_000, True), NOW)
        store.remember(HERE, MetPeer(NEW.octets, 20_000, True), NOW)


def pinned(file: Path) -> Any:
    with PinStore(file.parent / "state" / "peers.db") as store:
        return store.lookup(HERE)


# --- The frame -----------------------------------------------------------------------------------------


def all_commands() -> Iterator[tuple[list[str], click.Command]]:
    pending: list[tuple[list[str], click.Command]] = [([], nightmail)]
    while pending:
        words, command = pending.pop()
        yield words, command
        if isinstance(command, click.Group) and words != ["lab"]:
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                pending.append(([*words, name], inner))


def test_the_commands_are_these() -> None:
    found = {" ".join(words) for words, _ in all_commands()}
    assert found >= {
        "run", "check", "plan", "up", "down", "status", "lab", "identity show",
        "peers list", "peers show", "peers forget", "peers accept",
    }  # fmt: skip


def test_every_command_and_option_has_help() -> None:
    for words, command in all_commands():
        assert command.help or command.short_help, words
        for parameter in command.params:
            if isinstance(parameter, click.Option) and words[:1] != ["lab"]:
                assert parameter.help, (words, parameter.name)


def test_help_needs_no_configuration() -> None:
    for words, _ in all_commands():
        if words != ["lab"]:
            result = CliRunner().invoke(nightmail, ["--config", "/nowhere", *words, "--help"])
            assert result.exit_code == 0, result.output


@pytest.mark.parametrize("words", [[], ["peers"], ["identity"], ["lab"]])
def test_no_command_is_described_by_half_a_sentence(words: list[str]) -> None:
    _, listed = CliRunner().invoke(nightmail, [*words, "--help"], terminal_width=80).output.split("Commands:")
    assert "..." not in listed


def ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["nightmail", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out, captured.err


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(monkeypatch, capsys, "--version") == (0, f"nightmail {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nonsense"], 2, "No such command"),
        (["peers", "show"], 2, "Missing argument"),
        (["status", "--nonsense"], 2, "No such option"),
        (["peers", "show", "mx.example.org"], 2, "not an address; allowed: 192.0.2.7"),
        (["--config", "/nowhere/file", "status"], 2, "/nowhere/file: cannot be read"),
        (["nonsense"], 2, "(`nightmail --help` says what there is)"),
        (["help", "nonsense"], 2, "No such command 'nonsense'"),
        (["stat"], 2, "Did you mean 'status'?"),
        (["peers", "show"], 2, "(`nightmail peers show --help` says what there is)"),
        (["status", "--config", "/x"], 2, "before the command: `nightmail --config FILE status`"),
    ],
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    status, out, err = ended(monkeypatch, capsys, *words)
    assert (status, out) == (code, "")
    assert err.startswith("nightmail: ")
    assert message in err
    assert err.count("\n") == 1


def test_no_command_shows_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = ended(monkeypatch, capsys)
    assert code == 2
    assert "Commands:" in err


@pytest.mark.parametrize(
    ("words", "same"),
    [([], ["--help"]), (["up"], ["up", "--help"]), (["peers", "show"], ["peers", "show", "--help"])],
)
def test_help_is_a_command_too(words: list[str], same: list[str]) -> None:
    result = CliRunner().invoke(nightmail, ["help", *words])
    assert (result.exit_code, result.stdout) == (0, CliRunner().invoke(nightmail, same).stdout)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A configuration that anybody may read, with a state that only root may."""
    folder = Path(tempfile.mkdtemp(prefix="nmcli-"))
    folder.chmod(0o755)
    path = folder / "nightmail.toml"
    path.write_text(f'[daemon]\nstate_dir = "{folder}/state"\nrun_dir = "{folder}/run"\n')
    (folder / "state").mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.parametrize(
    "words",
    [
        "peers list",
        "peers show 192.0.2.7",
        "peers forget 192.0.2.7",
        "identity show",
        "explain 192.0.2.7",
        "down",
    ],
)
def test_who_is_not_root_is_told_so(shared: Path, words: str) -> None:
    result = as_nobody(shared, *words.split())
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"nightmail: \S+: [^:]*(: )?Permission denied: run as root\n", result.stderr), (
        result.stderr
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.usefixtures("two_interfaces")
def test_who_is_not_root_still_hears_what_can_be_seen(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "remarks", lambda config: [])
    assert as_nobody(shared, "status").stdout.startswith("NO, mail passes in clear: no daemon is running")
    told = as_nobody(shared, "check").stdout
    assert "BAD  privileges: not root" in told
    assert f"BAD  peers: {shared.parent}/state/peers.db: Permission denied" in told
    assert "1. this is not root" in as_nobody(shared, "doctor").stdout


def as_nobody(file: Path, *words: str) -> Result:
    invoked(file, *words)  # so that nothing is left to import from where nobody may read
    for left in (file.parent / "state").iterdir():
        left.unlink()
    os.seteuid(NOBODY)
    try:
        return invoked(file, *words)
    finally:
        os.seteuid(0)


def test_a_bug_of_ours_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    def broken(config: Config) -> None:
        raise ZeroDivisionError("unexpected\nhere")

    monkeypatch.setattr(check, "findings", broken)
    code, _, err = ended(monkeypatch, capsys, "--config", str(file), "check")
    assert code == 1
    assert err.startswith("nightmail: internal error, please report it: ZeroDivisionError in test_cli.py:")
    assert err.count("\n") == 1


def test_default_file_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shell, "DEFAULT_PATH", tmp_path / "none.toml")
    assert cli.Settings(None).config == Config()
    (tmp_path / "none.toml").write_text("[daemon]\nworkers = 3\n")
    assert cli.Settings(None).config.workers == 3


def test_bad_configuration_is_two(file: Path) -> None:
    file.write_text("[daemon]\nworker = 3\n")
    for words in (["status"], ["peers", "list"], ["identity", "show"], ["down"]):
        result = invoked(file, *words)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"nightmail: {file}:2: daemon.worker: unknown key")


# --- run, status, check, plan, up, down -------------------------------------------------------------------


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
    assert json.loads(facts.stdout) == {"running": True, **STATUS}


def test_status_of_a_daemon_that_does_not_protect(file: Path) -> None:
    with daemon(file.parent / "run" / "control.sock", {**STATUS, "workers": []}):
        result = invoked(file, "status")
    assert result.exit_code == 1
    assert result.stdout.startswith("NO, ")


def test_status_without_a_daemon(file: Path) -> None:
    result = invoked(file, "status")
    assert result.exit_code == 1
    assert result.stdout.startswith("NO, mail passes in clear: no daemon is running")
    assert json.loads(invoked(file, "status", "--json").stdout) == {"running": False}


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


# --- peers, identity ---------------------------------------------------------------------------------------


def test_no_peers_yet_and_none_are_made(file: Path) -> None:
    assert invoked(file, "peers", "list").stdout == "no peer is remembered yet\n"
    assert json.loads(invoked(file, "peers", "list", "--json").stdout) == []
    for words in (["show", "192.0.2.7"], ["forget", "192.0.2.7"], ["accept", "192.0.2.7", "abcd"]):
        result = invoked(file, "peers", *words)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
    assert list((file.parent / "state").iterdir()) == []


def test_peers_list_and_show(file: Path) -> None:
    remember(file)
    assert "1 SEEN BUT NOT ACCEPTED" in invoked(file, "peers", "list").stdout
    (listed,) = json.loads(invoked(file, "peers", "list", "--json").stdout)
    shown = json.loads(invoked(file, "peers", "show", "192.0.2.7", "--json").stdout)
    assert {**listed, "trouble": None} == shown
    assert NEW.fingerprint in invoked(file, "peers", "show", "192.0.2.7:25").stdout


def test_peers_accept(file: Path) -> None:
    remember(file)
    for nonsense in ("zzzz", NEW.fingerprint[:2], ""):
        assert invoked(file, "peers", "accept", "192.0.2.7", nonsense).exit_code == 1
    result = invoked(file, "peers", "accept", "192.0.2.7", NEW.fingerprint[:9])
    assert (result.exit_code, NEW.fingerprint in result.stdout) == (0, True)
    assert all(known.accepted for known in pinned(file).identities)


def test_peers_forget_one_identity_then_all(file: Path) -> None:
    remember(file)
    refused = invoked(file, "peers", "forget", "192.0.2.7", "--identity", OLD.fingerprint)
    assert refused.exit_code == 1
    assert "forget the whole peer" in refused.stderr
    assert invoked(file, "peers", "forget", "192.0.2.7", "--identity", NEW.fingerprint).exit_code == 0
    assert [known.identity for known in pinned(file).identities] == [OLD.octets]
    assert invoked(file, "peers", "forget", "192.0.2.7").exit_code == 0
    assert pinned(file) is None
    assert invoked(file, "peers", "forget", "192.0.2.7").exit_code == 1


def test_identity_show(file: Path) -> None:
    before = invoked(file, "identity", "show")
    assert before.exit_code == 1
    assert "no identity yet" in before.stderr
    path = file.parent / "state" / "identity"
    fingerprint = load_or_make(path).site.key.public.fingerprint
    assert invoked(file, "identity", "show").stdout == fingerprint + "\n"
    assert json.loads(invoked(file, "identity", "show", "--json").stdout)["fingerprint"] == fingerprint
    path.chmod(0o644)
    assert "others may have read it" in invoked(file, "identity", "show").stderr


def test_identity_is_rotated_taken_back_and_used(file: Path) -> None:
    assert "no identity yet" in invoked(file, "identity", "rotate").stderr
    load_or_make(file.parent / "state" / "identity")
    first = invoked(file, "identity", "show").stdout.strip()
    assert "announced: " in invoked(file, "identity", "rotate", "--announce-days", "30").stdout
    upcoming = json.loads(invoked(file, "identity", "show", "--json").stdout)["next"]
    again = invoked(file, "identity", "rotate")
    assert (again.exit_code, "announced already" in again.stderr) == (1, True)
    assert invoked(file, "identity", "rotate", "--undo").exit_code == 0
    assert invoked(file, "identity", "rotate", "--undo").exit_code == 1
    assert invoked(file, "identity", "show").stdout.strip() == first
    assert invoked(file, "identity", "rotate", "--now").exit_code == 0
    used = invoked(file, "identity", "show").stdout.splitlines()[0]
    assert used not in (first, upcoming)
    assert invoked(file, "identity", "rotate", "--now", "--undo").exit_code == 2
    assert invoked(file, "identity", "rotate", "--announce-days", "0").exit_code == 2


@pytest.mark.parametrize("by", ["prompt", "file", "descriptor"])
def test_identity_is_carried_to_another_place(file: Path, tmp_path: Path, by: str) -> None:
    """With the real cost of Argon2id, once; the passphrase never stands in the arguments."""
    phrase = "a phrase of many letters"
    path, export = file.parent / "state" / "identity", tmp_path / "export"
    load_or_make(path)
    first = invoked(file, "identity", "show").stdout
    options, typed = [], f"{phrase}\n{phrase}\n"
    if by != "prompt":
        (tmp_path / "phrase").write_text(f"{phrase}\nanother line\n")
        descriptor = os.open(tmp_path / "phrase", os.O_RDONLY)
        place = f"/dev/fd/{descriptor}" if by == "descriptor" else str(tmp_path / "phrase")
        options, typed = ["--passphrase-file", place], ""
    words = ["--config", str(file), "identity"]
    done = CliRunner().invoke(nightmail, [*words, "export", str(export), *options], input=typed)
    assert done.exit_code == 0, done.output
    assert phrase not in done.output
    path.unlink()
    if by == "descriptor":
        os.lseek(descriptor, 0, os.SEEK_SET)
    typed = typed and f"{phrase}\n"
    done = CliRunner().invoke(nightmail, [*words, "import", str(export), *options], input=typed)
    assert done.exit_code == 0, done.output
    assert invoked(file, "identity", "show").stdout == first


def test_a_short_passphrase_is_refused(file: Path, tmp_path: Path) -> None:
    load_or_make(file.parent / "state" / "identity")
    (tmp_path / "phrase").write_text("eleven abcd\n")
    options = ["--passphrase-file", str(tmp_path / "phrase")]
    done = invoked(file, "identity", "export", str(tmp_path / "export"), *options)
    assert (done.exit_code, "at least 12 letters" in done.stderr) == (1, True)
    assert not (tmp_path / "export").exists()


def test_an_export_asks_for_nothing_that_it_cannot_use(file: Path, tmp_path: Path) -> None:
    """No passphrase where there is no identity, or another file in its place; nor without a terminal."""
    words = ["--config", str(file), "identity", "export", str(tmp_path / "export")]

    def export() -> tuple[int, str]:
        # In a session of its own there is no terminal to ask on.
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    status, said = export()
    assert (status, "no identity" in said, "assphrase" in said) == (1, True, False), said
    load_or_make(file.parent / "state" / "identity")
    status, said = export()
    assert (status, said) == (1, "nightmail: no terminal to ask for a passphrase on: --passphrase-file\n")
    (tmp_path / "export").write_text("precious")
    status, said = export()
    assert (status, "is there already" in said, "assphrase" in said) == (1, True, False), said
    assert (tmp_path / "export").read_text() == "precious"


def test_peers_history(file: Path) -> None:
    assert "no history" in invoked(file, "peers", "history", "192.0.2.7").stderr
    remember(file)
    lines = invoked(file, "peers", "history", "192.0.2.7").stdout.splitlines()
    assert [line.split("  ")[1].split(":")[0] for line in lines] == [
        "first seen",
        "ANOTHER IDENTITY, not accepted",
    ]
    told = json.loads(invoked(file, "peers", "history", "192.0.2.7", "--json").stdout)
    assert [(event["event"], event["identity"]) for event in told] == [
        ("first-seen", OLD.fingerprint),
        ("changed", NEW.fingerprint),
    ]
    assert invoked(file, "peers", "history", "no address").exit_code == 2


# --- lab -------------------------------------------------------------------------------------------------


def test_lab_without_its_extra_is_one_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where only the base packages are installed."""
    monkeypatch.setitem(sys.modules, "gateway.lab.commands", None)
    for words in (["lab"], ["lab", "demo", "--fast"], ["lab", "--help"]):
        result = invoked(file, *words)
        assert result.exit_code == 1
        assert result.stderr.startswith(
            "nightmail: the lab needs gateway.lab.commands: install nightmail[lab]"
        )
    assert "lab" in CliRunner().invoke(nightmail, ["--help"]).output


BASE_ONLY = """
import sys
for name in ("scapy", "rich"):
    sys.modules[name] = None
sys.argv = ["nightmail", "--config", sys.argv[1], "peers", "list"]
from gateway.cli import main
main()
"""


def test_base_install_needs_no_extra(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BASE_ONLY, str(file)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


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
@pytest.mark.skipif(os.geteuid() != 0, reason="needs network namespaces")
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
