"""What the compiler would take for something else is found; the product has none of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scripts import compiled, misread

ROOT = Path(__file__).parents[2]
IDENTITY = """\
def SecondLook._compare(self, reply):
    self :: gateway.one.SecondLook
    look, r1 :: gateway.one.Look
    r2 :: gateway.one.State
    r3 :: gateway.one.Plain
L0:
    r4 = look == r1
    r5 = r2 == r2
    r6 = r3 != r3

def other(look):
    look :: bytes
    r1 :: bytes
L0:
    r4 = look == r1
"""
CLASSES = """\
@immutable
class Look: ...

@dataclasses.dataclass(frozen=True)
class Plain: ...

class State: ...
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("view = view[os.write(fd, view) :]", "1: os.write in the bounds of a slice"),
        ("a[0 : b.read()[1]]", "1: b.read in the bounds of a slice"),
        ("a[(n := 2) :]", "1: := in the bounds of a slice"),
        ("a[max(len(b) - 1, 0) : self.fields.octets_before('x')]", None),
        ("a[f(1)]", None),
    ],
)
def test_a_call_in_the_bounds_of_a_slice(text: str, found: str | None) -> None:
    assert list(misread.calls_in_bounds(ast.parse(text))) == ([found] if found else [])


def test_values_of_a_decorated_class_that_are_compared_by_identity() -> None:
    classes = {f"gateway.one.{name}" for name in misread.decorated(ast.parse(CLASSES))}
    assert classes == {"gateway.one.Look"}
    found = list(misread.compared(IDENTITY.splitlines(keepends=True), classes))
    assert found == ["def SecondLook._compare(self, reply):: gateway.one.Look"]


def test_the_product_makes_no_call_in_the_bounds_of_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert misread.misread(compiled.modules(Path("gateway")), []) == []
