"""What a client without a gateway costs the receiving side: `python -m bench.resting [--turns N] [--json]`.

Three copies of the lab's network: one without a gateway, one whose receiving gateway makes an offer in each
session, and one where the clients rest (`offers.rest`), so that three of four sessions pass at its gate.
Rounds of all three alternate, each turn begins with another one. Figures are the whole machine's CPU time of
a session, less that of the same turn's without a gateway: medians and middle halves.
Counterparts: `bench.rivals`, which has dead ends; `bench.rules`, for what the rules alone cost a session.
"""

from __future__ import annotations

import argparse
import enum
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench import figures, form, load, planes
from bench.load import Anyway, Round
from bench.planes import Plane, in_turn
from bench.rivals.variants import replaced

MAIL_OCTETS: Final = 4096
PARALLEL: Final = 20
SESSIONS: Final = 1200
"""Of one round."""
TURNS: Final = 8
LEARN_SECONDS: Final = 60.0
BASELINE_SECONDS: Final = 2.0
_RESTS: Final = re.compile(r" gate client-rests source=(\S+) to=(\S+)")


class Site(enum.Enum):
    """What stands before the receiving mail servers."""

    DIRECT = "direct"
    OFFERS = "offers"
    RESTING = "resting"

    @property
    def gateway_names(self) -> tuple[str, ...]:
        return () if self is Site.DIRECT else ("gw-b",)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.resting", description="Clients that ignore offers.")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--sessions", type=int, default=SESSIONS, help="of one round")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a page")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: it makes network namespaces and needs root", file=sys.stderr)
        return 1
    form.product()
    found = measure(asked.turns, asked.sessions)
    print(json.dumps(found) if asked.json else text(found))
    return 0


def text(found: dict[str, Any]) -> str:
    lines = [f"{found['seen_share']:.1%} of the sessions of clients that rest came to the gateway"]
    for name, added in found["cpu_ms_added"].items():
        spread = f"{added['median']:.3f} ms [{added['quartile_low']:.3f}-{added['quartile_high']:.3f}]"
        lines.append(f"{name:8} adds {spread} to a session")
    return "\n".join(lines)


def measure(turns: int, sessions: int) -> dict[str, Any]:
    with planes.standing("resting", list(Site), change=_configured) as standing:
        program, resting = load.esmtp_source(standing[Site.DIRECT].folder), standing[Site.RESTING]
        with load.sinks(standing.values()):
            _learn(resting, program)
            anyway = load.anyway(standing[Site.DIRECT], program, BASELINE_SECONDS)
            before = _seen(resting)
            taken = [
                {site: _drive(standing[site], program, sessions) for site in in_turn(Site, turn)}
                for turn in range(turns)
            ]
            time.sleep(load.REST_SECONDS)  # the last lines of its log
            seen = _seen(resting) - before
    return compared(taken, anyway) | {
        "seen_share": seen / sum(turn[Site.RESTING].sessions for turn in taken),
    }


def compared(taken: Sequence[dict[Site, Round]], anyway: Anyway) -> dict[str, Any]:
    cpu = {site: [turn[site].cpu_ms(anyway) for turn in taken] for site in Site}
    return {
        "cpu_ms_added": {
            site.value: figures.differences(cpu[site], cpu[Site.DIRECT]).as_json()
            for site in (Site.OFFERS, Site.RESTING)
        }
    }


def _configured(plane: Plane, written: str) -> str:
    return replaced(written, "rest = false", "rest = true") if plane.variant is Site.RESTING else written


def _drive(plane: Plane, program: Path, sessions: int) -> Round:
    return load.drive(plane, program, parallel=PARALLEL, sessions=sessions, octets=MAIL_OCTETS)


def _learn(plane: Plane, program: Path) -> None:
    """Sessions until each pair of addresses passes at the gate. Raises SystemExit where they never do."""
    (gateway,) = plane.gateways
    deadline = time.monotonic() + LEARN_SECONDS
    while len(set(_RESTS.findall(gateway.log.read_text()))) < len(plane.destinations):
        if time.monotonic() > deadline:
            raise SystemExit("bench: the clients do not come to rest")
        _drive(plane, program, SESSIONS)


def _seen(plane: Plane) -> int:
    (gateway,) = plane.gateways
    return gateway.log.read_text().count(" session begun ")


if __name__ == "__main__":
    sys.exit(main())
