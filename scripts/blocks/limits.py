"""The table of limits that belong to the protocol, read from the source of `gateway/policy/limits.py`."""

from __future__ import annotations

import ast
import itertools
from dataclasses import dataclass
from pathlib import Path

from gateway.policy import limits
from scripts.blocks.tables import table

_SPECIFICATION = "# --- Specification"
_NEXT_PART = "# --- "
_UNITS = {
    "OCTETS": "octets",
    "RECORDS": "records",
    "DAYS": "days",
    "SECONDS": "s",
    "SEEN": "days",
    "SESSION": "dials",
    "PIN": "identities",
    "ROW": "times",
    "SHOWN": "statements",
    "BELOW": "of 256",
    "KEPT": "tickets",
}

OWN = (
    "RECORD_SEND_OCTETS",
    "GREETING_OCTETS",
    "EHLO_REPLY_OCTETS",
    "REDIAL_SECONDS",
    "IGNORABLE_BELOW",
    "TICKETS_KEPT",
    "TICKETS_OF_A_PAIR",
)


@dataclass(frozen=True)
class Limit:
    """One constant with the sentence that stands below it."""

    name: str
    value: float
    reason: str

    @property
    def unit(self) -> str:
        return _UNITS.get(self.name.rsplit("_", 1)[1], "")


def specified() -> list[Limit]:
    """The constants of the part "Specification", in order."""
    source = Path(limits.__file__).read_text()
    begin = source.index(_SPECIFICATION)
    end = source.index(_NEXT_PART, begin + 1)
    return _constants(source, source.count("\n", 0, begin), source.count("\n", 0, end))


def everything() -> list[Limit]:
    source = Path(limits.__file__).read_text()
    return _constants(source, 0, source.count("\n"))


def _constants(source: str, first_line: int, last_line: int) -> list[Limit]:
    body = ast.parse(source).body
    found = []
    for node, below in itertools.pairwise(body):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if first_line < node.lineno <= last_line and isinstance(below, ast.Expr):
            reason = ast.literal_eval(below.value)
            name = node.target.id
            found.append(Limit(name, getattr(limits, name), " ".join(str(reason).split())))
    return found


def specified_table() -> str:
    return _table(specified())


def own_table() -> str:
    """Those of `OWN`: docs/protocol.md leaves them to the implementation, and a peer notices them."""
    found = {limit.name: limit for limit in everything()}
    return _table([found[name] for name in OWN])


def _table(found: list[Limit]) -> str:
    rows = [[f"`{limit.name}`", _number(limit.value), limit.unit, limit.reason] for limit in found]
    return table(["limit", "value", "unit", "reason"], rows)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"
