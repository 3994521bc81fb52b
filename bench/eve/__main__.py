"""`scripts/bench eve [--json] [--quick]`: what padding hides, measured with it and without.

Prints a page, or with --json one object; progress goes to standard error. The lab is gone at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import time
from types import FrameType
from typing import Any, Final

from bench.eve import guess, sessions, sight
from bench.eve.sessions import QUESTIONS, Question, Sent
from bench.eve.sight import Sight
from gateway.crypto.padding import padme
from gateway.errors import EnvironmentFailureError
from gateway.policy.limits import FLIGHT_FLOOR_OCTETS

EACH_CLASS: Final = 40
EACH_CLASS_QUICK: Final = 10
SEED: Final = 20260

Json = dict[str, Any]


def main() -> int:
    asked = _asked()
    if os.geteuid() != 0:
        print("eve: it makes network namespaces and needs root", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _break_off)
    began = time.monotonic()
    try:
        found = measure(EACH_CLASS_QUICK if asked.quick else EACH_CLASS)
    except EnvironmentFailureError as error:
        print(f"eve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    found["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(found) if asked.json else text(found))
    return 0


def measure(each_class: int) -> Json:
    """Both ways, and every question."""
    found: Json = {"sessions_each_way": each_class * sum(len(question.labels) for question in QUESTIONS)}
    seen = {}
    lab = sessions.lab()
    try:
        sessions.prepare(lab)
        for padded in (True, False):
            name = "padded" if padded else "unpadded"
            capture = sessions.start_listener(lab)
            sessions.start_gateways(lab, padded=padded)
            sent = sessions.run(lab, each_class, SEED, lambda text, name=name: _say(f"{name}: {text}"))  # type: ignore[misc]
            sessions.stop_gateways(lab)
            sessions.end_listener(lab)
            seen[name] = _matched(sent, sight.sights(capture))
            found[f"{name}_flights_on_steps"] = round(sight.share_on_steps([one for _, one in seen[name]]), 4)
    finally:
        lab.down()
    found["questions"] = {question.name: _answers(question, seen) for question in QUESTIONS}
    return found


def _matched(sent: list[Sent], seen: list[Sight]) -> list[tuple[Sent, Sight]]:
    """Each mail and its session. Raises SystemExit where they are not one to one: nothing would be true."""
    if len(seen) != len(sent) + 1:  # the first one introduced the gateways
        raise SystemExit(f"eve: {len(sent)} mails and {len(seen)} sessions in frames")
    pairs = list(zip(sent, seen[1:], strict=True))
    for mail, session in pairs:
        if not mail.after <= session.began <= mail.before:
            raise SystemExit("eve: a session that is not its mail's")
    return pairs


def _answers(question: Question, seen: dict[str, list[tuple[Sent, Sight]]]) -> Json:
    found: Json = {"classes": len(question.labels), "steps": steps(question, seen["unpadded"])}
    for name, pairs in seen.items():
        mine = [(mail.label, session) for mail, session in pairs if mail.question == question.name]
        labels = [label for label, _ in mine]
        found[name] = {
            "sizes": guess.guess([one.sizes for _, one in mine], labels).as_json(),
            "times": guess.guess([one.times for _, one in mine], labels).as_json(),
            "all": guess.guess([one.sizes + one.times for _, one in mine], labels).as_json(),
        }
        _say(f"{question.name}, {name}: {found[name]['all']['accuracy']:.1%}")
    return found


def steps(question: Question, unpadded: list[tuple[Sent, Sight]]) -> int:
    """How many padded sizes the mails of a question have, each as one flight: what their sizes must tell."""
    sizes = [
        [max(one.flights) for mail, one in unpadded if (mail.question, mail.label) == (question.name, label)]
        for label in range(len(question.labels))
    ]
    return len({padme(max(int(statistics.median(each)), FLIGHT_FLOOR_OCTETS)) for each in sizes})


def text(found: Json) -> str:
    """One page."""
    lines = [
        f"{found['sessions_each_way']} sessions each way, {found['seconds']:.0f} s",
        f"flights of a size that Padme allows: {found['padded_flights_on_steps']:.1%} padded, "
        f"{found['unpadded_flights_on_steps']:.1%} unpadded",
        "",
        "guessed       chance   steps  unpadded    padded  by sizes  by times",
    ]
    for name, one in found["questions"].items():
        padded = one["padded"]
        lines.append(
            f"{name:<12}{padded['all']['chance']:>8.1%}{one['steps'] / one['classes']:>8.1%}"
            f"{one['unpadded']['all']['accuracy']:>10.1%}{padded['all']['accuracy']:>10.1%}"
            f"{padded['sizes']['accuracy']:>10.1%}{padded['times']['accuracy']:>10.1%}"
            f"   ± {padded['all']['margin']:.1%}"
        )
    return "\n".join(lines)


def _say(words: str) -> None:
    print(f"eve: {words}", file=sys.stderr, flush=True)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench eve", description="What a listener can guess.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a page")
    parser.add_argument("--quick", action="store_true", help="few sessions, for a first look")
    return parser.parse_args()


def _break_off(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(f"eve: broken off ({signal.Signals(number).name})")


if __name__ == "__main__":
    sys.exit(main())
