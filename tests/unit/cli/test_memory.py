"""`peers` and `identity`: what is remembered, and who this gateway is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli import nightmail
from gateway.crypto.keys import IdentityKey
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.store import PinStore
from gateway.runtime.identity_file import load_or_make
from tests.unit.cli.asking import invoked

HERE = Destination("192.0.2.7", 25)
OLD, NEW = IdentityKey.from_seed(b"o" * 32).public, IdentityKey.from_seed(b"n" * 32).public
NOW = 1_800_000_000


def remember(file: Path) -> None:
    with PinStore(file.parent / "state" / "peers.db") as store:
        store.remember(HERE, MetPeer(OLD.octets, 20_000, True), NOW)
        store.remember(HERE, MetPeer(NEW.octets, 20_000, True), NOW)


def pinned(file: Path) -> Any:
    with PinStore(file.parent / "state" / "peers.db") as store:
        return store.lookup(HERE)


def test_no_peers_yet_and_none_are_made(file: Path) -> None:
    assert invoked(file, "peers", "list").stdout == "no peer is remembered yet\n"
    assert json.loads(invoked(file, "peers", "list", "--json").stdout) == []
    for words in (["show", "192.0.2.7"], ["forget", "192.0.2.7"], ["accept", "192.0.2.7", "abcd"]):
        result = invoked(file, "peers", *words)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
    assert list((file.parent / "state").iterdir()) == []


def test_peers_list_and_show(file: Path) -> None:
    remember(file)
    assert "1 SEEN BUT NOT ACCEPTED" in invoked(file, "peers", "list").stdout
    (listed,) = json.loads(invoked(file, "peers", "list", "--json").stdout)
    shown = json.loads(invoked(file, "peers", "show", "192.0.2.7", "--json").stdout)
    assert {**listed, "trouble": None} == shown
    assert NEW.fingerprint in invoked(file, "peers", "show", "192.0.2.7:25").stdout


def test_peers_accept(file: Path) -> None:
    remember(file)
    for nonsense in ("zzzz", NEW.fingerprint[:2], ""):
        result = invoked(file, "peers", "accept", "192.0.2.7", nonsense)
        assert result.exit_code == 1
        lacking = (
            "begins with zzzz: `nightmail peers show" if nonsense == "zzzz" else "4 letters of its beginning"
        )
        assert lacking in result.stderr
    result = invoked(file, "peers", "accept", "192.0.2.7", NEW.fingerprint[:9])
    assert (result.exit_code, NEW.fingerprint in result.stdout) == (0, True)
    assert all(known.accepted for known in pinned(file).identities)


@pytest.mark.parametrize(
    ("words", "leads_on"),
    [
        ("show 192.0.2.8", "no peer is remembered at 192.0.2.8:25: `nightmail peers list` has all"),
        ("forget 192.0.2.8", "no peer is remembered at 192.0.2.8:25: `nightmail peers list` has all"),
        ("forget 192.0.2.8 --identity abcd", "no peer is remembered at 192.0.2.8:25: `nightmail peers list`"),
        ("accept 192.0.2.8 abcd", "no peer is remembered at 192.0.2.8:25: `nightmail peers list` has all"),
        ("history 192.0.2.8", "no history of 192.0.2.8:25: `nightmail peers list` has all peers"),
        ("forget-source 192.0.2.8", "nothing is remembered of 192.0.2.8: `nightmail peers sources` has all"),
    ],
)
def test_who_names_another_address_is_told_where_all_of_them_are(
    file: Path, words: str, leads_on: str
) -> None:
    remember(file)
    result = invoked(file, "peers", *words.split())
    assert result.exit_code == 1
    assert leads_on in result.stderr


def test_peers_forget_one_identity_then_all(file: Path) -> None:
    remember(file)
    refused = invoked(file, "peers", "forget", "192.0.2.7", "--identity", OLD.fingerprint)
    assert refused.exit_code == 1
    assert "`nightmail peers forget 192.0.2.7:25` forgets the peer" in refused.stderr
    assert invoked(file, "peers", "forget", "192.0.2.7", "--identity", NEW.fingerprint).exit_code == 0
    assert [known.identity for known in pinned(file).identities] == [OLD.octets]
    assert invoked(file, "peers", "forget", "192.0.2.7").exit_code == 0
    assert pinned(file) is None
    assert invoked(file, "peers", "forget", "192.0.2.7").exit_code == 1


def test_identity_show(file: Path) -> None:
    before = invoked(file, "identity", "show")
    assert before.exit_code == 1
    assert "no identity yet" in before.stderr
    path = file.parent / "state" / "identity"
    fingerprint = load_or_make(path).site.key.public.fingerprint
    assert invoked(file, "identity", "show").stdout == fingerprint + "\n"
    assert json.loads(invoked(file, "identity", "show", "--json").stdout)["fingerprint"] == fingerprint
    path.chmod(0o644)
    assert "others may have read it" in invoked(file, "identity", "show").stderr


def test_identity_is_rotated_taken_back_and_used(file: Path) -> None:
    assert "no identity yet" in invoked(file, "identity", "rotate").stderr
    load_or_make(file.parent / "state" / "identity")
    first = invoked(file, "identity", "show").stdout.strip()
    assert "announced: " in invoked(file, "identity", "rotate", "--announce-days", "30").stdout
    upcoming = json.loads(invoked(file, "identity", "show", "--json").stdout)["next"]
    again = invoked(file, "identity", "rotate")
    assert (again.exit_code, "announced already" in again.stderr) == (1, True)
    assert invoked(file, "identity", "rotate", "--undo").exit_code == 0
    assert invoked(file, "identity", "rotate", "--undo").exit_code == 1
    assert invoked(file, "identity", "show").stdout.strip() == first
    assert invoked(file, "identity", "rotate", "--now").exit_code == 0
    used = invoked(file, "identity", "show").stdout.splitlines()[0]
    assert used not in (first, upcoming)
    assert invoked(file, "identity", "rotate", "--now", "--undo").exit_code == 2
    assert invoked(file, "identity", "rotate", "--announce-days", "0").exit_code == 2


@pytest.mark.parametrize("by", ["prompt", "file", "descriptor"])
def test_identity_is_carried_to_another_place(file: Path, tmp_path: Path, by: str) -> None:
    """With the real cost of Argon2id, once; the passphrase never stands in the arguments."""
    phrase = "a phrase of many letters"
    path, export = file.parent / "state" / "identity", tmp_path / "export"
    load_or_make(path)
    first = invoked(file, "identity", "show").stdout
    options, typed = [], f"{phrase}\n{phrase}\n"
    if by != "prompt":
        (tmp_path / "phrase").write_text(f"{phrase}\nanother line\n")
        descriptor = os.open(tmp_path / "phrase", os.O_RDONLY)
        place = f"/dev/fd/{descriptor}" if by == "descriptor" else str(tmp_path / "phrase")
        options, typed = ["--passphrase-file", place], ""
    words = ["--config", str(file), "identity"]
    done = CliRunner().invoke(nightmail, [*words, "export", str(export), *options], input=typed)
    assert done.exit_code == 0, done.output
    assert phrase not in done.output
    path.unlink()
    if by == "descriptor":
        os.lseek(descriptor, 0, os.SEEK_SET)
    typed = typed and f"{phrase}\n"
    done = CliRunner().invoke(nightmail, [*words, "import", str(export), *options], input=typed)
    assert done.exit_code == 0, done.output
    assert invoked(file, "identity", "show").stdout == first


def test_an_export_to_a_name_that_is_no_text(file: Path, tmp_path: Path) -> None:
    load_or_make(file.parent / "state" / "identity")
    (tmp_path / "phrase").write_text("a phrase of many letters")
    options = ["--passphrase-file", str(tmp_path / "phrase")]
    done = invoked(file, "identity", "export", f"{tmp_path}/\udcff", *options)
    assert (done.exit_code, f"{tmp_path}/\\udcff: holds " in done.stdout) == (0, True)


def test_a_short_passphrase_is_refused(file: Path, tmp_path: Path) -> None:
    load_or_make(file.parent / "state" / "identity")
    (tmp_path / "phrase").write_text("eleven abcd\n")
    options = ["--passphrase-file", str(tmp_path / "phrase")]
    done = invoked(file, "identity", "export", str(tmp_path / "export"), *options)
    assert (done.exit_code, "at least 12 letters" in done.stderr) == (1, True)
    assert not (tmp_path / "export").exists()


def test_an_export_asks_for_nothing_that_it_cannot_use(file: Path, tmp_path: Path) -> None:
    """No passphrase where there is no identity, or another file in its place; nor without a terminal."""
    words = ["--config", str(file), "identity", "export", str(tmp_path / "export")]

    def export() -> tuple[int, str]:
        # In a session of its own there is no terminal to ask on.
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    status, said = export()
    assert (status, "no identity" in said, "assphrase" in said) == (1, True, False), said
    load_or_make(file.parent / "state" / "identity")
    status, said = export()
    assert (status, said) == (
        1,
        "nightmail: no terminal to ask for a passphrase on: --passphrase-file FILE gives it\n",
    )
    (tmp_path / "export").write_text("precious")
    status, said = export()
    assert (status, "is there already" in said, "assphrase" in said) == (1, True, False), said
    assert (tmp_path / "export").read_text() == "precious"


@pytest.mark.parametrize("words", ["forget 192.0.2.7", "accept 192.0.2.7 abcd", "forget-source 192.0.2.7"])
def test_a_damaged_memory_is_told_and_left_to_the_daemon(file: Path, words: str) -> None:
    (damaged := file.parent / "state" / "peers.db").write_bytes(b"no database at all" * 99)
    done = invoked(file, "peers", *words.split())
    assert (done.exit_code, "pins cannot be read" in done.stderr) == (1, True)
    assert damaged.read_bytes() == b"no database at all" * 99


def test_peers_history(file: Path) -> None:
    assert "no history" in invoked(file, "peers", "history", "192.0.2.7").stderr
    remember(file)
    lines = invoked(file, "peers", "history", "192.0.2.7").stdout.splitlines()
    assert [line.split("  ")[1].split(":")[0] for line in lines] == [
        "first seen",
        "ANOTHER IDENTITY, not accepted",
    ]
    told = json.loads(invoked(file, "peers", "history", "192.0.2.7", "--json").stdout)
    assert [(event["event"], event["identity"]) for event in told] == [
        ("first-seen", OLD.fingerprint),
        ("changed", NEW.fingerprint),
    ]
    assert invoked(file, "peers", "history", "no address").exit_code == 2
