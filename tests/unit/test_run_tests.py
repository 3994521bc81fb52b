"""What scripts/test makes of what ran: what was skipped is no pass, and none of it is silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import run_tests
from scripts.run_tests import Ran

LAB = Path(__file__).parents[1] / "lab"

TESTS = """
import pytest

def test_passes(): pass

@pytest.mark.root
def test_of_root(): pass

@pytest.mark.skip(reason="no lucky number")
def test_that_is_marked(): pass

@pytest.mark.parametrize("number", [3])
def test_that_gives_up(number): pytest.skip("no moon")

@pytest.mark.xfail(reason="never did", strict=True)
def test_that_fails_as_expected(): assert False
"""
WITHOUT_A_MODULE = """
import pytest
pytest.importorskip("nobody_has_this", reason="no such extra")

def test_nothing(): pass
"""


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """A folder of tests, run as the unit tests are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")
    Path("pytest.ini").write_text("[pytest]\nmarkers =\n  root: needs it\n")
    Path("test_one.py").write_text(TESTS)
    Path("test_other.py").write_text(WITHOUT_A_MODULE)
    return run_tests._pytest("unit", [".", "-m", "not root"], as_root=False)


def test_whatever_is_skipped_is_named_with_its_reason_and_fails_the_run(
    ran: Ran, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (ran.passed, ran.failed, len(ran.skipped)) == (1, 0, 4)
    assert run_tests.summed_up([ran]) == 1
    said = capfd.readouterr().out
    for line in (
        "skipped: test_one::test_that_is_marked: no lucky number",
        "skipped: test_one::test_that_gives_up[3]: no moon",
        "skipped: test_one::test_that_fails_as_expected: never did",
        "no such extra",
        "1 passed, 4 failed",
    ):
        assert line in said


def test_what_may_be_skipped_is_named_and_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    (test,) = run_tests.MAY_BE_SKIPPED
    assert run_tests.summed_up([Ran("unit", 1, 0, skipped={test: "here"})]) == 0
    assert f"skipped: {test}: here\n1 passed, 0 failed\n" in capsys.readouterr().out
    fuzz = Ran("fuzz", 0, 0, skipped={"fuzz": "no wheel"}, may_be_skipped=True)
    assert run_tests.summed_up([fuzz]) == 0


@pytest.mark.parametrize("skipped", [{}, dict.fromkeys(run_tests.MAY_BE_SKIPPED, "here")])
def test_where_none_passes_that_is_a_failure(skipped: dict[str, str]) -> None:
    assert run_tests.summed_up([Ran("kernel", 0, 0, skipped=skipped)]) == 1


def test_what_fails_fails_the_run() -> None:
    assert run_tests.summed_up([Ran("unit", 5, 1), Ran("kernel", 7, 0)]) == 1
    assert run_tests.summed_up([Ran("unit", 5, 0), Ran("kernel", 7, 0)]) == 0


SET_UP_FAILS = """
import pytest

@pytest.fixture(scope="module")
def shared(): raise OSError("the machine stood still")

@pytest.mark.parametrize("number", range(20))
def test_shares(shared, number): pass

def test_fails(): assert False
"""


def test_what_all_tests_of_a_file_share_fails_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one moment in which the machine stood still would be too many failures to be tried again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")
    Path("test_set_up.py").write_text(SET_UP_FAILS)
    ran = run_tests._pytest("unit", ["."], as_root=False)
    assert (ran.failed, ran.accidents) == (21, 2)


def test_what_may_be_skipped_is_there() -> None:
    """Else it is a word that allows nothing, or one day another test."""
    for test in run_tests.MAY_BE_SKIPPED:
        module, _, name = test.partition("::")
        source = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py").read_text()
        assert f"def {name.partition('[')[0]}(" in source


def test_every_test_of_the_lab_runs_on_one_form_at_least_and_with_all_on_the_sources() -> None:
    named = [f"--ignore=tests/lab/{name}" for name in run_tests.COMPILED_LAB]
    assert run_tests.lab(everything=False) == ["tests/lab", *named]
    assert run_tests.lab(everything=True) == ["tests/lab"]
    assert all((LAB / name).exists() for name in run_tests.COMPILED_LAB)


PROOF = """
import json, pathlib, sys
tries = pathlib.Path("tries")
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) < {good_from}:
    sys.exit("red without any mutant: tests/test_moon.py")
print(json.dumps({{"rows": [{{"claim": "a moon", "expected": "red", "got": "{got}"}}]}}))
"""


@pytest.mark.parametrize(
    ("good_from", "got", "passed", "failed", "tries"),
    [
        (1, "red", 1, 0, 1),
        (1, "green", 0, 1, 1),
        (2, "red", 1, 0, 2),
        (2, "green", 0, 1, 2),
        (3, "red", 0, 1, 2),
    ],
)
def test_a_proof_that_has_judged_nothing_is_asked_once_more_and_one_that_has_is_not(
    good_from: int,
    got: str,
    passed: int,
    failed: int,
    tries: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("of_moons.py").write_text(PROOF.format(good_from=good_from, got=got))
    ran = run_tests.run_proof("proof", "of_moons")
    assert (ran.passed, ran.failed, len(Path("tries").read_text())) == (passed, failed, tries)
    assert run_tests.summed_up([ran]) == failed
    said = capfd.readouterr().out
    assert said.count("red without any mutant") == min(tries, good_from - 1) + (good_from > tries)
    assert (f"proof said: {ran.why.strip()}" in said) == bool(ran.why) == (good_from > tries)
