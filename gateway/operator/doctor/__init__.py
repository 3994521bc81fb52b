"""`nightmail doctor`: what keeps mail from being protected here, why it matters, and what mends it

Reads the machine once (`machine`), judges what it has seen (`table`, pure), and then tries a real
connection through the gate (`trial`). Changes nothing, and leaves nothing behind.

machine, network, filters             the machine, read into a `snapshot`
table                                 all checks, in the order of mending; each finds a `trouble`
files, settings, running              checks of what is kept, set and run here; `configfile` how a key is set
routing                               checks whether mail comes by
firewall, nftables, closed, passing   checks of others' rules; `saved` reads an iptables-save dump for them
trial, stand                          a real connection, between two network namespaces of our own
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.operator.doctor import machine, trial
from gateway.operator.doctor.snapshot import Snapshot
from gateway.operator.doctor.table import checks_for
from gateway.operator.doctor.trouble import Trouble

__all__ = ["Diagnosis", "Trouble", "as_json", "examine", "judged", "told"]

PRIVILEGES: Final = "privileges"
CONNECTION: Final = "connection"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Troubles by the name of the check that found them. `notes` are no troubles."""

    troubles: Mapping[str, list[Trouble]]
    notes: list[str] = field(default_factory=list)

    @property
    def all_green(self) -> bool:
        return not any(self.troubles.values())


def examine(
    config: Config, path: Path, *, is_default: bool, on_trial: Callable[[], None] = lambda: None
) -> Diagnosis:
    """`on_trial` is told before the one step that takes a while when it fails."""
    seen = machine.snapshot(config, path, is_default=is_default)
    troubles, notes = judged(seen), list(_notes(seen))
    hindrance = trial.cannot(seen, [name for name, found in troubles.items() if found])
    if not hindrance:
        on_trial()
        try:
            troubles[CONNECTION] = list(trial.tried(seen))
        except EnvironmentFailureError as error:
            hindrance = str(error)
    if hindrance:
        troubles[CONNECTION] = []
        notes.append(f"no trial connection: {hindrance}")
    return Diagnosis(troubles, notes)


def judged(seen: Snapshot) -> dict[str, list[Trouble]]:
    checks = checks_for(seen.config.placement)
    if not seen.root:
        # What is behind a closed door would be told as if it were not there, and mended by what does harm.
        checks = {PRIVILEGES: checks[PRIVILEGES]}
    return {name: list(check(seen)) for name, check in checks.items()}


def _notes(seen: Snapshot) -> Iterator[str]:
    if not seen.clock.synchronised:
        yield "the kernel's clock is not synchronised (NTP); keys are used by days, so hours do no harm"
    if not (seen.config.alarm_mail_to or seen.config.alarm_command):
        yield "alarms stand in the log and in `status` alone; alarms.mail_to or alarms.command tells somebody"


def told(diagnosis: Diagnosis) -> Iterator[str]:
    """Lines for a person; the first one answers."""
    found = [trouble for troubles in diagnosis.troubles.values() for trouble in troubles]
    if not found:
        yield f"all green: {len(diagnosis.troubles)} checks, no trouble"
    else:
        yield f"{len(found)} trouble{'s' if len(found) > 1 else ''} found by {len(diagnosis.troubles)} checks"
    for number, trouble in enumerate(found, start=1):
        yield ""
        yield f"{number}. {trouble.what}"
        yield f"   why:  {trouble.why}"
        yield f"   mend: {trouble.mend}"
    if diagnosis.notes:
        yield ""
    for note in diagnosis.notes:
        yield f"note: {note}"


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "all_green": diagnosis.all_green,
        "checks": list(diagnosis.troubles),
        "troubles": [
            {"check": name, "what": one.what, "why": one.why, "mend": one.mend}
            for name, troubles in diagnosis.troubles.items()
            for one in troubles
        ],
        "notes": diagnosis.notes,
    }
