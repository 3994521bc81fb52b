"""The text of a table for `nft -f` -> what it puts in, one line for each thing that says what and where.

Pure. For people who read a plan: a line of the text itself, taken out of its braces, would say nothing.
Counterparts: `objects.NftTable`, whose texts these are; `kernel.nft`, which tells them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from gateway.intercept.objects import NftTable

_OPENS: Final = re.compile(r"(chain|set|map|counter) (\S+) \{(.*)")
_HOOK: Final = "type "
"""Begins a chain's line that is no rule: at which hook of the kernel's it stands."""


def statements(table: NftTable) -> Iterator[str]:
    """The table, its sets, counters, chains and rules; a chain that is one line keeps its rules in it."""
    at = f"{table.family} {table.name}"
    yield f"table {at}"
    kind, name, inner = "", "", list[str]()
    for line in map(str.strip, table.text.splitlines()):
        opened = _OPENS.match(line)
        if opened:
            kind, name, inner = opened[1], opened[2], []
            if opened[3]:
                yield f"{kind} {at} {name} {{{opened[3]}"
                kind = ""
        elif kind and line == "}":
            yield from _told(kind, f"{at} {name}", inner)
            kind = ""
        elif kind and line and not line.startswith("#"):
            inner.append(line)


def _told(kind: str, at: str, inner: list[str]) -> Iterator[str]:
    if kind != "chain":
        yield f"{kind} {at} {{ {'; '.join(inner)} }}" if inner else f"{kind} {at}"
        return
    rules = inner[1:] if inner and inner[0].startswith(_HOOK) else inner
    head = inner[: len(inner) - len(rules)]
    yield " ".join([f"chain {at}", *(f"{{ {line} }}" for line in head)])
    yield from (f"rule {at} {line}" for line in rules)
