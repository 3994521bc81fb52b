"""`scripts/prove [--json] [part of a claim]`: asks the prover every query; compares with what is expected."""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.model import spass
from tests.model.queries import queries

_NO_PROVER = "prove: SPASS is not installed. `scripts/setup.sh dev` installs it (Debian package spass)."


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/prove")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("words", nargs="*", help="only claims with these words in their name")
    options = parser.parse_args()
    if not spass.is_there():
        print(_NO_PROVER, file=sys.stderr)
        return 2
    part = " ".join(options.words)
    chosen = [query for query in queries() if part in query.claim]
    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for query, got in zip(chosen, pool.map(spass.ask, chosen), strict=True):
            row = {"claim": query.claim, "expected": query.expected.value, "got": got}
            rows.append(row)
            if not options.json:
                mark = "" if got == row["expected"] else "   <-- DIFFERS"
                print(f"{query.claim:60} {row['expected']:8} {got:8}{mark}", flush=True)
    wrong = sum(row["got"] != row["expected"] for row in rows)
    if options.json:
        print(json.dumps({"rows": rows}, indent=1))
    else:
        print(f"{len(rows)} claims, {wrong} differ")
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
