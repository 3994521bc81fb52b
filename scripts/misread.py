"""What mypyc takes for something else than Python does, without a word: where any is, nothing is compiled.

- The bounds of a slice are worked out twice, where the compiler does not know of what it is: a call in them
  is made twice. (So each line of the log was written twice.)
- Two values of a class with a decorator that the compiler does not know are equal only where they are one
  object, whatever `__eq__` the decorator has given it. (So no redial ever showed what the first dial had.)

Counterpart: `scripts.compiled`, which asks for both.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

HARMLESS: Final = frozenset({"len", "max", "min", "rindex", "octets_before", "names.index"})
"""Called in a bound: twice is as good as once. By the last word of the name, or by all of it."""
_KNOWN: Final = ("dataclass", "final")
"""Decorators of classes that the compiler knows."""
_TYPES: Final = re.compile(r"    ([\w, ]+) :: (\S.*)$")
_COMPARED: Final = re.compile(r"    \w+ = (\w+) [!=]= (\w+)(?: |$)")


def misread(sources: Iterable[Path], operations: Iterable[str]) -> list[str]:
    """`sources`: relative to the folder of the package; `operations`: the compiler's, as its `ops.txt`
    has them. Each finding is a line."""
    found: list[str] = []
    unknown: set[str] = set()
    for source in sources:
        tree = ast.parse(source.read_text())
        found += [f"{source}:{where}" for where in calls_in_bounds(tree)]
        module = ".".join(source.with_suffix("").parts)
        unknown |= {f"{module}.{name}" for name in decorated(tree)}
    found += [f"{where}, by identity" for where in compared(operations, unknown)]
    return found


def calls_in_bounds(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Slice):
            continue
        for call in ast.walk(node.slice):
            if isinstance(call, ast.Call | ast.NamedExpr):
                name = ast.unparse(call.func) if isinstance(call, ast.Call) else ":="
                if not {name, name.rpartition(".")[2]} & HARMLESS:
                    yield f"{node.lineno}: {name} in the bounds of a slice"


def decorated(tree: ast.AST) -> Iterator[str]:
    """Classes whose `__eq__` the compiler may not know of."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names = [ast.unparse(one).partition("(")[0].rpartition(".")[2] for one in node.decorator_list]
            if any(name not in _KNOWN for name in names):
                yield node.name


def compared(operations: Iterable[str], classes: set[str]) -> Iterator[str]:
    """Functions in which two values of one of these are compared by identity."""
    function = ""
    types: dict[str, str] = {}
    for line in operations:
        if line.startswith("def "):
            function, types = line.strip(), {}
        elif match := _TYPES.match(line):
            types.update(dict.fromkeys(match[1].split(", "), match[2].strip()))
        elif match := _COMPARED.match(line):
            kinds = {types.get(match[1], ""), types.get(match[2], "")}
            if kinds & classes:
                yield f"{function}: {' and '.join(sorted(kinds))}"
