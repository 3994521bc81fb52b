"""The claims that the prover answers, for docs/security.md."""

from __future__ import annotations

from tests.model.asking import left_out
from tests.model.queries import queries


def claims() -> str:
    """Every query with its answer; scripts/prove fails where the prover says anything else."""
    lines = ["| claim | without the check that | answer |", "|---|---|---|"]
    lines += [f"| `{query.claim}` | {left_out(query)} | {query.expected.value} |" for query in queries()]
    return "\n".join(lines)
