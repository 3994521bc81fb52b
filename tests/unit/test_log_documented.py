"""docs/log.md against the code: every line of the log is on the page, its levels and fields, and no other."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

from gateway.observe.log import Level

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/log.md").read_text()
_ROW = re.compile(r"^\| `([a-z]+ [a-z-]+)` \| ([^|]+) \| ([^|]*)\| [^|]+ \|$", re.MULTILINE)
_WORKED_OUT = {"decided": {"info", "notice"}}
"""Levels that no literal says."""
_FROM_A_MAPPING = {"gate failed": {"source", "to"}, "alarms not-told": {"by", "subject", "detail"}}
"""Fields that a call spreads."""
_NOTED = frozenset({"reason", "detail", "likely"})


@dataclass(frozen=True)
class Line:
    """`always`: the fields that it has wherever it is written."""

    levels: frozenset[str]
    fields: frozenset[str]
    always: frozenset[str]


LOGS_OWN = {"log lines-lost": Line(frozenset({"notice"}), frozenset({"lines"}), frozenset({"lines"}))}
"""`Log` writes it itself, by no call of `fact`."""


def on_page(page: str) -> dict[str, Line]:
    found = {}
    for name, level, fields in _ROW.findall(page):
        assert name not in found, f"{name} stands there twice"
        named = frozenset(re.findall(r"`([a-z_]+)`", fields))
        levels = frozenset(set(re.findall(r"\w+", level)) & {one.value for one in Level})
        found[name] = Line(levels, named, named - frozenset(re.findall(r"\[`([a-z_]+)`\]", fields)))
    return found


def in_code() -> dict[str, Line]:
    calls = defaultdict[str, list[Line]](list)
    for node in _calls("fact"):
        for name, line in _lines(node):
            calls[name].append(line)
    return LOGS_OWN | {
        name: Line(
            frozenset.union(*(one.levels for one in lines)),
            frozenset.union(*(one.fields for one in lines)),
            frozenset.intersection(*(one.always for one in lines)),
        )
        for name, lines in calls.items()
    }


@cache
def _all_calls() -> list[ast.Call]:
    return [
        node
        for path in sorted((ROOT / "gateway").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def _calls(name: str) -> Iterator[ast.Call]:
    return (call for call in _all_calls() if _called(call) == name)


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _lines(call: ast.Call) -> Iterator[tuple[str, Line]]:
    subsystem = ast.literal_eval(call.args[0])
    given = {one.arg: one.value for one in call.keywords}
    for event in _events(subsystem, call.args[1]):
        name = f"{subsystem} {event}"
        fields = frozenset(one for one in given if one not in (None, "level"))
        fields |= _FROM_A_MAPPING[name] if None in given else set()
        if subsystem == "session":
            fields -= {"session"}  # said once for all of them
        yield name, Line(_levels(event, given.get("level")), fields, fields)


def _levels(event: str, level: ast.expr | None) -> frozenset[str]:
    if isinstance(level, ast.Attribute):
        return frozenset({level.attr.lower()})
    return frozenset({"info"} if level is None else _WORKED_OUT[event])


def _events(subsystem: str, event: ast.expr) -> set[str]:
    """One, but where it is a variable."""
    if isinstance(event, ast.Constant):
        return {str(event.value)}
    if subsystem == "daemon":
        return {"started", "reloaded"}
    assert subsystem == "session"
    return noted()


def noted() -> set[str]:
    """What a session has to say; most such lines have less than all fields that there are for them."""
    return {str(ast.literal_eval(note.args[0])) for note in _calls("NoteFact")}


def differences(said: dict[str, Line], written: dict[str, Line]) -> list[str]:
    whatever = {f"session {event}" for event in noted()}
    wrong = [f"{name}: on the page alone" for name in said.keys() - written.keys()]
    wrong += [f"{name}: not on the page" for name in written.keys() - said.keys()]
    for name in said.keys() & written.keys():
        page, code = said[name], written[name]
        if page.levels != code.levels:
            wrong.append(f"{name}: {sorted(code.levels)}, not {sorted(page.levels)}")
        fields = page.fields | (_NOTED if name in whatever else frozenset())
        if fields != code.fields or not page.always <= code.always:
            wrong.append(f"{name}: has {sorted(code.fields)}, always {sorted(code.always)}")
    return wrong


def test_the_page_has_every_line_as_it_is_written_and_no_other() -> None:
    assert len(in_code()) > 50
    assert differences(on_page(PAGE), in_code()) == []


@pytest.mark.parametrize("name", ["session begun", "rules up", "alarms not-told", "log lines-lost"])
def test_whatever_differs_is_found(name: str) -> None:
    said, written = on_page(PAGE), in_code()
    line = said[name]
    assert differences({one: said[one] for one in said if one != name}, written)
    assert differences(said | {"rules moved": line}, written)
    assert differences(said | {name: replace(line, levels=frozenset({"debug"}))}, written)
    assert differences(said | {name: replace(line, fields=line.fields | {"moon"})}, written)
    assert differences(said | {name: replace(line, always=line.always | {"moon"})}, written)
