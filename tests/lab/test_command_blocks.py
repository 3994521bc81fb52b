"""The command blocks of the documents that are for a gateway, run on one, each line in the order of the page.

What stands in for what a reader has: the lab's mail server for the documents' example addresses, a start of
`nightmail run` for systemd (`packaging/try.sh` has the true one), and on a bridge the names of its ports.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from gateway.config import Placement
from tests import pages
from tests.lab import probes, two_sites
from tests.lab.conftest import slot
from tests.lab.probes import MailServer
from tests.lab.seat import Seat
from tests.lab.two_sites import Sites
from tests.pages import PAGES, Block
from tests.stages import Run, Stage, run_of, staged

# A section is a dozen programs one after the other, each as slow as the machine is busy.
pytestmark = pytest.mark.timeout(300)
EXAMPLES: Final = ("ADDRESS", "192.0.2.7", "mail.example.org")
"""Mail servers of others, in the documents."""
SERVICE: Final = {
    "nightmail run": Seat.start,
    "systemctl enable --now nightmail": Seat.start,
    "systemctl disable --now nightmail": Seat.stop,
    "systemctl stop nightmail": Seat.stop,
    "systemctl start nightmail": Seat.start,
}
SHOWN: Final = {
    ("docs/seeing.md", "Is mail protected now: `nightmail status`"): "nightmail status",
    ("docs/seeing.md", "Is there a gateway, and whose: `nightmail ping`"): "nightmail ping ADDRESS",
}
"""Pages that show what a command says, below these headings."""
HOPED: Final = re.compile(r'\|\| echo "(.*)"$')
"""A line that ends so says this, and nothing else, where all is well."""
PORTS: Final = {"outside": "eth0", "inside": "eth1"}
"""The lab's names of a bridge's ports, and those in the documents."""
Section = list[Block]


def sections() -> dict[str, Section]:
    """Blocks that belong together: those under one heading, with the configurations between them."""
    found = {}
    for page in PAGES:
        for heading, group in itertools.groupby(pages.blocks(page), lambda block: block.heading):
            blocks = [block for block in group if block.tag in ("sh", "toml")]
            if any(block.tag == "sh" and run_of(block).stage is Stage.GATEWAY for block in blocks):
                found[f"{page}, {heading}"] = blocks
    return found


SECTIONS: Final = sections()


@dataclass(slots=True)
class Ground:
    """Both sites; gateway b serves, and a mail server stands behind it. `operator` sits at gateway a."""

    sites: Sites
    server: MailServer
    operator: Seat | None = None

    def seat(self, folder: Path, *, serves: bool) -> Seat:
        """A machine that has nothing yet; or, if it is to serve already, the one that was left serving."""
        if self.operator is not None and serves and self.operator.runs:
            status, _ = self.operator.run("nightmail status")
            if status == 0:
                return self.operator
        self.leave()
        self.operator = Seat(self.sites.namespace(self.sites.home("a")), folder)
        return self.operator

    def leave(self) -> None:
        """The rules would outlive the seat. No daemon has to be heard for them to go."""
        if self.operator is None:
            return
        try:
            self.operator.stop()
            status, said = self.operator.run("nightmail down")
            assert status == 0, said
        finally:
            self.operator.leave()
            self.operator = None

    def mail(self) -> None:
        """From site a; it arrives, and gateway b has carried it sealed."""
        before = self._sealed()
        probes.mail(self.sites, "mta-a", self.server, self.sites.address("mta-b", v6=False), b"good evening")
        probes.eventually(lambda: self._sealed() > before, what="one more sealed session at b")

    def _sealed(self) -> int:
        decided = self.sites.status("b")["counters"]["decided"]["in"]
        return sum(decided.get("upgraded", {}).values())


@pytest.fixture(scope="module")
def labs() -> Iterator[Labs]:
    """Both sites in each placement, built when first asked for; gateway b serves in them."""
    with ExitStack() as stack:
        yield Labs(stack)


@contextmanager
def seated(ground: Ground, folder: Path, *, serves: bool) -> Iterator[Seat]:
    """What has gone wrong in one section is not met in the next."""
    try:
        yield ground.seat(folder, serves=serves)
    except BaseException:
        ground.leave()
        raise


class Labs(dict[Placement, Ground]):
    def __init__(self, stack: ExitStack) -> None:
        super().__init__()
        self._stack = stack

    def __missing__(self, placement: Placement) -> Ground:
        sites = self._stack.enter_context(two_sites.built(start=False, placement=placement))
        if placement is Placement.BRIDGE:
            for theirs, documents in PORTS.items():
                node = sites.home("a")
                sites.sh(node, f"ip link set {theirs} down", f"ip link set {theirs} name {documents}")
                sites.sh(node, f"ip link set {documents} up")
        sites.start("b")
        server, _ = (self._stack.enter_context(MailServer(sites, "mta-b", v6)) for v6 in (False, True))
        self[placement] = ground = Ground(sites, server)
        self._stack.callback(ground.leave)
        return ground


@pytest.mark.parametrize("name", SECTIONS)
def test_commands_do_what_the_page_says(name: str, labs: Labs, tmp_path: Path) -> None:
    section = SECTIONS[name]
    runs = [run_of(block) for block in section if block.tag == "sh"]
    (placement,) = {run.placement for run in runs}
    ground = labs[placement]
    with seated(ground, tmp_path, serves=runs[0].serves) as operator:
        for block in section:
            if block.tag == "toml":
                operator.write("/etc/nightmail/nightmail.toml", block.text)
            elif run_of(block).stage is Stage.GATEWAY:
                make_ready(run_of(block), operator, ground)
                follow(block, operator, ground)


@pytest.mark.parametrize("block", staged(pages.command_blocks(), Stage.LAB), ids=lambda block: block.name)
def test_a_lab_does_what_the_page_says(block: Block) -> None:
    """Each line in the order of the page, in a place where no other lab is."""
    with slot() as lab:
        place = lab.place
        where = f"Place({place.prefix!r}, Path({str(place.folder)!r}), Path('{place.lock}.own'))"
        said = {}
        for command in block.commands:
            nightmail, group, *words = pages.words_of(command)
            assert (nightmail, group) == ("nightmail", "lab")
            program = (
                "from pathlib import Path; from gateway.lab.lab import Place;"
                "from gateway.lab.commands import lab;"
                f"lab({words!r}, prog_name='nightmail lab', obj={where})"
            )
            done = subprocess.run(
                [sys.executable, "-c", program], cwd=pages.ROOT, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            said[command] = done.stdout
        Path(f"{place.lock}.own").unlink(missing_ok=True)
    heard = said["nightmail lab listen --recorded"]
    assert "RCPT TO:<carol@c.test>" in heard
    assert "RCPT TO:<bob@b.test>" not in heard
    assert " offer-missing " in said["nightmail lab exec gw-a -- nightmail status"]


def make_ready(run: Run, operator: Seat, ground: Ground) -> None:
    """As the page takes the machine to be."""
    if run.new_machine:
        operator.stop()
        operator.run("nightmail down; rm -rf /var/lib/nightmail/*")
    if run.serves and not operator.runs:
        operator.start()
        ground.mail()
    if run.taken_away:
        status, said = operator.run("iptables-save | grep -i nightmail && nightmail down")
        assert status == 0, said
        operator.stop()


def follow(block: Block, operator: Seat, ground: Ground) -> None:
    """Each line as it stands there. One that starts the gateway is followed by mail, which must be sealed."""
    for command in block.commands:
        if command in SERVICE:
            SERVICE[command](operator)
            if operator.runs:
                ground.mail()
            continue
        status, said = operator.run(meant(command, ground.sites))
        assert status == 0, f"{block.name}: {command}: exit status {status}: {said}"
        hoped = HOPED.search(command)
        assert hoped is None or said.strip() == hoped.group(1), f"{block.name}: {command}: {said}"


def meant(command: str, sites: Sites) -> str:
    for example in EXAMPLES:
        command = command.replace(example, sites.address("mta-b", v6=False))
    return command


def test_what_a_page_shows_of_an_answer_is_in_the_answer(labs: Labs, tmp_path: Path) -> None:
    ground = labs[Placement.ROUTER]
    with seated(ground, tmp_path, serves=True) as operator:
        make_ready(Run(Stage.GATEWAY, serves=True), operator, ground)
        for (page, heading), command in SHOWN.items():
            (shown,) = [one for one in pages.blocks(page) if (one.heading, one.tag) == (heading, "text")]
            status, said = operator.run(meant(command, ground.sites))
            assert status == 0, said
            labels = set(filter(None, map(label, shown.text.splitlines())))
            assert len(labels) > 2
            assert labels <= {label(line) for line in said.splitlines()}, said


def label(line: str) -> str:
    """What a line is about: its words up to the first mark; nothing where it begins with a figure."""
    found = re.match(r" *([A-Za-z][A-Za-z ]*)[:,]", line)
    return found.group(1) if found else ""
