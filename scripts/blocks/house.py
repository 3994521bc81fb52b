"""The house as it stands: layers from the import contract, files with the first sentence of each."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from scripts.blocks.tables import table

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = _ROOT / "gateway"


def layers() -> str:
    """Who may import whom: each line only what stands below it."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    [contract] = [contract for contract in contracts if contract["type"] == "layers"]
    lines = [layer.replace("gateway.", "") for layer in contract["layers"]]
    return "\n".join(["```text", *lines, "```"])


def files() -> str:
    rows = []
    last = None
    for path in sorted(_PACKAGE.rglob("*.py"), key=lambda path: (path.parent, path.stem)):
        room = path.parent.relative_to(_ROOT)
        if not path.stem.startswith("__"):
            rows.append([f"`{room}/`" if room != last else "", f"`{path.stem}`", _first_sentence(path)])
            last = room
    return table(["room", "file", "what"], rows)


def _first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text()))
    if not text:
        raise ValueError(f"{path} does not say what it is")
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".")
