"""Marks of a machine: hashed, compared where both are known."""

from pathlib import Path

import pytest

from gateway.runtime.machine import Machine, this_machine

ID = "0123456789abcdef0123456789abcdef"


def root(tmp_path: Path, machine_id: str | None, uuid: str | None) -> Path:
    for name, text in (("etc/machine-id", machine_id), ("sys/class/dmi/id/product_uuid", uuid)):
        if text is not None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
    return tmp_path


def test_marks_are_hashed_and_say_nothing_of_what_they_are_made_of(tmp_path: Path) -> None:
    found = this_machine(root(tmp_path, ID, "01234567-89AB-CDEF-0123-456789ABCDEE"))
    assert ID not in str(found)
    assert len(str(found)) == 65
    assert found.installation != found.hardware
    assert Machine.parse(str(found)) == found


@pytest.mark.parametrize("text", [None, "", "uninitialized", "0" * 32, "f" * 32, "03", ID[:-1], "\xff" * 32])
def test_what_is_no_mark_is_unknown(tmp_path: Path, text: str | None) -> None:
    assert this_machine(root(tmp_path, text, text)) == Machine()


@pytest.mark.parametrize("text", ["", "-", "- - -", "x y", "a" * 32, f"{'A' * 32} -"])
def test_what_is_no_line_of_ours(text: str) -> None:
    assert Machine.parse(text) is None


def test_only_a_known_difference_is_one() -> None:
    here = Machine("a" * 32, "b" * 32)
    others = [Machine("a" * 32, "c" * 32), Machine("c" * 32, "b" * 32), Machine("c" * 32)]
    assert all(here.is_another_than(other) and other.is_another_than(here) for other in others)
    sames = [here, Machine(), Machine("a" * 32), Machine(hardware="b" * 32)]
    assert not any(here.is_another_than(other) or other.is_another_than(here) for other in sames)
