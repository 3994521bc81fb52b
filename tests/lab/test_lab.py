"""The lab on a real kernel with real mail servers, in namespaces of its own (prefix nml-).

On plain routers: what it claims about mail, wire, delay and cleanliness must be true before anything that is
measured in it means something. Counterpart: `test_lab_gateways`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.errors import EnvironmentFailureError
from gateway.eyes import wire
from gateway.lab import listener, network, postfix, processes, wan
from gateway.lab.commands import lab as group
from gateway.lab.lab import Lab
from gateway.lab.mail import without_traces
from gateway.lab.place import Place
from gateway.lab.topology import Family
from gateway.lab.wan import Wan
from tests.lab.traces import NOTHING, traces

PLACE = Place("nml-", Path("/run/nml-lab"), Path("/run/nml-lab.lock"))
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plain() -> Iterator[Lab]:
    """A lab of plain routers, for all tests that leave it as it was."""
    lab = Lab(PLACE)
    lab.down()
    lab.up(with_gateways=False)
    try:
        yield lab
    finally:
        lab.down()
        assert traces(PLACE) == NOTHING


@pytest.mark.parametrize("six", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize(
    ("sender", "recipient"), [("a", "b"), ("b", "a"), ("a", "c"), ("c", "b"), ("b", "b")]
)
def test_mail_arrives(plain: Lab, sender: str, recipient: str, six: bool) -> None:
    began = time.time()
    (found,) = plain.deliver(sender, recipient, plain.compose(sender, recipient, six=six), 30)
    assert b"saltmarsh-lantern" in found.delivery.path.read_bytes()
    assert found.seconds < 30
    crossed = [s for s in plain.wire_sessions(began) if s.server.port == 25]
    if sender == recipient:
        assert crossed == []
        return
    (session,) = crossed
    assert session.complete
    assert (":" in session.server.address) == six
    assert plain.site_of(session.client.address) == sender
    assert plain.site_of(session.server.address) == recipient
    assert wire.found_words(session, found.mail.words) == {"envelope", "subject", "body"}


def test_large_and_many(plain: Lab) -> None:
    began = time.time()
    mails = plain.compose("a", "b", count=5) + plain.compose("a", "b", size=3_000_000)
    assert len(plain.deliver("a", "b", mails, 60)) == 6
    sessions = plain.wire_sessions(began)
    assert all(session.complete for session in sessions)
    assert sum(len(session.from_client) for session in sessions) > 3_000_000


def test_the_same_mail_twice_is_stored_alike(plain: Lab) -> None:
    mails = plain.compose("a", "b")
    stored = []
    for _ in range(2):
        with plain.watch("b") as watch:
            plain.send("a", mails)
            stored.append(watch.wait([mails[0].name], 30)[mails[0].name].path.read_bytes())
    assert stored[0] != stored[1]
    assert without_traces(stored[0]) == without_traces(stored[1])


def test_the_mail_servers_offer_what_postfix_offers(plain: Lab) -> None:
    began = time.time()
    plain.deliver("a", "b", plain.compose("a", "b"), 30)
    reply = plain.wire_sessions(began)[0].from_server
    for keyword in (b"PIPELINING", b"SIZE", b"8BITMIME", b"DSN", b"SMTPUTF8", b"CHUNKING"):
        assert keyword in reply
    assert b"STARTTLS" not in reply


def connect_ms(lab: Lab, family: Family) -> float:
    kind = socket.AF_INET if family is Family.V4 else socket.AF_INET6
    target = lab.mail_server("b").node.home.of(family)
    with network.socket_in(lab.namespace("mta-a"), kind, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        began = time.monotonic()
        connection.connect((target, 25))
        return (time.monotonic() - began) * 1000


@pytest.mark.parametrize("family", Family)
def test_a_long_line_is_as_long_as_it_says(plain: Lab, family: Family) -> None:
    connect_ms(plain, family)
    plain.set_wan(Wan(0.080))
    try:
        # Other work on the machine comes and goes; what the line adds is in each of them.
        assert 79.0 <= min(connect_ms(plain, family) for _ in range(5)) <= 90.0
    finally:
        plain.set_wan(Wan())
    assert min(connect_ms(plain, family) for _ in range(5)) < 40.0


def test_mail_survives_a_bad_line_and_a_killed_delay_line(plain: Lab) -> None:
    plain.set_wan(Wan(0.020, 0.05))
    try:
        assert wan.now(plain.line) == Wan(0.020, 0.05)
        plain.deliver("a", "b", plain.compose("a", "b", size=200_000), 60)
        process = plain.line.process
        assert process is not None
        process.signal(signal.SIGKILL)
        assert process.wait_gone(10)
        plain.deliver("a", "b", plain.compose("a", "b"), 60)
        assert wan.now(plain.line) == Wan()
    finally:
        plain.set_wan(Wan())


def test_what_is_lost_is_lost(plain: Lab) -> None:
    plain.set_wan(Wan(0.0, 0.999))
    try:
        with network.socket_in(plain.namespace("mta-a"), socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.connect((plain.mail_server("b").node.home.v4, 25))
    finally:
        plain.set_wan(Wan())


def test_a_second_lab_is_refused_in_one_line(plain: Lab) -> None:
    with pytest.raises(EnvironmentFailureError, match="up already"):
        Lab(PLACE).up()
    with plain.locked():
        result = CliRunner().invoke(group, ["down"], obj=PLACE)
        assert result.exit_code == 1
        assert "another lab is at work" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert plain.is_up


def test_two_ups_at_the_same_moment_make_one_lab(plain: Lab) -> None:
    # `plain` only makes sure that the machine can have a lab; this one is beside it.
    place = Place("nml2-", Path("/run/nml2-lab"), Path("/run/nml2-lab.lock"))
    outcomes: list[str] = []
    barrier = threading.Barrier(2, timeout=30)

    def try_it() -> None:
        barrier.wait()
        try:
            Lab(place).up(with_gateways=False)
            outcomes.append("up")
        except EnvironmentFailureError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=try_it) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcome == "up" for outcome in outcomes) == [False, True]
        assert Lab(place).is_up
    finally:
        Lab(place).down()
    assert traces(place) == NOTHING


def test_status_and_exec(plain: Lab) -> None:
    status = json.loads(CliRunner().invoke(group, ["status", "--json"], obj=PLACE).output)
    assert status["nodes"]["mta-b"]["address"] == "bob@b.test"
    assert status["nodes"]["gw-a"]["gateway"] == "off"
    assert status["listener"]["runs"] is True
    program = (
        # A test run in the background ignores SIGINT, and its children with it.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from pathlib import Path; from gateway.lab.commands import lab; from gateway.lab.place import Place;"
        "words = ['exec', 'gw-a', '--', 'sh', '-c', 'ip -br addr; exit 7'];"
        "lab(words, obj=Place('nml-', Path('/run/nml-lab')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 7
    assert "10.11.0.254" in done.stdout


def test_listening_to_what_was_recorded(plain: Lab) -> None:
    (found,) = plain.deliver("a", "c", plain.compose("a", "c"), 30)
    shown = CliRunner().invoke(group, ["listen", "--recorded"], obj=PLACE).output
    assert "mta-a -> mta-c  RCPT TO:<carol@c.test>" in shown
    assert f"Subject: moonlit-heron {found.mail.name}" in shown


def test_listening_live(plain: Lab) -> None:
    program = (
        "from pathlib import Path; from gateway.lab.commands import lab; from gateway.lab.place import Place;"
        "lab(['listen'], obj=Place('nml-', Path('/run/nml-lab')))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as listening:
        try:
            assert listening.stdout is not None
            shown: list[str] = []
            done = threading.Event()

            def read() -> None:
                assert listening.stdout is not None
                for line in listening.stdout:
                    shown.append(line)
                    if "221 " in line:
                        done.set()
                        return

            reader = threading.Thread(target=read)
            reader.start()
            # It cannot say when its capture has begun, so mail goes until it has seen a whole session.
            deadline = time.monotonic() + 40
            while not done.is_set() and time.monotonic() < deadline:
                plain.deliver("c", "b", plain.compose("c", "b"), 30)
                done.wait(1)
            assert done.is_set()
            reader.join()
        finally:
            listening.send_signal(signal.SIGINT)
            listening.wait(20)
    assert any("mta-c -> mta-b  RCPT TO:<bob@b.test>" in line for line in shown)


# --- Cleanliness, and the machine's own things --------------------------------------------------------


@pytest.fixture
def own_under_a_labs_name() -> Iterator[str]:
    """A name of the lab's that leads to the machine's own network namespace."""
    name = "nml3-gw-a"
    subprocess.run(["ip", "netns", "attach", name, str(os.getpid())], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_a_lab_refuses_the_machines_own_namespace(own_under_a_labs_name: str, tmp_path: Path) -> None:
    name = own_under_a_labs_name
    lab = Lab(Place("nml3-", tmp_path / "lab", tmp_path / "lock"))
    with pytest.raises(EnvironmentFailureError, match="no lab of ours made it"):
        lab.up()
    with pytest.raises(EnvironmentFailureError, match="machine's own"):
        network.inside(name, lambda: None)
    with pytest.raises(EnvironmentFailureError, match="machine's own"):
        processes.command_in(name, ["true"])
    assert processes.living_in([name]) == []
    # Even with a state file that claims it.
    lab.place.folder.mkdir()
    lab.place.write_state({"boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
    lab.down()
    assert network.existing([name]) == [name]


def test_the_machines_own_postfix_is_not_touched(plain: Lab) -> None:
    own = [
        Path("/etc/postfix/main.cf"),
        Path("/etc/postfix/master.cf"),
        Path("/var/spool/postfix/pid/master.pid"),
    ]
    before = [(path.exists(), path.exists() and path.stat().st_mtime_ns) for path in own]
    plain.deliver("a", "b", plain.compose("a", "b"), 30)
    postfix.flush(plain.mail_server("a"))
    assert [(path.exists(), path.exists() and path.stat().st_mtime_ns) for path in own] == before


def test_down_finds_everything_whatever_was_killed() -> None:
    place = Place("nml4-", Path("/run/nml4-lab"), Path("/run/nml4-lab.lock"))
    lab = Lab(place)
    lab.up(with_gateways=False)
    try:
        lab.set_wan(Wan(0.010))
        # Somebody's shell in a namespace, a Postfix master and the delay line killed, pid files gone.
        shell = processes.start_in(
            lab.namespace("mta-c"),
            ["sleep", "1000"],
            log=place.folder / "x.log",
            pid_file=place.folder / "x.pid",
        )
        master = int((lab.mail_server("a").queue / "pid" / "master.pid").read_text())
        os.kill(master, signal.SIGKILL)
        line = lab.line.process
        assert line is not None
        line.signal(signal.SIGKILL)
        for path in place.folder.glob("*/*.pid"):
            path.unlink()
        assert shell.alive
    finally:
        assert lab.down()
    assert not shell.alive
    assert traces(place) == NOTHING


@pytest.mark.parametrize("step", ["namespaces", "a listener", "three mail"])
def test_an_up_that_is_killed_leaves_what_down_removes(step: str) -> None:
    place = Place("nml5-", Path("/run/nml5-lab"), Path("/run/nml5-lab.lock"))
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from gateway.lab.lab import Lab; from gateway.lab.place import Place\n"
        f"def progress(text):\n    if text.startswith({step!r}): os.kill(os.getpid(), signal.SIGKILL)\n"
        "place = Place('nml5-', Path('/run/nml5-lab'), Path('/run/nml5-lab.lock'))\n"
        "Lab(place).up(with_gateways=False, progress=progress)\n"
    )
    try:
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False)
        assert done.returncode == -signal.SIGKILL
    finally:
        Lab(place).down()
    assert traces(place) == NOTHING


def test_a_pid_file_that_names_a_foreign_process_harms_nobody(plain: Lab) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as foreign:
        started = processes.start_time(foreign.pid)
        assert started is not None
        for wrong in ({"pid": foreign.pid, "started": started - 1}, {"pid": 1, "started": 1}):
            (plain.line.folder / "delay-line.pid").write_text(json.dumps(wrong))
            plain.set_wan(Wan())
        assert foreign.poll() is None


def test_a_dead_listener_is_told(plain: Lab) -> None:
    process = plain.listener.process
    assert process is not None
    process.signal(signal.SIGKILL)
    assert process.wait_gone(10)
    try:
        with pytest.raises(EnvironmentFailureError, match="the listener has ended"):
            plain.wire_sessions()
    finally:
        plain.listener.pcap.unlink()
        listener.start(plain.listener, plain.topology, plain.namespace("mta-c"))


def test_native_starttls_where_it_is_asked_for() -> None:
    place = Place("nml6-", Path("/run/nml6-lab"), Path("/run/nml6-lab.lock"))
    lab = Lab(place)
    lab.up(with_gateways=False, offer_starttls=True)
    try:
        (found,) = lab.deliver("a", "b", lab.compose("a", "b"), 30)
        (session,) = lab.wire_sessions()
        assert b"STARTTLS" in session.from_server
        assert wire.found_words(session, found.mail.words) == set()
        lab.deliver("b", "a", lab.compose("b", "a"), 30)
        assert b"STARTTLS" not in lab.wire_sessions()[1].from_server
    finally:
        lab.down()
    assert traces(place) == NOTHING
