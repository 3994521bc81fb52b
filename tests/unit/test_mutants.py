"""The list of mutants itself: each still applies, and says one thing."""

from __future__ import annotations

import queue
from pathlib import Path

import pytest

from tests.mutants import runner
from tests.mutants.catalogue import MUTANTS, SAMPLE, TESTS
from tests.mutants.mutant import Edit, Mutant
from tests.mutants.runner import ROOT, Copy, Outcome, first_tests, run_one, stale


def test_each_has_a_name_of_its_own_and_there_are_enough() -> None:
    names = [mutant.check for mutant in MUTANTS]
    assert len(set(names)) == len(names) >= 60
    assert set(SAMPLE) <= set(names)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.check)
def test_it_replaces_what_stands_in_the_code_once_by_something_that_is_python(mutant: Mutant) -> None:
    assert not stale(mutant)
    for file in {edit.file for edit in mutant.edits}:
        text = (ROOT / file).read_text()
        for edit in mutant.edits:
            text = text.replace(edit.old, edit.new)
        compile(text, file, "exec")


def test_the_tests_that_run_first_exist() -> None:
    for mutant in MUTANTS:
        for test in first_tests(mutant):
            assert (ROOT / test).exists()
    assert set(TESTS) == {edit.file for mutant in MUTANTS for edit in mutant.edits}


def test_a_text_that_is_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("x = 1\nx = 1\n")
    gone = Mutant("gone", (Edit("code.py", "y = 1", "y = 2"),))
    twice = Mutant("twice", (Edit("code.py", "x = 1", "x = 2"),))
    with Copy(tmp_path) as copy:
        assert run_one(gone, copy).outcome is Outcome.STALE
        assert run_one(twice, copy).outcome is Outcome.STALE


def test_tests_that_come_to_no_end_show_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a machine that is too slow they would, and every mutant would pass for red."""
    (tmp_path / "code.py").write_text("x = 1\n")
    mutant = Mutant("any", (Edit("code.py", "x = 1", "x = 2"),))
    monkeypatch.setattr(runner, "first_tests", lambda _: ("tests",))
    monkeypatch.setattr(runner, "_MOST_SECONDS", 0.01)
    with Copy(tmp_path) as copy:
        result = run_one(mutant, copy)
    assert (result.outcome, result.test) == (Outcome.BROKEN, "no end")
    assert (tmp_path / "code.py").read_text() == "x = 1\n"


def test_what_is_red_without_any_mutant_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "test_moon.py").write_text("def test_moon() -> None:\n    assert 'moon' == 'cheese'\n")
    mutant = Mutant("any", (Edit("code.py", "x = 1", "x = 2"),))
    monkeypatch.setattr(runner, "first_tests", lambda _: ("test_moon.py",))
    copies: queue.Queue[Copy] = queue.Queue()
    with Copy(tmp_path) as copy:
        copies.put(copy)
        with pytest.raises(runner.NotGreenError, match=r"\Atest_moon.py::test_moon\n(?s:.)*'cheese'"):
            runner._must_be_green(copies, [mutant])
