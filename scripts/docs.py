"""Rewrites what is generated in docs/: `python -m scripts.docs`; with `--check` it only says what differs.

Text between `<!-- generated: NAME -->` and `<!-- end -->` in docs/*.md comes from the function that
`scripts.blocks.BLOCKS` has under NAME, and the files of `scripts.blocks.PICTURES` come whole. Everything else
in the documents is written by people and stays as it is.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
Blocks = Mapping[str, Callable[[], str]]

_BLOCK = re.compile(r"^(<!-- generated: ([a-z0-9-]+) -->\n)(.*?)^(<!-- end -->)$", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(r"^<!-- (?:generated: .*|end) -->$", re.MULTILINE)


class MarkerError(Exception):
    """A marker without its counterpart, or a name that nobody generates."""


def rewritten(text: str, blocks: Blocks) -> str:
    """`text` with all its blocks made anew. Raises `MarkerError`."""

    def made(found: re.Match[str]) -> str:
        begin, name, _, end = found.groups()
        if name not in blocks:
            raise MarkerError(f"no block is called {name}")
        return f"{begin}{blocks[name]().strip()}\n{end}"

    if 2 * len(_BLOCK.findall(text)) != len(_MARKER.findall(text)):
        raise MarkerError("a block does not begin and end")
    return _BLOCK.sub(made, text)


def names_used(text: str) -> set[str]:
    return {found.group(2) for found in _BLOCK.finditer(text)}


def wanted(blocks: Blocks, pictures: Blocks) -> dict[Path, str]:
    """Every generated file, or file with generated parts, as it should be."""
    files = {path: rewritten(path.read_text(), blocks) for path in sorted(DOCS.glob("*.md"))}
    return files | {DOCS / name: make() for name, make in pictures.items()}


def differences(files: Mapping[Path, str]) -> dict[Path, str]:
    """A unified diff for each file that is not as it should be."""
    found = {}
    for path, text in files.items():
        there = path.read_text() if path.exists() else ""
        if there != text:
            name = str(path.relative_to(ROOT))
            lines = difflib.unified_diff(
                there.splitlines(keepends=True), text.splitlines(keepends=True), name, f"{name} (generated)"
            )
            found[path] = "".join(lines)
    return found


def main(check: bool) -> int:
    from scripts.blocks import BLOCKS, PICTURES

    files = wanted(BLOCKS, PICTURES)
    differing = differences(files)
    for path, diff in differing.items():
        if check:
            print(diff)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(files[path])
            print(f"written: {path.relative_to(ROOT)}")
    if check and differing:
        print("the documents are not what the code makes of them: run `python -m scripts.docs`")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
