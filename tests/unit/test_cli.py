"""What all commands have in common: help, version, one-line errors."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway import __version__
from gateway.cli import nightmail
from tests.unit.cli.asking import ended

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("words", [(), ("lab",), ("lab", "up"), ("status",)])
def test_help_does_not_load_what_only_work_needs(words: tuple[str, ...]) -> None:
    """A shell's completion asks as well, at each key."""
    program = (
        "import sys; from gateway.cli import nightmail\n"
        "nightmail.main(sys.argv[1:], standalone_mode=False)\n"
        "print(*sorted({'scapy', 'uvloop', 'cryptography'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("Usage: ")
    assert done.stderr == "\n"


def test_the_lab_is_listed_as_it_describes_itself() -> None:
    listed = CliRunner().invoke(nightmail, ["--help"], terminal_width=200).output
    lab = nightmail.get_command(click.Context(nightmail), "lab")
    assert isinstance(lab, click.Group)
    assert [line.split(maxsplit=1)[1] for line in listed.splitlines() if line.startswith("  lab ")] == [
        lab.get_short_help_str(200)
    ]


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(monkeypatch, capsys, "--version") == (0, f"nightmail {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nonsense"], 2, "No such command"),
        (["peers", "show"], 2, "Missing argument"),
        (["status", "--nonsense"], 2, "No such option"),
        (["peers", "show", "mx.example.org"], 2, "not an address; allowed: 192.0.2.7"),
        (["explain", "192.0.2.7:70000"], 2, "192.0.2.7:70000: not allowed; allowed: an address or a name"),
        (["ping", "192.0.2.7", "--seconds", "nan"], 2, "nan is no number of seconds"),
        (["ping", "192.0.2.7", "--seconds", "1e12"], 2, "allowed: 0.1 to 31536000"),
        (["audit", "--interface", "lo", "--seconds", "inf"], 2, "allowed: 0.1 to 31536000"),
        pytest.param(["audit", "--interface", "\udcff"], 1, "here; there are: ", marks=pytest.mark.root),
        (["status", "--watch", "--every", "nan"], 2, "nan is no number of seconds"),
        (["identity", "rotate", "--now", "--announce-days", "3"], 2, "--announce-days is for"),
        (["identity", "rotate", "--undo", "--announce-days", "14"], 2, "--announce-days is for"),
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
