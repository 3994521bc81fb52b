"""`scripts/prove --mutants [--sample] [--json] [part of a check's name]`: a line for each check."""

from __future__ import annotations

import argparse
import json
import sys

from tests.mutants.catalogue import MUTANTS, SAMPLE
from tests.mutants.runner import NotGreenError, Outcome, Result, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/prove --mutants")
    parser.add_argument("--sample", action="store_true", help="a fixed few of them")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("words", nargs="*", help="only checks with these words in their name")
    options = parser.parse_args()
    part = " ".join(options.words)
    chosen = [one for one in MUTANTS if part in one.check and (not options.sample or one.check in SAMPLE)]

    def tell(result: Result) -> None:
        if not options.json:
            print(f"{result.mutant.check:72} red      {result.outcome.value:8} {result.test}", flush=True)

    try:
        results = run(chosen, tell)
    except NotGreenError as error:
        print(f"prove: red without any mutant: {error}", file=sys.stderr)
        return 1
    wrong = [result for result in results if result.outcome is not Outcome.RED]
    if options.json:
        rows = [
            {"claim": one.mutant.check, "expected": "red", "got": one.outcome.value, "test": one.test}
            for one in results
        ]
        print(json.dumps({"rows": rows}, indent=1))
    else:
        for result in wrong:
            print(f"NOT RED: {result.mutant.check}: {result.outcome.value}")
        print(f"{len(results)} checks taken out, {len(wrong)} not seen")
    return 1 if wrong or not results else 0


if __name__ == "__main__":
    sys.exit(main())
