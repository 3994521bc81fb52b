"""Markdown tables and listings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; a bar within a cell is escaped."""
    lines = [_row(heads), _row(["---"] * len(heads), blank="")]
    return "\n".join([*lines, *(_row([str(cell) for cell in row]) for row in rows)])


def _row(cells: Sequence[str], blank: str = " ") -> str:
    return "|" + "|".join(f"{blank}{cell.replace('|', '&#124;')}{blank}" for cell in cells) + "|"


def listing(octets: bytes, label: str, width: int = 32) -> str:
    """Octets in hexadecimal, `width` of them to a line, below a label that says how many."""
    text = octets.hex()
    lines = [text[at : at + 2 * width] for at in range(0, len(text), 2 * width)]
    return "\n".join([f"{label} ({len(octets):,})", *(f"  {line}" for line in lines)])
