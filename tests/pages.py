"""The blocks of the documents: what a reader copies, what he compares, and where each of them stands.

A block says by its tag what it is: `sh` holds commands, `toml` a configuration, `text` what is never typed:
output, or a figure in letters. Counterpart: `tests/unit/test_docs.py`, which holds the pages to that.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
TAGS: Final = frozenset({"sh", "toml", "text", "ini", "yaml", "abnf"})
PAGES: Final = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("vagrant/*.md"))
)
_FENCE: Final = re.compile(r"^ *```(.*)$")
_HEADING: Final = re.compile(r"^#+ +(.*)$")


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two fences."""

    page: str
    heading: str
    """The last one above it."""
    line: int
    """Of the fence that begins it, from 1."""
    tag: str
    text: str

    @property
    def commands(self) -> list[str]:
        """One a line, as the shell would see it: without comments. Backslashes join lines."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [" ".join(line.split(" #")[0].split()) for line in lines if line.strip() and line[0] != "#"]

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """All blocks of one page, in order. Raises ValueError where one does not end."""
    return blocks_of((ROOT / page).read_text(), page)


def blocks_of(text: str, page: str) -> list[Block]:
    found: list[Block] = []
    heading, begun, inside = "", (0, ""), list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        fence, head = _FENCE.match(line), _HEADING.match(line)
        if fence and begun[0]:
            found.append(Block(page, heading, begun[0], begun[1], "\n".join(inside)))
            begun, inside = (0, ""), []
        elif fence:
            begun = number, fence.group(1)
        elif begun[0]:
            inside.append(line)
        elif head:
            heading = head.group(1)
    if begun[0]:
        raise ValueError(f"{page}:{begun[0]}: a block does not end")
    return found


def command_blocks() -> list[Block]:
    """Of all pages."""
    return [block for page in PAGES for block in blocks(page) if block.tag == "sh"]


def words_of(command: str) -> list[str]:
    """Of one simple command, as the shell would hand them to the program."""
    return shlex.split(command)
