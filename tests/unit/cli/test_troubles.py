"""Whatever is wrong is one line and an exit status: not root, a bug, a bad configuration, no extra."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway import cli
from gateway.cli import nightmail, shell
from gateway.config import Config
from gateway.config_text import ConfigurationError
from gateway.intercept import kernel
from gateway.operator import check, status
from tests.unit.cli.asking import ended, invoked

NOBODY = 65534
FOLDERS_OF_ROOT = ["/usr/local/sbin", "/usr/sbin", "/sbin"]


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


@pytest.mark.root
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


@pytest.mark.root
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
    assert err.startswith(
        "nightmail: internal error, please report it: ZeroDivisionError in test_troubles.py:"
    )
    assert err.count("\n") == 1


def test_output_that_cannot_be_written_is_no_bug_of_ours(file: Path) -> None:
    command = [sys.executable, "-c", "from gateway.cli import main; main()", "--config", str(file)]
    full = f"{shlex.join(command)} peers list >/dev/full"
    closed = f"{shlex.join(command)} status >&-"
    read_no_more = f"{shlex.join(command)} --help | true; exit ${{PIPESTATUS[0]}}"
    told = [
        subprocess.run(["bash", "-c", one], stderr=subprocess.PIPE, text=True, timeout=60)
        for one in (full, closed, read_no_more)
    ]
    assert [(one.returncode, one.stderr) for one in told[:2]] == [
        (1, "nightmail: the answer cannot be written: No space left on device\n"),
        (1, ""),
    ]
    # Whether the reader has gone before or after that little is chance.
    assert told[2].returncode in (0, 1)
    assert told[2].stderr == ""


def test_default_file_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shell, "DEFAULT_PATH", tmp_path / "none.toml")
    assert cli.Settings(None).config == Config()
    (tmp_path / "none.toml").write_text("[daemon]\nworkers = 3\n")
    assert cli.Settings(None).config.workers == 3


def test_a_default_file_that_leads_nowhere_is_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shell, "DEFAULT_PATH", tmp_path / "nightmail.toml")
    (tmp_path / "nightmail.toml").symlink_to(tmp_path / "gone.toml")
    with pytest.raises(ConfigurationError, match="No such file"):
        _ = cli.Settings(None).config


def test_the_tools_are_found_from_a_shell_that_is_not_roots(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As `su` without a dash leaves it, and as cron has it."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(check, "findings", lambda config: [])
    assert ended(monkeypatch, capsys, "--config", os.devnull, "check")[0] == 0
    assert os.environ["PATH"].split(":") == [str(tmp_path), "/usr/bin", "/bin", *FOLDERS_OF_ROOT]


def test_bad_configuration_is_two(file: Path) -> None:
    file.write_text("[daemon]\nworker = 3\n")
    for words in (["status"], ["peers", "list"], ["identity", "show"], ["down"]):
        result = invoked(file, *words)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"nightmail: {file}:2: daemon.worker: unknown key")


# --- Without what an extra brings -------------------------------------------------------------------------


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


@pytest.mark.parametrize("runs", [True, False])
def test_a_daemon_can_be_asked_beside_a_broken_configuration(
    shared: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    shared.write_text("placement = host\n")
    monkeypatch.setattr(status, "is_running", lambda control: runs and control == Config().control_socket)
    result = invoked(shared, "status")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"nightmail: {shared}:1: Invalid value")
    assert ("`nightmail --config /dev/null status`" in result.stderr) == runs
    assert result.stderr.count("\n") == 1
