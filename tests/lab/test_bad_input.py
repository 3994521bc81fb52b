"""What an operator can do wrong, and what a machine can lack: one clear line each, and nothing half done.

The real command, in a namespace of its own (nmbi-<pid>) that looks like a router's. Its state is on a small
disk of its own (tmpfs), so that a full one is a full one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.lab.processes import kill_all_in
from tests.lab.own_namespaces import WITHOUT_ROOTS_TOOLS, lonely_router, remove_ours

SOURCE = Path(__file__).parents[2]
NAME = f"nmbi-{os.getpid()}"
PATIENCE = 60.0
GOOD = """\
version = 1
[interfaces]
inside = ["lan"]
outside = ["wan"]
[daemon]
state_dir = "{folder}/state"
run_dir = "{folder}/run"
"""


@dataclass
class Machine:
    """One namespace, its configuration, and what stands in its kernel."""

    folder: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "nightmail.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def command(self, *words: str) -> list[str]:
        own = [sys.executable, "-m", "gateway", "--config", str(self.configuration), *words]
        return ["nsenter", f"--net=/run/netns/{NAME}", *own]

    def start(self, *words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """`before` is a command that runs ours. Tools in `bin` come before the machine's own."""
        return subprocess.Popen(
            [*before, *self.command(*words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=SOURCE,
            env={**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"},
        )

    def said(self, *words: str, status: int, before: tuple[str, ...] = ()) -> str:
        """The one line of complaint. It says nothing else, and ends with this status."""
        process = self.start(*words, before=before)
        out, err = process.communicate(timeout=PATIENCE)
        return complaint(process.returncode, out, err, status)

    def run(self, *words: str) -> str:
        process = self.start(*words)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, ""), out + err
        return out

    def kernel(self) -> str:
        """All that could be ours in this namespace."""
        looks = (
            "iptables-save", "ip6tables-save", "nft list ruleset", "ip rule", "ip -6 rule",
            "ip route show table all", "ip -6 route show table all", "sysctl net.ipv4.tcp_early_demux",
        )  # fmt: skip
        outputs = (
            subprocess.run(
                ["nsenter", f"--net=/run/netns/{NAME}", *look.split()],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for look in looks
        )
        # Empty tables of iptables stay once they were looked at; tables are listed as they were made. What
        # IPv6 says for seconds when a cable has come up is counted.
        uncounted = (re.sub(r"counter packets \d+ bytes \d+", "counter", text) for text in outputs)
        lines = [line for text in uncounted for line in text.splitlines()]
        return "\n".join(sorted(line for line in lines if re.search("NIGHTMAIL|nightmail|2525|demux", line)))

    def tool(self, name: str, script: str) -> None:
        """In the place of a program of the machine, whose own path is $own."""
        own = shutil.which(name)
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\nown={own}\n{script}\n")
        path.chmod(0o755)


def complaint(returned: int, out: str, err: str, status: int) -> str:
    lines = err.splitlines()
    assert (returned, out, len(lines)) == (status, "", 1), out + err
    assert lines[0].startswith("nightmail: ")
    assert "internal error" not in lines[0]
    return lines[0]


@pytest.fixture(scope="module")
def namespace() -> Iterator[None]:
    remove_ours("nmbi")
    with lonely_router(NAME):
        yield


@pytest.fixture
def machine(namespace: None) -> Iterator[Machine]:
    # Not below pytest's own folder, which nobody but root may enter.
    folder = Path(tempfile.mkdtemp(prefix="nmbi-"))
    folder.chmod(0o755)
    here = Machine(folder)
    for name in ("state", "run", "bin"):
        (folder / name).mkdir(mode=0o700)
    here.configuration.write_text(GOOD.format(folder=folder))
    before = here.kernel()
    assert "NIGHTMAIL" not in before
    try:
        yield here
    finally:
        shutil.rmtree(folder / "bin")
        here.configuration.write_text(GOOD.format(folder=folder))
        here.run("down")
        assert here.kernel() == before
        shutil.rmtree(folder)


def words(*always: str, long: tuple[str, ...]) -> pytest.MarkDecorator:
    """Commands that a test is run with; much alike are those that only --all takes."""
    more = [pytest.param((one,), marks=pytest.mark.long, id=one) for one in long]
    return pytest.mark.parametrize("words", [*(pytest.param((one,), id=one) for one in always), *more])


# --- Configuration -----------------------------------------------------------------------------------


@words("up", "run", long=("plan",))
def test_wrong_interface(machine: Machine, words: tuple[str, ...]) -> None:
    before = machine.kernel()
    machine.configuration.write_text(machine.configuration.read_text().replace("lan", "lna"))
    line = machine.said(*words, status=2)
    assert "interfaces.inside: no interface lna here" in line
    assert "lan, " in line
    assert machine.kernel() == before
    assert list(machine.state.iterdir()) == []


@words("up", "doctor", long=("run", "status"))
def test_configuration_of_a_later_version(machine: Machine, words: tuple[str, ...]) -> None:
    before = machine.kernel()
    machine.configuration.write_text("version = 2\n[tomorrow]\nwhat = 'nobody knows'\n")
    line = machine.said(*words, status=2)
    assert f"{machine.configuration}:1: version: 2 is not allowed" in line
    assert "a later version of Nightmail wrote this file" in line
    assert machine.kernel() == before
    assert list(machine.state.iterdir()) == []


# --- Addresses, files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("peers", "show", "192.0.2.300"), 2, "192.0.2.300"),
        (("peers", "show", "203.0.113.9"), 1, "203.0.113.9"),
        (("peers", "forget", "203.0.113.9"), 1, "no peer is remembered"),
        (("peers", "forget", "mail.example"), 2, "mail.example"),
        (("peers", "history", "203.0.113.9"), 1, "203.0.113.9"),
        (("explain", "no..name"), 1, "no..name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_unknown_address(machine: Machine, words: tuple[str, ...], status: int, told: str) -> None:
    assert told in machine.said(*words, status=status)


PCAP = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")


@pytest.mark.parametrize(
    ("octets", "told"),
    [
        (None, "No such file"),
        (b"", ""),
        (b"this is no capture at all, whatever it is called\n" * 9, ""),
        (PCAP[:13], ""),
    ],
    ids=["missing", "empty", "text", "cut"],
)
def test_unreadable_capture(machine: Machine, octets: bytes | None, told: str) -> None:
    path = machine.folder / "wire.pcap"
    if octets is not None:
        path.write_bytes(octets)
    line = machine.said("audit", "--read", str(path), status=1)
    assert str(path) in line
    assert told in line


def test_a_folder_is_no_capture(machine: Machine) -> None:
    assert str(machine.folder) in machine.said("audit", "--read", str(machine.folder), status=1)


def test_audit_on_an_interface_that_is_not_there(machine: Machine) -> None:
    assert "nope" in machine.said("audit", "--interface", "nope", "--seconds", "0.1", status=1)


# --- Up ----------------------------------------------------------------------------------------------


def test_up_twice(machine: Machine) -> None:
    first = machine.run("up")
    stood = machine.kernel()
    assert "NIGHTMAIL-GATE" in stood
    assert machine.run("up") == first
    assert machine.kernel() == stood
    assert machine.run("plan").startswith("nothing to change: all rules are in place\n")


IN_BETWEEN = """\
if [ ! -e {folder}/met ]; then
    touch {folder}/met
    {what}
fi
exec $own "$@"
"""
"""The last tool of `up`: everything but the rules of IPv6 stands when it is met first."""


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_interrupted_up(machine: Machine, number: signal.Signals) -> None:
    before = machine.kernel()
    machine.run("down")
    word = (machine.state / "wanted.json").read_text()
    os.mkfifo(machine.folder / "fifo")
    what = f"echo here >{machine.folder}/fifo; exec sleep 30"
    machine.tool("ip6tables-restore", IN_BETWEEN.format(folder=machine.folder, what=what))
    process = machine.start("up")
    assert (machine.folder / "fifo").read_text() == "here\n"
    assert "NIGHTMAIL" in machine.kernel()
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert "interrupted; everything is as it was before" in complaint(process.returncode, out, err, 1)
    assert machine.kernel() == before
    assert (machine.state / "wanted.json").read_text() == word


@pytest.mark.parametrize("then", ["up", "down"])
def test_killed_up(machine: Machine, then: str) -> None:
    """Nobody can undo then. What is left does no harm, and the next `up` or `down` knows it."""
    before = machine.kernel()
    os.mkfifo(machine.folder / "fifo")
    what = f"echo here >{machine.folder}/fifo; exec sleep 30"
    machine.tool("ip6tables-restore", IN_BETWEEN.format(folder=machine.folder, what=what))
    process = machine.start("up")
    assert (machine.folder / "fifo").read_text() == "here\n"
    process.kill()
    process.communicate(timeout=PATIENCE)
    kill_all_in([NAME])
    assert "add " in machine.run("plan")
    machine.run(then)
    if then == "up":
        assert machine.run("plan").startswith("nothing to change: all rules are in place\n")
    else:
        assert machine.kernel() == before


@pytest.mark.parametrize(
    ("tool", "says", "told"),
    [
        ("nft", "Error: Could not process rule: No such file or directory", "nft: Error"),
        ("iptables-restore", "line 17 failed: No chain/target/match by that name", "line 17"),
        ("ip6tables-restore", "Extension NFQUEUE is not supported, missing kernel module?", "module?"),
    ],
    ids=["nft", "iptables", "ip6tables"],
)
def test_missing_kernel_module(machine: Machine, tool: str, says: str, told: str) -> None:
    """The words are the tools' own; this kernel has all modules, so that a stand-in must say them."""
    before = machine.kernel()
    script = IN_BETWEEN.format(folder=machine.folder, what=f"cat >/dev/null; echo '{says}' >&2; exit 1")
    machine.tool(tool, script.replace("[ ! -e", '[ "$1" != -s -a "$1" != -j -a ! -e'))
    # `plan` asks the tools, and says it first.
    assert told in (machine.said("plan", status=1) if tool == "nft" else machine.run("plan"))
    (machine.folder / "met").unlink()
    line = machine.said("up", status=1)
    assert told in line
    assert machine.kernel() == before


def test_no_tools(machine: Machine) -> None:
    """Neither in PATH nor in root's folders, where they are looked for as well."""
    for name in ("env", "nsenter", "sh"):
        (machine.folder / "bin" / name).symlink_to(str(shutil.which(name)))
    only = ("unshare", "--mount", "sh", "-c", f'{WITHOUT_ROOTS_TOOLS}; PATH={machine.folder}/bin "$@"', "sh")
    for word in ("plan", "up"):
        assert "is not installed" in machine.said(word, status=1, before=only)


# --- Rights, room ------------------------------------------------------------------------------------


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+dac_read_search",
          "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search")  # fmt: skip
"""May read this source tree wherever it lies, and nothing else."""
CONTAINER = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Root by name only, as in a container."""


@pytest.mark.parametrize("rights", [NOBODY, CONTAINER], ids=["nobody", "container"])
@words("up", "run", long=("plan", "down"))
def test_no_root(machine: Machine, words: tuple[str, ...], rights: tuple[str, ...]) -> None:
    before = machine.kernel()
    inside = ["nsenter", f"--net=/run/netns/{NAME}", *rights, *machine.command(*words)[2:]]
    done = subprocess.run(inside, capture_output=True, text=True, timeout=PATIENCE, cwd=SOURCE, check=False)
    complaint(done.returncode, done.stdout, done.stderr, 1)
    assert re.search("not permitted|ermission denied|run as root|must be root", done.stderr), done.stderr
    assert machine.kernel() == before


@pytest.fixture
def full_disk(machine: Machine) -> Iterator[Machine]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "full", machine.state], check=True)
    try:
        filler = machine.state / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        yield machine
        filler.unlink()
    finally:
        subprocess.run(["umount", machine.state], check=True)


@words("up", "run", long=("down",))
def test_full_disk(full_disk: Machine, words: tuple[str, ...]) -> None:
    before = full_disk.kernel()
    line = full_disk.said(*words, status=1)
    assert "No space left on device" in line
    assert str(full_disk.state) in line
    assert full_disk.kernel() == before
    assert {path.name for path in full_disk.state.iterdir()} <= {"filler", "identity.lock"}
