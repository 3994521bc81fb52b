"""Shows, with real mail servers and a real wire, what the gateways claim: one verdict for each claim.

Every mail goes twice: first through plain routers, then with the gateways at work. Whatever differs between
the two runs is the gateways' doing. Counterpart: `verdicts`, which judges what was seen.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from gateway.errors import EnvironmentFailureError
from gateway.lab import listener
from gateway.lab.lab import Lab
from gateway.lab.mail import Mail
from gateway.lab.place import Place
from gateway.lab.verdicts import Evidence, Kill, Trip, Verdict, judge, side_by_side

ATTACHMENT_OCTETS: Final = 5_000_000
KILLED_MAIL_OCTETS: Final = 30_000_000
"""Large enough that it is still under way when the gateway is killed."""
UNDER_WAY_OCTETS: Final = 2_000_000
"""So much of it has crossed the wire when the gateway is killed."""
GOES_ON_SECONDS: Final = 60.0
ROUTES: Final = (("a", "b"), ("a", "c"), ("c", "b"))
STAYS: Final = """
The lab is up (.venv/bin/nightmail lab --help). As root:
  .venv/bin/nightmail lab mail a b                       # one more mail, from alice@a.test to bob@b.test
  .venv/bin/nightmail lab listen                         # what the wire carries; Ctrl-C ends the look
  .venv/bin/nightmail lab exec gw-a -- nightmail status  # any command of nightmail's, asked of gateway a
  .venv/bin/nightmail lab down                           # the end: nothing of the lab stays"""
"""Said last: what comes before the tables is out of sight."""
ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIDE_LINES: Final = 44
SIDE_CHARACTERS: Final = 56

Progress = Callable[[str], None]


def gather(lab: Lab, progress: Progress) -> Evidence:
    """Send everything, kill a gateway, and write down what was seen. Takes a lab without gateways."""
    evidence = Evidence()
    mails = _mails(lab)
    progress(f"{len(mails)} mails through plain routers, for comparison")
    evidence.direct = _send_all(lab, mails, progress)
    progress("the gateways start")
    lab.start_gateways()
    progress("the same mails again, with the gateways at work")
    evidence.protected = _send_all(lab, mails, progress)
    progress("gateway a is killed while a large mail goes through it")
    evidence.killed = _kill(lab, progress)
    progress("gateway a starts again")
    lab.start_gateway("a")
    evidence.after_restart = _send_all(lab, [("a", "b", lab.compose("a", "b")[0])], progress)[0]
    return evidence


def _mails(lab: Lab) -> list[tuple[str, str, Mail]]:
    return [
        (sender, recipient, mail)
        for sender, recipient in ROUTES
        for six in (False, True)
        for size in (0, ATTACHMENT_OCTETS)
        for mail in lab.compose(sender, recipient, size=size, six=six)
    ]


def _send_all(lab: Lab, mails: list[tuple[str, str, Mail]], progress: Progress) -> list[Trip]:
    """One after the other, so that each session on the wire belongs to one mail."""
    trips = []
    for sender, recipient, mail in mails:
        trip = Trip(sender, recipient, mail, time.time())
        try:
            (found,) = lab.deliver(sender, recipient, [mail])
            trip.stored, trip.seconds = found.delivery.path.read_bytes(), found.seconds
            how = f"in the mailbox after {found.seconds * 1000:.0f} ms"
        except EnvironmentFailureError as error:
            trip.failure = str(error)
            how = f"NOT DELIVERED: {error}"
        progress(f"  {mail.sender} to {mail.recipient}, {_size(mail)}: {how}")
        trips.append(trip)
    for session in lab.wire_sessions(since=trips[0].began):
        ends = (lab.site_of(session.client.address), lab.site_of(session.server.address))
        fitting = [t for t in trips if (t.sender, t.recipient) == ends and t.began <= session.began]
        if fitting:
            fitting[-1].sessions.append(session)
    return trips


def _kill(lab: Lab, progress: Progress) -> Kill:
    """SIGKILL gateway a in mid-mail; then see how soon, and how, mail goes on."""
    (large,) = lab.compose("a", "b", size=KILLED_MAIL_OCTETS)
    (small,) = lab.compose("a", "b")
    seen = Kill()
    try:
        with lab.watch("b") as watch:
            goal = lab.listener.pcap.stat().st_size + UNDER_WAY_OCTETS
            lab.send("a", [large])
            listener.wait_size(lab.listener, goal, GOES_ON_SECONDS)
            began = time.monotonic()
            seen.processes = lab.kill_gateway("a")
            greeted = lab.fresh_greeting("a", "b").startswith(b"220 ")
            seen.gap_ms = (time.monotonic() - began) * 1000 if greeted else float("inf")
            seen.mid_work = watch.copies(large.name) == 0
            progress(f"  {seen.processes} processes killed; next greeting {seen.gap_ms:.1f} ms later")
            lab.send("a", [small])
            watch.wait([small.name], GOES_ON_SECONDS)
            seen.next_mail_came = True
            progress("  the next mail came, by the direct way")
            seen.interrupted = lab.flush("a")
            watch.wait([large.name], GOES_ON_SECONDS)
            seen.copies = watch.copies(large.name)
            progress(f"  the interrupted mail came, {seen.copies} time(s)")
    except EnvironmentFailureError as error:
        # What has not been seen stays as bad as it was at the start, and the verdicts say so.
        progress(f"  NOT AS CLAIMED: {error}")
    return seen


def _size(mail: Mail) -> str:
    return f"{mail.attachment_octets / 1e6:g} MB attached" if mail.attachment_octets else "plain"


def _show(console: Console, verdicts: list[Verdict], views: dict[str, list[str]]) -> None:
    seen = Table(title="The same mail, as the listener on the wire saw it", show_lines=False)
    seen.add_column("a to c, where there is no gateway", no_wrap=True, max_width=SIDE_CHARACTERS)
    seen.add_column("a to b, gateway to gateway", no_wrap=True, max_width=SIDE_CHARACTERS)
    left, right = views["to_c"], views["to_b"]
    for number in range(min(SIDE_LINES, max(len(left), len(right)))):
        seen.add_row(*(_cell(lines, number) for lines in (left, right)))
    table = Table(title="Verdicts")
    table.add_column("claim")
    table.add_column("figure", justify="right", no_wrap=True)
    table.add_column("holds", no_wrap=True)
    for verdict in verdicts:
        holds = "[green]yes[/green]" if verdict.holds else "[bold red]NO[/bold red]"
        table.add_row(verdict.claim, f"{verdict.figure:g} {verdict.unit}", holds)
    console.print(seen)
    console.print(table)


def _cell(lines: list[str], number: int) -> str:
    # A bracket in a mail is no markup of ours.
    return lines[number].replace("[", "\\[") if number < len(lines) else ""


def _facts(evidence: Evidence, verdicts: list[Verdict], seconds: float) -> dict[str, Any]:
    return {
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "holds": all(verdict.holds for verdict in verdicts),
        "seconds": round(seconds, 1),
        "mails": [
            {
                "from": trip.mail.sender,
                "to": trip.mail.recipient,
                "attachment_octets": trip.mail.attachment_octets,
                "gateways": gateways,
                "delivered": trip.stored is not None,
                "seconds": round(trip.seconds, 4),
                "round_trips": trip.round_trips,
                "words_on_the_wire": sorted(trip.words),
                "failure": trip.failure,
            }
            for gateways, trips in ((False, evidence.direct), (True, evidence.protected))
            for trip in trips
        ],
        "listener": side_by_side(evidence),
    }


def _end_as_interrupted(number: int, _: FrameType | None) -> None:
    # Once: whoever is impatient must not stop the cleaning up.
    for each in ENDINGS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(f"signal {number}")


def run(place: Place, *, as_json: bool, keep: bool, progress: Progress) -> int:
    """The whole demonstration; its exit status."""
    began = time.monotonic()
    lab = Lab(place)
    with lab.locked():
        lab.up(with_gateways=False, temporary=True, progress=progress)
        kept = False
        try:
            evidence = gather(lab, progress)
            if keep:
                lab.keep()
                kept = True
        finally:
            # Also where it was to be kept, and did not come so far: it says that it is gone.
            if not kept:
                lab.down()
    verdicts = judge(evidence)
    facts = _facts(evidence, verdicts, time.monotonic() - began)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        _show(Console(soft_wrap=False), verdicts, facts["listener"])
        print("every claim holds" if facts["holds"] else "NOT every claim holds")
    if keep:
        print(STAYS, file=sys.stderr)
    return 0 if facts["holds"] else 1


def main() -> None:
    """Command line: `python -m gateway.lab.demo`."""
    parser = argparse.ArgumentParser(
        prog="demo", description="Show what the gateways do, with real mail servers."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--keep", action="store_true", help="leave the lab up")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    place = Place() if asked.folder is None else Place(folder=asked.folder)
    for number in ENDINGS:
        signal.signal(number, _end_as_interrupted)
    began = time.monotonic()

    def progress(step: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {step}", file=sys.stderr, flush=True)

    try:
        sys.exit(run(place, as_json=asked.json, keep=asked.keep, progress=progress))
    except EnvironmentFailureError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; the lab is gone")


if __name__ == "__main__":
    main()
