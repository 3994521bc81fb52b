"""Manual pages and completion of the package are made from the commands: each has its own, whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gateway.cli import nightmail

pytest.importorskip("click_man", reason="scripts/setup.sh dev installs it")
PACKAGING = Path(__file__).parents[2] / "packaging"


def named(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """It and all below it, as the files of their pages are called."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in command.list_commands(context):
            found = command.get_command(context, word)
            assert found is not None
            if not found.hidden:
                yield from named(found, f"{name}-{word}")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a process of its own: making pages completes the commands' help."""
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, PACKAGING / "man_pages.py", folder], check=True, timeout=60)
    return folder


def test_every_command_has_a_page_and_every_page_a_command(pages: Path) -> None:
    assert {path.stem for path in pages.iterdir()} == {name for name, _ in named(nightmail, "nightmail")}


def test_a_page_is_named_as_its_command_and_tells_every_option(pages: Path) -> None:
    for name, command in named(nightmail, "nightmail"):
        text = (pages / f"{name}.1").read_text().replace("\\-", "-")
        assert text.startswith(f'.TH "{name.upper()}" "1" '), name
        (first,) = re.findall(r"^\.SH NAME\n(.*)$", text, re.MULTILINE)
        assert first.startswith(f"{name} - ") and "..." not in first, first
        options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
        assert not [one.opts for one in options if one.opts[-1] not in text], name


def test_a_page_refers_to_pages_that_are_there(pages: Path) -> None:
    named = {name for path in pages.iterdir() for name in re.findall(r"\\fB([^\\]+)\(1\)", path.read_text())}
    assert named
    assert named - {path.stem for path in pages.iterdir()} == set()


@pytest.mark.skipif(shutil.which("man") is None, reason="packaging/try.sh renders them, too")
def test_a_page_renders_without_a_warning(pages: Path) -> None:
    for path in pages.iterdir():
        done = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", path], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, ""), path.name


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", "bash-completion/completions/nightmail"),
        ("zsh", "zsh/vendor-completions/_nightmail"),
        ("fish", "fish/vendor_completions.d/nightmail.fish"),
    ],
)
def test_completion_knows_commands_and_options(shell: str, file: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, PACKAGING / "completion.py", tmp_path], check=True, timeout=60)
    assert f"{shell}_complete" in (tmp_path / file).read_text()
    for typed, wanted in (("nightmail identity rot", "rotate"), ("nightmail status --wa", "--watch")):
        words = {"COMP_WORDS": typed, "COMP_CWORD": "2" if shell != "fish" else typed.split()[-1]}
        done = subprocess.run(
            [Path(sys.executable).parent / "nightmail"],
            env=os.environ | words | {"_NIGHTMAIL_COMPLETE": f"{shell}_complete"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert wanted in done.stdout, done.stderr
