"""Shows, with real mail servers and a real wire, what the gateways claim: one verdict for each claim.

Every mail goes twice: first through plain routers, then with the gateways at work. Whatever differs between
the two runs is the gateways' doing. A verdict never holds for want of evidence: a mail that did not come, or
a hole in the listener's capture, makes the verdicts that rest on it fail.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from gateway.errors import EnvironmentFailureError
from gateway.eyes.transcript import Transcript
from gateway.eyes.wire import WireSession, found_words, round_trips
from gateway.lab import listener
from gateway.lab.lab import Lab, Place
from gateway.lab.mail import Mail, without_traces

ATTACHMENT_OCTETS: Final = 5_000_000
KILLED_MAIL_OCTETS: Final = 30_000_000
"""Large enough that it is still under way when the gateway is killed."""
UNDER_WAY_OCTETS: Final = 2_000_000
"""So much of it has crossed the wire when the gateway is killed."""
GAP_LIMIT_MS: Final = 500.0
"""Half of the first retransmission of a lost SYN: nothing may wait for a timer."""
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim, whether it holds, and the figure that says so."""

    claim: str
    holds: bool
    figure: float
    unit: str


@dataclass(slots=True)
class Trip:
    """One mail's way: what was stored, and the sessions that carried it over the wire."""

    sender: str
    recipient: str
    mail: Mail
    began: float
    stored: bytes | None = None
    seconds: float = 0.0
    failure: str = ""
    sessions: list[WireSession] = field(default_factory=list)

    @property
    def words(self) -> set[str]:
        """The kinds of words that the listener found."""
        return {kind for session in self.sessions for kind in found_words(session, self.mail.words)}

    @property
    def seen_whole(self) -> bool:
        """Whether the listener has seen it, without a hole."""
        return bool(self.sessions) and all(session.complete for session in self.sessions)

    @property
    def round_trips(self) -> int:
        return sum(round_trips(session) for session in self.sessions)

    @property
    def is_sealed(self) -> bool:
        """Whether no word of the mail can be read, and octets in plenty went by that cannot."""
        sealed = sum(line.sealed for session in self.sessions for line in _lines(session))
        return self.seen_whole and not self.words and sealed > self.mail.attachment_octets


@dataclass(slots=True)
class Kill:
    """What happened around the gateway's death."""

    processes: int = 0
    mid_work: bool = False
    gap_ms: float = float("inf")
    next_mail_came: bool = False
    copies: int = 0


@dataclass(slots=True)
class Evidence:
    """Everything that the verdicts rest on."""

    direct: list[Trip] = field(default_factory=list)
    protected: list[Trip] = field(default_factory=list)
    killed: Kill = field(default_factory=Kill)
    after_restart: Trip | None = None


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
        if fitting and session.has_data:
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
            lab.flush("a")
            watch.wait([large.name], GOES_ON_SECONDS)
            seen.copies = watch.copies(large.name)
            progress(f"  the interrupted mail came, {seen.copies} time(s)")
    except EnvironmentFailureError as error:
        # What has not been seen stays as bad as it was at the start, and the verdicts say so.
        progress(f"  NOT AS CLAIMED: {error}")
    return seen


def judge(evidence: Evidence) -> list[Verdict]:
    """The verdicts, in the order in which they are told."""
    direct, protected = evidence.direct, evidence.protected
    between = [trip for trip in protected if (trip.sender, trip.recipient) == ("a", "b")]
    return [
        _delivered(direct, protected),
        _same_octets(direct, protected),
        _control(direct),
        _hidden(between),
        _readable("a", "c", protected),
        _readable("c", "b", protected),
        _sealed(between),
        _no_extra_round_trips(direct, protected),
        *_survives(evidence.killed),
        Verdict(
            "sealed again after the restart",
            evidence.after_restart is not None and evidence.after_restart.is_sealed,
            int(evidence.after_restart is not None and evidence.after_restart.is_sealed),
            "of 1 mail",
        ),
    ]


def _delivered(direct: list[Trip], protected: list[Trip]) -> Verdict:
    trips = direct + protected
    came = sum(trip.stored is not None for trip in trips)
    return Verdict("delivered", came == len(trips) > 0, came, f"of {len(trips)} mails")


def _same_octets(direct: list[Trip], protected: list[Trip]) -> Verdict:
    same = sum(
        one.stored is not None
        and other.stored is not None
        and without_traces(one.stored) == without_traces(other.stored)
        for one, other in zip(direct, protected, strict=True)
    )
    holds = same == len(protected) > 0
    return Verdict("octets as without gateways", holds, same, f"of {len(protected)} mails equal")


def _control(direct: list[Trip]) -> Verdict:
    found, sought = _count_words(direct)
    return Verdict("words on the wire without gateways", found == sought > 0, found, f"of {sought}")


def _hidden(between: list[Trip]) -> Verdict:
    found, sought = _count_words(between)
    holds = bool(between) and found == 0 and all(trip.seen_whole for trip in between)
    return Verdict("words on the wire, a to b", holds, found, f"of {sought}")


def _readable(sender: str, recipient: str, protected: list[Trip]) -> Verdict:
    trips = [trip for trip in protected if (trip.sender, trip.recipient) == (sender, recipient)]
    found, sought = _count_words(trips)
    claim = f"words on the wire, {sender} to {recipient} (one gateway)"
    return Verdict(claim, found == sought > 0, found, f"of {sought}")


def _count_words(trips: list[Trip]) -> tuple[int, int]:
    return sum(len(trip.words) for trip in trips), sum(len(trip.mail.words) for trip in trips)


def _sealed(between: list[Trip]) -> Verdict:
    sealed = sum(trip.is_sealed for trip in between)
    return Verdict("sealed, a to b", sealed == len(between) > 0, sealed, f"of {len(between)} mails")


def _no_extra_round_trips(direct: list[Trip], protected: list[Trip]) -> Verdict:
    pairs = list(zip(direct, protected, strict=True))
    extra = max((other.round_trips - one.round_trips for one, other in pairs), default=0)
    seen = bool(pairs) and all(one.seen_whole and other.seen_whole for one, other in pairs)
    return Verdict("extra round trips", seen and extra <= 0, extra, "at most for a mail")


def _survives(kill: Kill) -> list[Verdict]:
    holds = kill.mid_work and kill.gap_ms <= GAP_LIMIT_MS
    gap = round(kill.gap_ms, 1) if kill.gap_ms != float("inf") else -1.0
    return [
        Verdict("gateway killed: next greeting after", holds, gap, "ms"),
        Verdict(
            "gateway killed: next mail comes", kill.next_mail_came, int(kill.next_mail_came), "of 1 mail"
        ),
        Verdict("gateway killed: interrupted mail, once", kill.copies == 1, kill.copies, "copies"),
    ]


def _lines(session: WireSession) -> list[Any]:
    reader = Transcript()
    lines = [line for p in session.packets if p.fresh for line in reader.feed(p.to_server, p.fresh)]
    return lines + reader.finish()


def side_by_side(evidence: Evidence) -> dict[str, list[str]]:
    """The plain mail by IPv4 from a, as the listener saw it on its way to c and to b."""
    views = {}
    for recipient in ("c", "b"):
        trip = next((t for t in evidence.protected if (t.sender, t.recipient) == ("a", recipient)), None)
        sessions = trip.sessions if trip is not None else []
        views[f"to_{recipient}"] = [
            f"{'>' if line.to_server else '<'} {line.text}"
            for session in sessions
            for line in _lines(session)
        ]
    return views


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
        try:
            evidence = gather(lab, progress)
            if keep:
                lab.keep()
        finally:
            if not keep:
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
