"""`nightmail audit` of real mail over a real wire: its claims are checked against the mails sent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli import nightmail
from gateway.lab import listener, processes
from gateway.lab.lab import Lab
from gateway.lab.mail import BODY_WORDS, SUBJECT_WORDS
from tests.lab.conftest import slot

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with slot() as lab:
        lab.up(temporary=True)
        yield lab


def captured(lab: Lab) -> str:
    listener.catch_up(lab.listener, lab.topology, lab.namespace("mta-c"))
    return str(lab.listener.pcap)


def audited(*words: str) -> dict[str, Any]:
    result = CliRunner().invoke(nightmail, ["audit", *words, "--json"])
    assert result.exit_code == 0, result.output
    facts: dict[str, Any] = json.loads(result.stdout)
    return facts


def test_to_c_sender_recipient_and_words_and_to_b_nothing_but_volumes(lab: Lab) -> None:
    (to_b,) = lab.deliver("a", "b", lab.compose("a", "b", size=20_000), 60)
    (to_c,) = lab.deliver("a", "c", lab.compose("a", "c"), 60)
    pcap = captured(lab)
    facts = audited("--read", pcap, "--show-addresses")
    servers = {letter: lab.mail_server(letter).node.home.v4 for letter in "bc"}
    by_server = {one["server"]["address"]: one for one in facts["sessions"] if one["sight"] != "no-mail"}
    seen, sealed = by_server[servers["c"]], by_server[servers["b"]]

    assert seen["sight"] == "clear"
    assert (seen["senders"], seen["recipients"]) == ([to_c.mail.sender], [to_c.mail.recipient])
    assert {SUBJECT_WORDS, BODY_WORDS} <= set(seen["readable"])
    assert seen["subjects"] == [f"{SUBJECT_WORDS} {to_c.mail.name}"]
    assert seen["whole"]

    assert sealed["sight"] == "nightmail"
    assert (sealed["senders"], sealed["recipients"], sealed["subjects"]) == ([], [], [])
    assert (sealed["words"], sealed["readable"]) == (0, [])
    assert sealed["sealed_to_server"] >= len(to_b.mail.octets())
    assert sealed["whole"]
    assert to_b.mail.name not in json.dumps(facts)

    result = CliRunner().invoke(nightmail, ["audit", "--read", pcap])
    assert "a***@a.test" in result.stdout
    assert to_c.mail.recipient not in result.stdout
    assert SUBJECT_WORDS not in result.stdout
    assert "the listener read 1 sender, 1 recipient" in result.stdout.splitlines()[-1]


def test_listening_on_an_interface(lab: Lab) -> None:
    words = [sys.executable, "-m", "gateway", "audit", "--interface", "outside", "--json"]
    command = processes.command_in(lab.namespace("gw-a"), ["env", f"PYTHONPATH={ROOT}", *words])
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as auditing:
        assert auditing.stderr is not None
        assert auditing.stderr.readline() == "listening on outside until Ctrl-C\n"
        lab.deliver("a", "c", lab.compose("a", "c"), 60)
        auditing.send_signal(signal.SIGINT)
        out, err = auditing.communicate(timeout=30)
    assert err == ""
    (session,) = json.loads(out)["sessions"]
    assert session["senders"] == ["a***@a.test"]
    assert session["server"]["address"] == lab.mail_server("c").node.home.v4


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--read", "/nowhere.pcap"], 1, "/nowhere.pcap: cannot be read: No such file or directory"),
        (["--read", __file__], 1, f"{__file__}: no capture file (pcap or pcapng)"),
        (["--interface", "nosuch0"], 1, "no interface nosuch0 here; there are: "),
    ],
)
def test_bad_input_is_one_clear_line(words: list[str], code: int, told: str) -> None:
    result = CliRunner().invoke(nightmail, ["audit", *words])
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(f"nightmail: {told}")
    assert len(result.stderr.splitlines()) == 1


def test_without_root_it_says_so() -> None:
    command = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c"]
    words = ["nightmail", "audit", "--interface", "lo"]
    program = f"import sys; from gateway.cli import main; sys.argv = {words}; main()"
    done = subprocess.run([*command, program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        "nightmail: listening on an interface needs root: try sudo\n",
    )
