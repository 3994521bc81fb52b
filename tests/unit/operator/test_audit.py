"""The table of `nightmail audit`: as many people as the sentence below it counts, masked or not."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from gateway.eyes import capture
from gateway.operator import audit

PEOPLE = ["bea@b.test", "ben@b.test", "carl@b.test"]


def test_people_who_look_the_same_behind_their_masks_are_counted() -> None:
    assert audit._addresses(PEOPLE, False) == "b***@b.test (2), c***@b.test"
    assert audit._addresses(PEOPLE, True) == "bea@b.test, ben@b.test, carl@b.test"
    assert audit._addresses([], False) == "none"


def test_a_long_list_is_cut() -> None:
    many = [f"{letter}@b.test" for letter in "abcde"]
    assert audit._addresses(many, True).endswith("c@b.test and 2 more")
    assert audit._addresses(many, False).endswith("c***@b.test and 2 more")


def test_of_what_was_missed_the_number_is_told_and_what_else_there_was() -> None:
    slow = capture.TOO_SLOW
    down = "the interface was down for a while"
    assert audit._missed([f"500 {slow}", down, f"507 {slow}"]) == f"507 {slow}; {down}"
    assert audit._missed([]) == ""


def test_a_listener_with_many_remarks_is_not_stopped_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a pipe holds; without an end it would be ended, before its last one."""
    listener = tmp_path / "listener"
    remarks = f"for number in range(1, 5001): print(number, {capture.TOO_SLOW!r}, file=sys.stderr)"
    listener.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"sys.stdout.buffer.write({capture.FILE_HEADER!r})\nsys.stdout.flush()\n{remarks}\n"
    )
    listener.chmod(0o755)
    monkeypatch.setattr(audit, "open_ear", lambda _: socket.socket())
    monkeypatch.setattr(sys, "executable", str(listener))
    report = audit.listen("lo", frozenset({25}), 5.0, lambda: None)
    assert report.missed == f"5000 {capture.TOO_SLOW}"
