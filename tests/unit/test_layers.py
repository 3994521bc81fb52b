"""Who may import whom: the contract of the layers knows every file, and no file of tests is a library."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
OF_TESTS = {"lab/test_doctor_machine.py", "unit/session/test_transitions.py"}
"""What these ask is whether other tests leave something out."""


def test_every_file_stands_in_a_layer() -> None:
    """One that the contract has forgotten may import anything."""
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


def test_no_file_of_tests_is_a_library_of_another_one() -> None:
    """What several files need has one of its own, which says what it is."""
    found = {
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        for name in _imported(ast.parse(path.read_text()))
        if name.startswith("test_")
    }
    assert found == OF_TESTS


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            yield from (*module.split("."), *(alias.name.split(".")[-1] for alias in node.names))
