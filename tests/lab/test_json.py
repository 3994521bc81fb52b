"""What `--json` prints, with real daemons: each field stands in docs/json.md, and those there are printed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.lab import gateways, processes
from tests.lab import probes, two_sites
from tests.lab.probes import MailServer, eventually, mail
from tests.lab.two_sites import Sites
from tests.pages import ROOT

pytestmark = pytest.mark.timeout(240)
PAGE: Final = (ROOT / "docs" / "json.md").read_text()

ALARMS: Final = """
[alarms]
command = ["/bin/true"]
"""
ELSEWHERE: Final = {
    ("explain", "[].peer"): "peers list",
    ("explain", "[].history[]"): "peers history",
    ("explain", "[].client"): "peers sources",
}
ENTRY: Final = {"peers history": "[].", "peers sources": "[]."}
"""Of such a list the fields of one entry."""


def documented() -> dict[str, set[str]]:
    """Of each command its fields: those of the tables below its heading, or in its own table."""
    found: dict[str, set[str]] = {}
    command = ""
    for line in PAGE.splitlines():
        if head := re.match(r"^## `nightmail (\w+) --json`$", line):
            command = head[1]
        elif line.startswith("#"):
            command = ""
        elif table := re.match(r"^\| field of `([\w ]+)` \|", line):
            command = table[1]
        elif command and (row := re.match(r"^\| (`.*?`) \|", line)):
            found.setdefault(command, set()).update(re.findall(r"`([^`]+)`", row[1]))
    return found


FIELDS: Final = documented()


def paths(value: Any, at: str = "") -> Iterator[str]:
    """Every field with a value of its own; `[]` for what is in a list. Null and empty ones end there."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from paths(inner, f"{at}.{name}" if at else name)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from paths(inner, f"{at}[]")
    else:
        yield at + ("[]" if isinstance(value, list) else "")


def matches(pattern: str, path: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"[\w-]+"), path) is not None


def require_as_documented(command: str, answer: Any) -> None:
    printed, told = set(paths(answer)), fields_of(command)
    unknown = {path for path in printed if not any(matches(one, path) or below(one, path) for one in told)}
    assert not unknown, f"{command}: not in docs/json.md"
    missing = {one for one in told if not any(matches(one, path) or below(one, path) for path in printed)}
    assert not missing, f"{command}: in docs/json.md, and not printed"


def fields_of(command: str) -> set[str]:
    if command == "peers list":
        return {field for field in FIELDS["peers show"] if not field.startswith("trouble.")}
    fields = set()
    for field in FIELDS[command]:
        other = ELSEWHERE.get((command, field))
        if other is None:
            fields.add(field)
        else:
            entry = ENTRY.get(other, "")
            fields |= {f"{field}.{inner.removeprefix(entry)}" for inner in fields_of(other)}
    return fields


def below(pattern: str, path: str) -> bool:
    """Null, or an empty list or object, ends a path early: what would be below it is excused."""
    return any(pattern.startswith(path + separator) for separator in (".", "[")) or pattern.startswith(
        path.removesuffix("[]") + "[]."
    )


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    """Mail has gone from a to b, in between past b's gateway, so that there is something to tell."""
    with two_sites.built(configuration=ALARMS) as sites, MailServer(sites, "mta-b", False) as server:
        target = sites.address("mta-b", False)
        mail(sites, "mta-a", server, target, b"sealed")
        eventually(lambda: probes.pins(sites.gateway("a")), what="the peer remembered")
        sites.kill("b")
        mail(sites, "mta-a", server, target, b"in clear")
        eventually(lambda: sites.status("a")["alarms"], what="an alarm")
        sites.start("b")
        mail(sites, "mta-a", server, target, b"sealed again")
        yield sites


def asked(sites: Sites, letter: str, *words: str) -> Any:
    """All of standard output, which has to be one document in ASCII."""
    one = sites.gateway(letter)
    arguments = gateways.nightmail_command("--config", str(one.configuration), *words, "--json")
    done = subprocess.run(
        processes.command_in(one.namespace, arguments), stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert done.returncode in (0, 1)
    return json.loads(done.stdout.decode("ascii"))


@pytest.mark.parametrize(
    ("letter", "words"),
    [
        ("a", "status"),
        ("a", "check"),
        ("a", "plan"),
        ("a", "doctor"),
        ("a", "explain TARGET"),
        ("a", "ping TARGET"),
        ("a", "peers show TARGET"),
        ("a", "peers history TARGET"),
        ("b", "peers sources"),
        ("b", "explain CLIENT"),
        ("a", "identity show"),
        ("a", "reload"),
        ("a", "ring"),
    ],
)
def test_each_field_is_documented_and_printed(sites: Sites, letter: str, words: str) -> None:
    filled = words.replace("TARGET", sites.address("mta-b", False))
    filled = filled.replace("CLIENT", sites.address("mta-a", False))
    answer = asked(sites, letter, *filled.split())
    command = re.sub(r" [A-Z]+$", "", words)
    require_as_documented(command, answer)


def test_a_list_of_peers_is_what_one_peer_is(sites: Sites) -> None:
    shown = asked(sites, "a", "peers", "show", sites.address("mta-b", False))
    del shown["trouble"]
    assert asked(sites, "a", "peers", "list") == [shown]


def test_an_audit(sites: Sites, tmp_path: Path) -> None:
    capture = tmp_path / "capture.pcap"
    listening = subprocess.Popen(
        processes.command_in(
            sites.namespace("wire"), ["tcpdump", "-U", "-i", "any", "-w", str(capture), "tcp port 25"]
        ),
        stderr=subprocess.PIPE,
    )
    assert listening.stderr is not None
    try:
        while b"listening on" not in listening.stderr.readline():
            assert listening.poll() is None
        assert asked(sites, "a", "ping", sites.address("mta-b", False))[0]["protected"]
        eventually(
            lambda: capture.exists() and asked(sites, "a", "audit", "--read", str(capture))["sessions"],
            what="the session in the capture",
        )
    finally:
        listening.terminate()
        listening.wait()
        listening.stderr.close()
    answer = asked(sites, "a", "audit", "--read", str(capture), "--show-addresses")
    require_as_documented("audit", answer)
    assert {one["sight"] for one in answer["sessions"]} == {"nightmail"}


def test_where_nothing_can_be_answered_standard_output_is_empty(sites: Sites) -> None:
    one = sites.gateway("a")
    for words, status in (("peers show 192.0.2.99", 1), ("audit --read /nowhere", 1), ("status --loud", 2)):
        arguments = gateways.nightmail_command("--config", str(one.configuration), *words.split(), "--json")
        done = subprocess.run(processes.command_in(one.namespace, arguments), capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (status, b"", 1)
