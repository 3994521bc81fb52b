"""Makes the committed corpus anew: python -m tests.fuzz.minimise [TARGET...]

Of the seeds, the committed cases and what runs of scripts/fuzz have left in .fuzz/, those are kept that take
a step from line to line which no smaller one takes. Nothing is removed before all of it is known.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from tests.fuzz.coverage import steps
from tests.fuzz.seeds import seeds
from tests.fuzz.table import CORPUS, TARGETS

MOST_CASES = 45
MOST_OCTETS = 1500
_WORK = Path(__file__).parents[2] / ".fuzz"


def minimised(name: str) -> list[bytes]:
    cases = {octets for target, octets in seeds() if target == name}
    for folder in (CORPUS / name, _WORK / name / "corpus"):
        if folder.is_dir():
            cases |= {path.read_bytes() for path in folder.iterdir()}
    kept: list[bytes] = []
    seen: set[tuple[str, int, int]] = set()
    for case in sorted(cases, key=lambda octets: (len(octets), octets)):
        if len(case) > MOST_OCTETS and kept:
            continue
        new = steps(name, case) - seen
        if new and len(kept) < MOST_CASES:
            seen |= new
            kept.append(case)
    return kept


def main() -> None:
    for name in sys.argv[1:] or TARGETS:
        kept = minimised(name)
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        names = {hashlib.sha256(case).hexdigest()[:16]: case for case in kept}
        for file, case in names.items():
            (folder / file).write_bytes(case)
        for path in folder.iterdir():
            if path.name not in names:
                path.unlink()
        print(f"{name:10} {len(kept):3} cases", flush=True)


if __name__ == "__main__":
    main()
