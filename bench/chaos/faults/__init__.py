"""The faults, each in a few lines: what it does up to `yield`, and behind it how it is undone.

    fault      what a fault is
    processes  killed, stopped, frozen, blocked; without memory, without descriptors
    stores     the disk, and the memory of peers
    clock      jumps
    rules      flushed, replaced, taken away by others
    tracking   connection tracking and the queue
    line       interfaces, addresses, MTU, loss
    daemon     the far gateway off, an upgrade

A fault gets one world and acts on it; where there are no gateways, those that strike a daemon do nothing, and
what is measured is the load without any fault. Counterpart: `bench.chaos.ground`, whose worlds these are.
"""

from typing import Final

from bench.chaos.faults import clock, daemon, line, processes, rules, stores, tracking
from bench.chaos.faults.fault import Fault

_SUBJECTS: Final = (processes, stores, clock, rules, tracking, line, daemon)
"""In the order of the table."""

FAULTS: Final[dict[str, Fault]] = {
    each.name: each for subject in _SUBJECTS for each in subject.SUBJECT.faults
}
