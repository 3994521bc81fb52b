"""A running worker: what it is, what it holds, and what it can open, connect to and execute.

Real daemons in namespaces. Each layer of the confinement is tried alone as well, so that a layer that is left
out is seen: what it refuses is then refused by nobody. Namespaces nmf0-...
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway import config
from gateway.lab import gateways, processes
from gateway.observe.protection import is_protecting
from gateway.runtime import confinements, hardening, identity_file, landlock
from tests.lab import two_sites
from tests.lab.gateway_log import GatewayLog
from tests.lab.probes import MailServer, eventually, mail
from tests.lab.two_sites import Sites

PIDFD_GETFD = 438
_OF_A_WORKER = (1 << hardening.NET_ADMIN) | (1 << hardening.NET_BIND_SERVICE)


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    """Both gateways have made and taken offers, and each session asks the signer for one."""
    with two_sites.built(configuration=two_sites.NO_TICKETS) as sites:
        with MailServer(sites, "mta-b", False) as server:
            for _ in range(4):
                mail(sites, "mta-a", server, sites.address("mta-b", False), b"hello")
        with MailServer(sites, "mta-a", False) as server:
            mail(sites, "mta-b", server, sites.address("mta-a", False), b"hello")
        for letter in "ab":
            eventually(
                lambda letter=letter: sites.status(letter)["signer"]["signed"], what="a signature told"
            )
        yield sites


def facts(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return {key: value.strip() for key, value in re.findall(r"^(\w+):(.*)$", text, re.MULTILINE)}


def signer_of(sites: Sites, letter: str) -> int:
    pid = sites.status(letter)["signer"]["pid"]
    assert isinstance(pid, int)
    return pid


# --- What the processes are ---------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["a", "b"])
def test_a_worker_is_nobody_and_holds_two_capabilities(sites: Sites, letter: str) -> None:
    workers = sites.workers(letter)
    assert len(workers) == sites.serving(letter) == 2
    for pid in workers:
        found = facts(pid)
        for numbers in (found["Uid"], found["Gid"]):
            assert len(set(numbers.split())) == 1
            assert "0" not in numbers.split()
        assert found["Groups"] == ""
        for name, held in (("CapEff", _OF_A_WORKER), ("CapPrm", _OF_A_WORKER), ("CapBnd", _OF_A_WORKER)):
            assert int(found[name], 16) == held, name
        assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")


def test_a_client_with_a_low_port_is_served(sites: Sites) -> None:
    """What NET_BIND_SERVICE is for: both gateways dial from the client's own address and port."""
    with MailServer(sites, "mta-b", False) as server:
        client, target = (sites.address("mta-a", False), 900), sites.address("mta-b", False)
        with contextlib.closing(GatewayLog(sites.gateway("b").log)) as log:
            mail(sites, "mta-a", server, target, b"from below 1024", port=900)
            session = log.ended(client, (target, 25))
        assert session.protected, session


def test_the_signer_is_another_user_and_holds_no_capability(sites: Sites) -> None:
    found = facts(signer_of(sites, "a"))
    users = {facts(pid)["Uid"].split()[0] for pid in [*sites.workers("a"), sites.supervisor("a")]}
    assert found["Uid"].split()[0] not in users
    assert all(int(found[name], 16) == 0 for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"))
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")


def test_status_says_what_is_in_force(sites: Sites) -> None:
    said = sites.command("a", "status")
    assert f"workers: confined by {', '.join(hardening.LAYERS)}\n" in said
    assert "signer: pid=" in said
    assert sites.alarms("a", "worker-unconfined") == []
    for letter in "ab":
        assert sites.alarms(letter, "internal") == [], "what workers say is what they may say"


# --- What they hold -----------------------------------------------------------------------------------------


def holds(pid: int, secret: bytes) -> bool:
    """Whether it stands in the process's memory, as octets or spelled in hex."""
    spelled = (secret, secret.hex().encode())
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if "r" not in line.split()[1] or "[v" in line:
                continue
            with contextlib.suppress(OSError):  # given back since it was listed
                memory.seek(begin)
                octets = memory.read(end - begin)
                if any(one in octets for one in spelled):
                    return True
    return False


@pytest.mark.parametrize("letter", ["a", "b"])
def test_the_identity_is_in_no_workers_memory(sites: Sites, letter: str) -> None:
    """The same search finds it in the signer, and the public half in a worker."""
    kept = identity_file.load(sites.gateway(letter).folder / "state" / "identity")
    assert kept is not None
    assert holds(signer_of(sites, letter), kept.site.seed)
    workers = sites.workers(letter)
    assert len(workers) == 2
    for pid in workers:
        assert holds(pid, kept.site.key.public.octets)
        assert not holds(pid, kept.site.seed)


def test_only_its_own_descriptors_are_open_in_a_worker(sites: Sites) -> None:
    """No file but the memory of peers; nothing of the identity, the control socket or another worker."""
    workers = sites.workers("a")
    assert len(workers) == 2
    for pid in workers:
        opened = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
        files = {Path(one).name for one in opened if one.startswith("/")}
        assert files <= {"null", "gateway.log", "peers.db", "peers.db-wal", "peers.db-shm"}, files


# --- What it can do -----------------------------------------------------------------------------------------


@dataclass
class Ground:
    """A gateway's namespace with things in it that a worker could be after."""

    sites: Sites
    mail_port: int
    other_port: int
    service: Path
    folder_of_all: Path
    program_of_root: Path

    def tried(self, layers: tuple[str, ...], attempts: set[str]) -> dict[str, bool]:
        one = self.sites.gateway("a")
        confined = confinements.of(config.load(one.configuration)).worker
        told: dict[str, Any] = {
            "confinement": {**confined.as_json(), "ports": [self.mail_port]},
            "layers": layers,
            "attempts": sorted(attempts),
            "state": str(one.folder / "state"),
            "run": str(one.folder / "run"),
            "supervisor": self.sites.supervisor("a"),
            "signer": signer_of(self.sites, "a"),
            "mail_port": self.mail_port,
            "other_port": self.other_port,
            "service_of_all": str(self.service),
            "folder_of_all": str(self.folder_of_all),
            "program_of_root": str(self.program_of_root),
        }
        command = [sys.executable, "-m", "tests.lab.confined", json.dumps(told)]
        done = subprocess.run(
            processes.command_in(one.namespace, command),
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, bool] = json.loads(done.stdout)
        assert set(answer) == attempts
        return answer


@pytest.fixture(scope="module")
def ground(sites: Sites) -> Iterator[Ground]:
    folder = Path(f"{sites.folder}-ground")
    folder.mkdir(mode=0o755)
    of_all = folder / "of-all"
    of_all.mkdir()
    of_all.chmod(0o1777)
    program = folder / "id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    service = folder / "service.sock"
    mail_port, other_port = 25, 2222
    ready = threading.Event()
    listeners: list[socket.socket] = []

    def listen() -> None:
        with open(f"/run/netns/{sites.namespace('gw-a')}") as namespace:
            _setns(namespace.fileno())
        for port in (mail_port, other_port):
            listener = socket.socket()
            listener.bind(("127.0.0.1", port))
            listener.listen()
            listeners.append(listener)
        ready.set()

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert ready.is_set()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(service))
        listener.listen()
        service.chmod(0o666)
        yield Ground(sites, mail_port, other_port, service, of_all, program)
    for one in listeners:
        one.close()
    shutil.rmtree(folder)


def _setns(descriptor: int) -> None:
    """This thread alone."""
    import ctypes

    assert ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000) == 0


MAY = {"read the memory of peers", "connect to a mail port"}
REFUSED_ALONE: dict[str, set[str]] = {
    "user": {
        "read the identity",
        "read the shadow file",
        "write beside the memory of peers",
        "write the memory of peers",
        "signal the signer",
        "speak to the control socket",
    },
    "capabilities": {"open a raw socket", "trace the supervisor"},
    "file-system": {
        "read the shadow file",
        "write beside the memory of peers",
        "write the memory of peers",
        "write to a folder of all",
        "execute a program",
        "connect to another port",
    },
    "system-calls": {
        "write beside the memory of peers",
        "write the memory of peers",
        "write to a folder of all",
        "execute a program",
        "fork",
        "trace the supervisor",
        "signal the signer",
        "speak to the control socket",
        "speak to a service of all",
        "connect by the first octets sent",
        "send a datagram",
        "open a raw socket",
        "change routes",
        "map memory to be executed",
        "put a filter on a socket",
        "take a ring",
    },
}
"""What each layer refuses without the others. `no-new-privileges` is shown on its own below."""
_NEEDS_IT = {"file-system": ("no-new-privileges",), "system-calls": ("no-new-privileges",)}
REFUSED = set().union(*REFUSED_ALONE.values())
NOT_REFUSED_HERE = {"connect to another port"} if landlock.version() < landlock.PORTS_SINCE else set()
"""Linux 6.1 has no rule for ports yet."""


def test_a_worker_reads_its_peers_and_dials_mail_ports_and_that_is_all(ground: Ground) -> None:
    done = ground.tried(hardening.LAYERS, MAY | REFUSED | {"become root by a program of root's"})
    assert {attempt for attempt, succeeded in done.items() if succeeded} == MAY | NOT_REFUSED_HERE


def test_without_any_layer_all_of_it_can_be_done(ground: Ground) -> None:
    """Else the tests beside this one would show nothing."""
    done = ground.tried((), MAY | REFUSED)
    assert {attempt for attempt, succeeded in done.items() if not succeeded} == set()


@pytest.mark.parametrize("layer", REFUSED_ALONE)
def test_each_layer_refuses_its_part_alone(ground: Ground, layer: str) -> None:
    """So that a layer taken out is missed here, whatever the others still refuse."""
    expected = REFUSED_ALONE[layer]
    if layer == "file-system":
        assert landlock.version(), "this kernel has no Landlock: nothing can be shown here"
        expected = expected - NOT_REFUSED_HERE
    done = ground.tried((*_NEEDS_IT.get(layer, ()), layer), MAY | expected)
    assert {attempt for attempt, succeeded in done.items() if succeeded} == MAY


def test_no_program_of_roots_gives_root_back(ground: Ground) -> None:
    again = {"become root by a program of root's"}
    assert ground.tried(("user",), again) == dict.fromkeys(again, True)
    assert ground.tried(("user", "no-new-privileges"), again) == dict.fromkeys(again, False)


def spoilt(pid: int) -> int:
    """What its successor gets, too: the listeners, and the way to the signer. How many there were."""
    found = 0
    pidfd = os.pidfd_open(pid)
    for number in sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd")):
        descriptor = ctypes.CDLL(None).syscall(ctypes.c_long(PIDFD_GETFD), pidfd, number, 0)
        if descriptor < 0:  # closed meanwhile
            continue
        try:
            one = socket.socket(fileno=descriptor)
        except OSError:  # no socket
            os.close(descriptor)
            continue
        with one:
            is_tcp = one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM
            if is_tcp:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0)
            if is_tcp or one.type == socket.SOCK_SEQPACKET:
                with contextlib.suppress(OSError):  # that of the other process is shut already
                    one.shutdown(socket.SHUT_RDWR)
                found += 1
    os.close(pidfd)
    return found


def test_a_worker_in_other_hands_leaves_nothing_spoilt_behind(sites: Sites) -> None:
    """All that it shares with the next in its slot is as it was made: mail goes on, and is protected."""
    before = sites.workers("b")
    for pid in before:
        assert spoilt(pid) >= 4, "two listeners, the link, the way to the signer"
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not set(sites.workers("b")) & set(before), what="successors")
    eventually(lambda: sites.serving("b") == 2, what="both ready")
    eventually(lambda: is_protecting(sites.status("b")), what="a signer that they can ask")
    eventually(lambda: len(sites.status("b")["rules"]["queues"]) == 2, what="both in the gate")
    with (
        MailServer(sites, "mta-b", False) as server,
        contextlib.closing(GatewayLog(sites.gateway("b").log)) as log,
    ):
        for port in range(901, 909):  # for both of them
            client, target = (sites.address("mta-a", False), port), sites.address("mta-b", False)
            mail(sites, "mta-a", server, target, b"behind it", port=port)
            session = log.ended(client, (target, 25))
            assert session.protected, session


def test_a_state_folder_behind_a_closed_one_is_read_all_the_same(sites: Sites) -> None:
    """The gateway knows its peer again after a restart: its workers read what the supervisor wrote."""
    one = sites.gateway("a")
    before = one.configuration.read_text()
    closed = one.folder / "closed"
    closed.mkdir(0o700)
    sites.kill("a")
    try:
        one.configuration.write_text(before.replace(f"{one.folder}/state", f"{closed}/state"))
        assert one.configuration.read_text() != before
        sites.start("a")
        with MailServer(sites, "mta-b", False) as server:
            mail(sites, "mta-a", server, sites.address("mta-b", False), b"first contact")
            eventually(lambda: sites.status("a")["peers"] == 1, what="the peer remembered")
            sites.kill("a")
            sites.start("a")
            mail(sites, "mta-a", server, sites.address("mta-b", False), b"again")
        eventually(lambda: "reason=upgraded\n" in sites.log("a"), what="known again")
        assert sites.alarms("a", "pins-unreadable") == []
        for pid in sites.workers("a"):
            kept = identity_file.load(closed / "state" / "identity")
            assert kept is not None
            assert not holds(pid, kept.site.seed)
        assert list(Path("/mnt").glob("peers.db*")) == []
    finally:
        sites.kill("a")
        one.configuration.write_text(before)
        sites.start("a")


# --- Without a signer ---------------------------------------------------------------------------------------


def protected(sites: Sites, server: MailServer) -> bool:
    """One mail from a to b; whether b made an offer that a took."""
    before = sites.log("b").count(" session decided ")
    mail(sites, "mta-a", server, sites.address("mta-b", False), b"hello")
    eventually(lambda: sites.log("b").count(" session decided ") > before, what="a decision")
    last = [line for line in sites.log("b").splitlines() if " session decided " in line][-1]
    return " protected=yes " in last


def test_mail_goes_on_while_the_signer_hangs_and_is_protected_again_after(sites: Sites) -> None:
    with MailServer(sites, "mta-b", False) as server:
        assert protected(sites, server)
        signer = signer_of(sites, "b")
        os.kill(signer, signal.SIGSTOP)
        try:
            assert not protected(sites, server)
            eventually(lambda: sites.alarms("b", "signer-silent"), what="the alarm")
        finally:
            os.kill(signer, signal.SIGCONT)
        eventually(lambda: protected(sites, server), what="protected again")


def test_a_signer_that_stays_hung_is_said_to_be_and_is_replaced(sites: Sites) -> None:
    with MailServer(sites, "mta-b", False) as server:
        before = signer_of(sites, "b")
        os.kill(before, signal.SIGSTOP)
        eventually(lambda: not is_protecting(sites.status("b")), what="status says so")
        eventually(lambda: sites.status("b")["signer"]["pid"] not in (None, before), what="another signer")
        eventually(lambda: is_protecting(sites.status("b")), what="all is well again")
        assert protected(sites, server)
        assert sites.alarms("b", "signer-silent")


def test_a_signer_that_is_killed_is_started_again(sites: Sites) -> None:
    with MailServer(sites, "mta-b", False) as server:
        before = signer_of(sites, "b")
        os.kill(before, signal.SIGKILL)
        eventually(lambda: sites.status("b")["signer"]["pid"] not in (None, before), what="another signer")
        eventually(lambda: protected(sites, server), what="protected again")
        eventually(lambda: gateways.serves(sites.status("b")), what="a gateway that serves")
