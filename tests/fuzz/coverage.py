"""How many lines of a target's modules a set of cases reaches, counted by running them without the fuzzer."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.table import TARGETS


def covered(name: str, cases: Iterable[Path]) -> str:
    """`reached/all`, of lines within functions: what a module does when it is imported tells nothing."""
    lines = {(file, line) for file in _files(name) for line in _lines(file)}
    reached = {(file, line) for case in cases for file, _, line in steps(name, case.read_bytes())}
    return f"{len(reached & lines)}/{len(lines)}"


def steps(name: str, case: bytes) -> set[tuple[str, int, int]]:
    """File, line and next line of every step that one case takes in the target's modules."""
    files = _files(name)
    taken: set[tuple[str, int, int]] = set()
    last: dict[FrameType, int] = {}

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        return on_line if frame.f_code.co_filename in files else None

    def on_line(frame: FrameType, event: str, argument: Any) -> Any:
        taken.add((frame.f_code.co_filename, last.get(frame, 0), frame.f_lineno))
        last[frame] = frame.f_lineno
        return on_line

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        TARGETS[name].run(case)
    except Exception:  # a finding is reported as such; here only lines count
        pass
    finally:
        sys.settrace(before)
    return taken


def _files(name: str) -> set[str]:
    return {str(importlib.import_module(module).__file__) for module in TARGETS[name].modules}


def _lines(file: str) -> set[int]:
    """Lines with code inside of functions."""
    text = Path(file).read_text()
    # Bodies of classes are code objects too, which run at import.
    classes = {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)}
    found: set[int] = set()

    def walk(code: CodeType, inside: bool) -> None:
        if inside:
            found.update(line for _, _, line in code.co_lines() if line and line != code.co_firstlineno)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                walk(constant, inside or constant.co_name not in classes)

    walk(compile(text, file, "exec"), False)
    return found
