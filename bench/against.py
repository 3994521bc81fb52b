"""`scripts/bench --against REV [sessions|bulk|delivery ...]`: this tree and another revision, side by side.

Planes of both stand at the same time and take turns: a machine that gets slow is slow for both. Beside them
one plane whose receiving gateway offers in each session and is never taken at its word, one whose gateway
lets such clients rest, as it does by default, and one whose gateway never offers: what the offer costs a
session that is never upgraded. Counterparts: `planes`, `load`, `figures`;
`revisions`; `transfers`, which does bulk and delivery.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench import figures, load, planes, report, transfers
from bench.planes import Kind, Plane, Variant
from bench.revisions import EACH_SESSION, standing_of, tree_of

PARALLEL: Final = (20, 200)
MAIL_OCTETS: Final = 4096
TURNS: Final = 8
QUICK_TURNS: Final = 3
ROUND_SESSIONS: Final[dict[Kind, int]] = {Variant.DIRECT: 3000, Variant.CLEAR: 1500, Variant.CHANNEL: 800}
WARM_SESSIONS: Final = 300
IDLE_SECONDS: Final = 2.0
NEVER: Final = '[exceptions]\nnever_offer = ["0.0.0.0/0", "::/0"]\n'


def measure(revision: str, names: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """Sessions alone where nothing is named. Raises SystemExit for a revision that git does not know."""
    found: dict[str, Any] = {"machine": report.machine(), "against": revision, "quick": quick}
    with tree_of(revision) as tree:
        for name in names or ["sessions"]:
            found[name] = MEASURES[name](tree, quick=quick)
    return found


def sessions(tree: Path, *, quick: bool) -> dict[str, Any]:
    """Many small mails, by how many at a time."""
    with contextlib.ExitStack() as stack:
        now = stack.enter_context(planes.standing("now", list(Variant)))
        before = stack.enter_context(standing_of(tree, [Variant.CLEAR, Variant.CHANNEL]))
        # Only the receiving side has a gateway here: its offer is read by nobody.
        offers = stack.enter_context(planes.standing("offers", [Variant.CLEAR], names=("gw-b",)))
        rests = stack.enter_context(
            planes.standing(
                "rests",
                [Variant.CLEAR],
                names=("gw-b",),
                change=lambda _, text: text.replace(EACH_SESSION, ""),
            )
        )
        never = stack.enter_context(
            planes.standing("never", [Variant.CLEAR], names=("gw-b",), configuration=NEVER)
        )
        standing = {
            "direct": now[Variant.DIRECT],
            "clear-now": now[Variant.CLEAR],
            "clear-before": before[Variant.CLEAR],
            "channel-now": now[Variant.CHANNEL],
            "channel-before": before[Variant.CHANNEL],
            "offers": offers[Variant.CLEAR],
            "offers-rest": rests[Variant.CLEAR],
            "never-offers": never[Variant.CLEAR],
        }
        for plane in standing.values():
            stack.enter_context(load.sink(plane))
        program = load.esmtp_source(now[Variant.DIRECT].folder)
        turns = QUICK_TURNS if quick else TURNS
        return {str(count): _loaded(standing, program, count, turns) for count in PARALLEL}


MEASURES: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    "sessions": sessions,
    "bulk": transfers.bulk,
    "delivery": transfers.delivered,
}


def text(found: dict[str, Any]) -> str:
    lines = [f"this tree against {found['against']}; medians, in brackets the middle half of the turns"]
    for parallel, entry in found.get("sessions", {}).items():
        lines.append(f"  {parallel} parallel, 4 KB mails")
        for key, one in entry["cpu_ms_added"].items():
            lines.append(f"    CPU added, {key:24} {_band(one)} ms")
        for key, one in entry["ratios"].items():
            lines.append(f"    {key:35} {_band(one)}")
        lines.append(f"    other work meanwhile: {_band(entry['strangers_share'])} CPUs")
    return "\n".join([*lines, *transfers.text(found)])


def _band(one: dict[str, float]) -> str:
    return f"{one['median']:.2f} [{one['quartile_low']:.2f}-{one['quartile_high']:.2f}]"


def _loaded(standing: dict[str, Plane], program: Path, parallel: int, turns: int) -> dict[str, Any]:
    anyway = load.anyway(standing["direct"], program, IDLE_SECONDS)
    rounds: dict[str, list[load.Round]] = {name: [] for name in standing}
    names = list(standing)
    for plane in standing.values():
        load.drive(plane, program, parallel=parallel, sessions=WARM_SESSIONS, octets=MAIL_OCTETS)
    for turn in range(turns):
        for name in planes.in_turn(names, turn):
            plane = standing[name]
            count = max(2 * parallel, ROUND_SESSIONS[plane.variant])
            done = load.drive(plane, program, parallel=parallel, sessions=count, octets=MAIL_OCTETS)
            rounds[name].append(done)
        print(f"bench: {parallel} parallel, turn {turn + 1} of {turns}", file=sys.stderr)
    return _figures(rounds, anyway)


def _figures(rounds: dict[str, list[load.Round]], anyway: load.Anyway) -> dict[str, Any]:
    cpu = {name: [one.cpu_ms(anyway) for one in several] for name, several in rounds.items()}
    own = {name: [one.gateway_seconds / one.sessions for one in several] for name, several in rounds.items()}
    added = {
        name: figures.differences(cpu[name], cpu["direct"], share=0.5 if "channel" in name else 1.0)
        for name in rounds
        if name != "direct"
    }
    quotients = {
        "channel_own_cpu_now_vs_before": figures.ratios(own["channel-now"], own["channel-before"]),
        "clear_own_cpu_now_vs_before": figures.ratios(own["clear-now"], own["clear-before"]),
    }
    for name, share in (("offers", "offer"), ("offers-rest", "offer_now_and_then")):
        extra = [one - other for one, other in zip(cpu[name], cpu["never-offers"], strict=True)]
        of_all = [one - direct for one, direct in zip(cpu[name], cpu["direct"], strict=True)]
        quotients[f"{share}_share_of_what_is_added"] = figures.ratios(extra, of_all)
    for kind in ("channel", "clear"):
        now, then = (
            [one - direct for one, direct in zip(cpu[f"{kind}-{when}"], cpu["direct"], strict=True)]
            for when in ("now", "before")
        )
        quotients[f"{kind}_cpu_added_now_vs_before"] = figures.ratios(now, then)
    strangers = [one.stranger_seconds / one.seconds for several in rounds.values() for one in several]
    return {
        "cpu_ms_added": {name: one.as_json() for name, one in added.items()},
        "ratios": {name: one.as_json() for name, one in quotients.items()},
        "strangers_share": figures.summary(strangers).as_json(),
    }
