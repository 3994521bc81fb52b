"""The contract of the layers knows every file: one that it has forgotten may import anything."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_stands_in_a_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [one["layers"] for one in contracts if one["type"] == "layers"]
    known = {name for layer in layers for name in layer.split(" | ")}
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "gateway").rglob("*.py")]
    modules = {".".join(path.parts) for path in files if not path.name.startswith("__")}
    assert len(modules) > 100
    assert {module for module in modules if not _within(module, known)} == set()


def _within(module: str, known: set[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:length]) in known for length in range(1, len(parts) + 1))
