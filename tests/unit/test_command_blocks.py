"""Command blocks of the documents that are for a checkout, and those that are too much for a test.

Those for a gateway are run by `tests/lab/test_command_blocks.py`; that each block is run somewhere is held
by `tests/unit/test_docs.py`. What is too much has its words checked against the programs themselves.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

import click
import pytest

from gateway.cli import nightmail
from tests import pages
from tests.pages import PAGES, ROOT, Block, words_of
from tests.stages import Stage, run_of, staged

BLOCKS: Final = pages.command_blocks()
TRIALS: Final = ("try.sh", "roots.sh", "tried.sh", "booted.sh", "rebooted.sh")
HELPED: Final = {
    "scripts/bench": "bench",
    "scripts/bench eve": "bench.eve",
    "scripts/bench rivals": "bench.rivals",
    "scripts/bench growth": "bench.rivals",
    "scripts/chaos": "bench.chaos",
    "scripts/demo": "gateway.lab.demo",
    "scripts/soak": "bench.soak",
}
"""Modules that read the words of these scripts; the longest name that fits counts."""
LISTS: Final = {"scripts/chaos": ["--list"]}
"""What tells the names that a program knows, where its help does not."""
SHELL: Final = frozenset({"cd", "export"})
GUESTS: Final = frozenset({"vagrant"})
"""Not installed where tests run; `vagrant/prove.sh` runs it."""


# --- In a checkout --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", staged(BLOCKS, Stage.CHECKOUT), ids=lambda block: block.name)
def test_a_block_for_a_checkout_works(block: Block) -> None:
    for command in block.commands:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


# --- Of the package -------------------------------------------------------------------------------------


def _service_lines() -> set[str]:
    return {line for block in BLOCKS for line in block.commands if line.startswith("systemctl ")}


def test_what_is_said_of_the_package_is_what_is_tried_on_a_bare_debian() -> None:
    lines = {line for block in staged(BLOCKS, Stage.PACKAGE) for line in block.commands} | _service_lines()
    assert lines
    tried = [line.strip() for name in TRIALS for line in (ROOT / "packaging" / name).read_text().splitlines()]
    missing = [
        line
        for line in lines
        if not any(re.fullmatch(re.escape(line) + r"( (\|\||&&).*)?", one) for one in tried)
    ]
    assert not missing, f"none of {TRIALS} runs it"


# --- What takes long ------------------------------------------------------------------------------------


@cache
def _help_of(program: str) -> str:
    """Of a module of ours; of a script that takes no help, all of it."""
    module = HELPED.get(program, "")
    if not module:
        return (ROOT / program).read_text()
    said = ""
    for word in ("--help", *LISTS.get(program, ())):
        command = [sys.executable, "-m", module, word]
        said += subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        ).stdout
    return said


def _program_and_words(command: str, folder: Path) -> tuple[str, list[str]]:
    words = words_of(command)
    if words[:2] == [".venv/bin/python", "-m"]:
        HELPED.setdefault(words[2], words[2])
        return words[2], words[3:]
    path = (folder / words[0]).resolve()
    assert os.access(path, os.X_OK), f"{command}: there is no such program"
    name = str(path.relative_to(ROOT))
    longer = f"{name} {words[1]}" if len(words) > 1 else name
    return (longer, words[2:]) if longer in HELPED else (name, words[1:])


def unknown_words(commands: list[str]) -> list[str]:
    """Options and names that the programs do not know. Follows `cd`."""
    folder, unknown = ROOT, []
    for command in commands:
        words = words_of(command)
        if words[0] == "cd":
            folder = (folder / words[1]).resolve()
        if words[0] in SHELL | GUESTS:
            continue
        program, rest = _program_and_words(command, folder)
        rest = list(itertools.takewhile(lambda word: word != "exec", rest))
        known = set(re.findall(r"[\w-]+", _help_of(program)))
        options = {word.split("=")[0].lstrip("-") for word in rest if word.startswith("-")}
        names = {word for word in rest if re.fullmatch(r"[a-z][a-z-]*", word)}
        unknown += sorted((options | names) - {one.lstrip("-") for one in known})
    return unknown


@pytest.mark.parametrize("block", staged(BLOCKS, Stage.ELSEWHERE), ids=lambda block: block.name)
def test_what_takes_long_has_words_that_its_program_knows(block: Block) -> None:
    assert not unknown_words(block.commands)
    run = run_of(block)
    assert (ROOT / run.by).exists()
    if not run.by.startswith("bench/results/"):
        runner = (ROOT / run.by).read_text()
        bare = [command.removeprefix("./lab.sh exec ") for command in block.commands]
        assert [one for one in bare if one in runner], f"{run.by} does not run it"


def test_a_word_that_a_program_does_not_know_is_found() -> None:
    assert unknown_words(["scripts/bench --quickly"]) == ["quickly"]
    assert unknown_words(["cd vagrant", "./lab.sh begin"]) == ["begin"]
    with pytest.raises(AssertionError, match="no such program"):
        unknown_words(["scripts/nothing"])


# --- Commands within the text ---------------------------------------------------------------------------

_QUOTED = re.compile(r"`((?:nightmail|scripts/\w+|packaging/[\w.]+) [^`\n]*[^`\n.0])`")
"""What ends in a NUL is a label of the protocol."""


def _quoted() -> list[tuple[str, str]]:
    texts = [(page, (ROOT / page).read_text()) for page in PAGES]
    return [(page, found) for page, text in texts for found in _QUOTED.findall(text)]


def misused(words: list[str]) -> str:
    """What `nightmail` would not understand of these words; empty if it understands all."""
    command: click.Command = nightmail
    context = click.Context(command, info_name="nightmail")
    rest = list(words)
    while isinstance(command, click.Group):
        flags = {name for one in command.params if isinstance(one, click.Option) for name in one.opts}
        while rest and rest[0] in flags | {"-h", "--help"}:
            rest = rest[2:] if rest[0] == "--config" else rest[1:]
        if not rest:
            return ""
        found = command.get_command(context, rest[0])
        if found is None:
            return rest[0]
        command, rest = found, rest[1:]
    options = {name: one for one in command.params if isinstance(one, click.Option) for name in one.opts}
    wrong, arguments = [], list[str]()
    while rest:
        word = rest.pop(0)
        if word == "--":
            arguments, rest = arguments + rest, []
        elif not word.startswith("-"):
            arguments.append(word)
        elif word not in options and word not in ("-h", "--help"):
            wrong.append(word)
        elif word in options and not options[word].is_flag:
            rest = rest[1:]
    takes = [one.nargs for one in command.params if isinstance(one, click.Argument)]
    # A command may be named alone; with arguments it has all of them.
    if arguments and not (len(arguments) == len(takes) or (-1 in takes and len(arguments) >= len(takes))):
        wrong.append(f"{len(arguments)} of {len(takes)} arguments")
    return " ".join(wrong)


def test_what_is_quoted_of_nightmail_is_what_it_understands() -> None:
    quoted = [(page, text) for page, text in _quoted() if text.startswith("nightmail ")]
    assert len(quoted) > 50
    wrong = [(page, text) for page, text in quoted if misused(text.split()[1:])]
    assert not wrong


def test_what_nightmail_does_not_understand_is_found() -> None:
    assert misused(["peers", "show", "ADDRESS"]) == ""
    assert misused(["--config", "FILE", "status", "--watch"]) == ""
    assert misused(["peers", "remember"]) == "remember"
    assert misused(["status", "--loud"]) == "--loud"
    assert misused(["peers", "accept", "ADDRESS"]) == "1 of 2 arguments"
    assert misused(["peers", "accept", "ADDRESS", "FINGERPRINT"]) == ""
    assert misused(["ping", "--seconds", "3"]) == misused(["lab", "exec", "gw-a", "--", "ls", "-l"]) == ""


def test_what_is_quoted_of_the_scripts_is_there() -> None:
    for page, text in _quoted():
        name = text.split()[0]
        assert name == "nightmail" or shutil.which(ROOT / name), (page, text)
