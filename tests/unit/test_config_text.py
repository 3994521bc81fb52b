"""What a file may look like: any other is refused at once, in one line with file, line and key."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import (
    load,
)
from gateway.config_text import ConfigurationError
from tests.unit.configured import complaint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nightmail.toml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[interfaces]\ninsde = []", ":2: interfaces.insde: unknown key; allowed: interfaces.inside, "),
        ("inside = []", ":1: inside: unknown key; allowed: version, placement, [alarms], [bridge], "),
        ("\n[mial]\nports = [25]", ":2: mial: unknown key; allowed: version, "),
        ("[sets]\nPartners = []", ":2: sets.Partners: no name of a list; allowed: a small letter, "),
        ('[sets]\n"192.0.2.7" = []', ":2: sets.192.0.2.7: no name of a list; allowed: a small letter, "),
        ("sets = []", ":1: sets: is a section; allowed: [sets] and keys below it"),
        ("mail = 7", ":1: mail: is a section; allowed: [mail] and keys below it"),
        ("[daemon]\nworkers = 99\n[log]", ":2: daemon.workers: 99 is not allowed"),
        ("daemon.workers = 99", ":1: daemon.workers: 99 is not allowed"),
        ("\ndaemon = { workers = 99 }", ":2: daemon.workers: 99 is not allowed"),
        ('["daemon"]\n"workers" = 99', ":2: daemon.workers: 99 is not allowed"),
        ("[mail]\nports = [25]\n[mail]", ":3: "),
        ("[mail]\nports = [25]\n[offers]\nrest = [true]", ":4: offers.rest: [true] is not allowed"),
        ("[placement]\nx = 1", ":1: placement: { x = 1 } is not allowed"),
        ("[marks]\nmask = 0xff00ff00", ":2: marks.mask: 4278255360 is not allowed (0xff00ff00); allowed: "),
        (
            f"[marks]\nmask = 0x{'f' * 9000}",
            f":2: marks.mask: this value is not allowed (0x{'f' * 198}...); allowed: eight",
        ),
        ("\ufeff[log]", ":1: begins with a byte order mark; allowed: UTF-8 without one"),
        ("[mail]\nports = [25,\n12530]", ":2: mail.ports: port 12530 is ours (12525 to 12556); allowed: "),
        (
            "[mail]\nports = [12530]\n[kernel]\nfirst_listen_port = 12500",
            ":4: kernel.first_listen_port: 12500 to 12531 are ours; allowed: a row without mail port 12530",
        ),
        # Of a list the one entry that cannot be, in its own line.
        (
            '[exceptions]\nnever = [\n  "192.0.2.0/24",\n  "192.0.2.300", # b = 2\n]',
            ':4: exceptions.never: "192.0.2.300" is not allowed; allowed: a list of addresses',
        ),
        (
            '[exceptions]\nnever = [\n  "192.0.2.0/24",\n  "mates",\n]\n[sets]\nmates2 = []',
            ":4: exceptions.never: mates is no address, and no list in [sets]; there: mates2",
        ),
        (
            '[interfaces]\ninside = [\n"lan",\n"l n"\n]',
            ':4: interfaces.inside: "l n" is not allowed; allowed: a list of interface names',
        ),
        # Written unusually it is not found: then the line is that of the key, and none behind the list.
        (
            '[exceptions]\nnever = [\n"M\\u0058"\n]\nalways = ["MX"]',
            ':2: exceptions.never: "MX" is not allowed',
        ),
        ('[nat]\naddresses = [\n"l\\u006fg"\n]\n["log"]', ':2: nat.addresses: "log" is not allowed'),
        ("[nat]\naddresses = [7]", ":2: nat.addresses: 7 is not allowed; allowed: a list"),
        ("\n\nversion 1", ":3: "),
        (
            'placement = "host"\r\nplacement = "router"\r\n',
            ":2: placement: is set already, further up (column ",
        ),
        ("placement = bridge", ':1: Invalid value (column 13; allowed: "text" in quotation marks, a number'),
        ("[log]\nlevel = 'info'\nlevel = 'info'", ":3: level: is set already, further up (end of file)"),
        ("[mail]\nports = [25\n\n", ":2: Unclosed array (end of file)"),
        (
            "version = 9\nlater = 1\n[new]\nx = 1",
            ":1: version: 9 is not allowed; allowed: 1; a later version",
        ),
        ('[log]\nlevel = "a\\nb\\u001b"', ':2: log.level: "a\\nb\\x1b" is not allowed'),
        # As it was written: who forgot the brackets sees them in what is allowed.
        (
            '[exceptions]\nnever = "192.0.2.7"',
            ':2: exceptions.never: "192.0.2.7" is not allowed; allowed: a list of addresses and networks,'
            ' such as ["192.0.2.7", "2001:db8:5::/48"]',
        ),
        ('"a\\nb" = 1', ": a\\nb: unknown key"),
    ],
)
def test_complaints(path: Path, text: str, message: str) -> None:
    assert f"{path}{message}" in complaint(path, text)


def test_sections_of_other_keys_do_not_mislead_the_line(path: Path) -> None:
    text = '[nat]\naddresses = []\n[kernel]\nzone = 5\ntable = 0\n[daemon]\nrun_dir = "/run/table"\n'
    assert complaint(path, text).startswith(f"{path}:5: kernel.table: ")


def test_long_values_are_cut(path: Path) -> None:
    assert len(complaint(path, f'[log]\nlevel = "{"x" * 100000}"')) < 600


ODD_BUT_BOUNDED = {
    "thousands of digits": b"[kernel]\ntable = " + b"1" * 5000,
    "thousands of hexadecimal digits": b"[kernel]\ntable = 0x" + b"1" * 5000,
    "a version of those": b"version = 0x" + b"1" * 5000,
    "a version over two lines": b'version = "a\\nb"',
    "lists in lists": b"x = " + b"[" * 5000,
    "tables in tables": b"x = " + b"{a=" * 5000,
    "a key of very many parts": b"[kernel]\ntable" + b".a" * 20_000 + b" = 1",
    "a key of many parts": b"[kernel]\ntable" + b".a" * 500 + b" = 1",
    "a line of blanks": b" " * 200_000 + b"\nx = 1\n",
    "blanks behind a bracket": b"never = [\n" + b" " * 100_000 + b"\n[" + b" " * 100_000 + b"\n]\nx = 1\n",
    "a line separator of Unicode in a comment": "# a \u2028 b\nx = 1\n".encode(),
}


@pytest.mark.parametrize("octets", ODD_BUT_BOUNDED.values(), ids=ODD_BUT_BOUNDED)
def test_no_file_takes_long_or_leaves_in_another_way(path: Path, octets: bytes) -> None:
    path.write_bytes(octets)
    began = time.process_time()
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert time.process_time() - began < 2.0
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_the_line_is_told_behind_a_line_separator_of_unicode(path: Path) -> None:
    assert complaint(path, "# a \u2028 b\nx = 1\n").startswith(f"{path}:2: x:")


def test_missing_file(path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=re.escape(f"{path}: cannot be read: No such file or directory")
    ):
        load(path)


def test_directory_and_endless_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Is a directory"):
        load(tmp_path)
    with pytest.raises(ConfigurationError, match="larger than"):
        load(Path("/dev/zero"))


def test_not_utf8(path: Path) -> None:
    path.write_bytes(b"version = 1\n# \xff\n")
    with pytest.raises(ConfigurationError, match=":2: not UTF-8"):
        load(path)


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_one_line(text: str) -> None:
    path = Path("/tmp") / f"nightmail-test-config-{os.getpid()}"
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
        load(path)
    except ConfigurationError as error:
        assert "\n" not in str(error)
    finally:
        path.unlink(missing_ok=True)
