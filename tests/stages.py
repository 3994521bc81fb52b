"""Where each block of commands of the documents is run, to be seen to work.

A block is named by its page, the heading above it and its first command. One that stands nowhere here, and a
line here for a block that is no more, fail `tests/unit/test_docs.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.config import Placement
from tests.pages import Block


class Stage(enum.Enum):
    GATEWAY = (
        "by tests/lab/test_command_blocks.py, on a gateway of the lab with its files at their usual places"
    )
    LAB = "by tests/lab/test_command_blocks.py, in a lab that it builds itself"
    CHECKOUT = "by tests/unit/test_command_blocks.py, in this checkout"
    PACKAGE = "by packaging/try.sh, on a bare Debian; that it does is checked literally"
    ELSEWHERE = "by CI, or for a recorded run: too long, or too much, for a test; its words are checked"


@dataclass(frozen=True, slots=True)
class Run:
    """How a block is run."""

    stage: Stage
    by: str = ""
    """The file that runs it, or shows what came out, where that is no test of the blocks."""
    placement: Placement = Placement.ROUTER
    """Of the gateway that it is run on."""
    serves: bool = False
    """A daemon runs there already, and has carried mail."""
    taken_away: bool = False
    """One did, and `nightmail down` and the end of the service were its end."""
    new_machine: bool = False
    """One that has nothing yet but the files in root's home."""


_ROUTER = Run(Stage.GATEWAY)
_SERVING = Run(Stage.GATEWAY, serves=True)
_CHECKOUT = Run(Stage.CHECKOUT)
_PACKAGE = Run(Stage.PACKAGE, by="packaging/try.sh")
_BENCH = Run(Stage.ELSEWHERE, by="bench/results/rivals.json")
_GUESTS = Run(Stage.ELSEWHERE, by="vagrant/prove.sh")
_CI = Run(Stage.ELSEWHERE, by=".ci/run")

RUNS: Final[Mapping[tuple[str, str, str], Run]] = {
    ("README.md", "See it work", "scripts/demo"): _CI,
    ("README.md", "Test it", "scripts/test"): _CI,
    ("README.md", "Run it", "packaging/build.sh"): _PACKAGE,
    ("README.md", "Run it", "nightmail check"): _ROUTER,
    ("CONTRIBUTING.md", "Contributing", "scripts/setup.sh dev"): _CHECKOUT,
    ("docs/doctor.md", "The doctor: what is wrong here, and what mends it", "nightmail doctor"): _SERVING,
    (
        "docs/operations.md",
        "The sources in place of the compiled form",
        "touch /etc/nightmail/source-form",
    ): _PACKAGE,
    ("docs/faults.md", "When things break", "scripts/chaos"): Run(
        Stage.ELSEWHERE, by="bench/results/chaos.json"
    ),
    ("docs/faults.md", "Two hours", "scripts/soak"): Run(Stage.ELSEWHERE, by="bench/results/soak.json"),
    (
        "docs/operations.md",
        "What to keep",
        "sqlite3 /var/lib/nightmail/peers.db '.backup /root/peers.db'",
    ): _SERVING,
    ("docs/operations.md", "What to keep", "systemctl stop nightmail"): _SERVING,
    ("docs/operations.md", "Rotate", "nightmail identity rotate"): _SERVING,
    (
        "docs/operations.md",
        "A broken gateway, replaced",
        "nightmail identity export /root/nightmail.identity",
    ): _SERVING,
    (
        "docs/operations.md",
        "A broken gateway, replaced",
        "nightmail identity import nightmail.identity",
    ): Run(Stage.GATEWAY, new_machine=True),
    (
        "docs/operations.md",
        "Reload and upgrade",
        "apt-get install -y --reinstall ./dist/nightmail_*.deb",
    ): _PACKAGE,
    ("docs/performance.md", "What it costs", "scripts/bench"): _BENCH,
    ("docs/performance.md", "What it costs", "scripts/bench rivals"): _BENCH,
    ("docs/performance.md", "Where the time goes", ".venv/bin/python -m bench.profile clear"): _BENCH,
    ("docs/removing.md", "For a while", "nightmail down"): _SERVING,
    ("docs/removing.md", "The service", "systemctl disable --now nightmail"): _SERVING,
    ("docs/removing.md", "The package", "apt-get remove -y nightmail"): _PACKAGE,
    (
        "docs/removing.md",
        "Look that nothing is left",
        'iptables-save | grep -i nightmail || echo "nothing of ours"',
    ): Run(Stage.GATEWAY, serves=True, taken_away=True),
    ("docs/seeing.md", "Metrics", "nightmail reload"): _SERVING,
    ("docs/start.md", "See it first", "nightmail lab up"): Run(Stage.LAB),
    ("docs/start.md", "Install the package", "packaging/build.sh"): _PACKAGE,
    ("docs/start.md", "On a router", "nightmail check"): _ROUTER,
    ("docs/start.md", "On the mail server itself", "nightmail check"): Run(
        Stage.GATEWAY, placement=Placement.HOST
    ),
    ("docs/start.md", "As a bridge", "nightmail check"): Run(Stage.GATEWAY, placement=Placement.BRIDGE),
    ("docs/start.md", "See that it works", "nightmail ping 192.0.2.7"): _SERVING,
    ("docs/traffic-analysis.md", "What a listener can still guess", "scripts/bench eve"): _BENCH,
    (
        "vagrant/README.md",
        "With the Internet: your own libvirt or VirtualBox",
        "packaging/build.sh",
    ): _GUESTS,
    (
        "vagrant/README.md",
        "Without the Internet, without libvirt, without KVM",
        "export BOX_SUITE=trixie",
    ): _GUESTS,
    (
        "vagrant/README.md",
        "Without the Internet, without libvirt, without KVM",
        "export NIGHTMAIL_BOX=nightmail-lab",
    ): Run(Stage.ELSEWHERE, by="vagrant/proof.sh"),
}


class UnstagedError(Exception):
    """A block that is run nowhere."""


def run_of(block: Block) -> Run:
    """Raises `UnstagedError`."""
    key = key_of(block)
    if key not in RUNS:
        raise UnstagedError(f"{block.name}: no test runs it; tests/stages.py wants a line for {key}")
    return RUNS[key]


def key_of(block: Block) -> tuple[str, str, str]:
    return block.page, block.heading, block.commands[0]


def staged(blocks: Iterable[Block], stage: Stage) -> list[Block]:
    return [block for block in blocks if run_of(block).stage is stage]
