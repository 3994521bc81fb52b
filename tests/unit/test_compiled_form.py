"""The tests' other form: what `--compiled` refuses, and that what it leaves out is there to be left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import compiled, run_tests
from tests import compiled_form as form

ROOT = Path(__file__).parents[2]
ONE = "tests/unit/session/test_flights.py"


def test_sources_are_told_from_what_is_compiled() -> None:
    modules = compiled.modules(ROOT / "gateway")
    assert len(form.interpreted()) == len(modules) > 50


def test_with_sources_no_test_is_run_as_one_of_the_compiled_form() -> None:
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--compiled", "tests/unit/test_immutable.py"]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "these are sources: gateway.crypto.export," in done.stderr


def test_a_line_about_no_test_is_seen_where_its_file_is_read() -> None:
    of_file = [name for name in form.SOURCE_ALONE if name.startswith(f"{ONE}::")]
    assert of_file
    assert form.stale([f"{ONE}::test_another"]) == of_file
    assert form.stale([f"{ONE}::test_another", *of_file]) == []
    assert form.stale([f"{name}[with parameters]" for name in form.SOURCE_ALONE]) == []
    assert form.stale(["tests/unit/smtp/test_grammar.py::test_another"]) == []


@pytest.mark.parametrize("name", form.SOURCE_ALONE)
def test_what_is_left_out_is_there(name: str) -> None:
    """In a file, too, that the compiled stage does run, at least where there is time for the whole lab."""
    file, _, function = name.partition("::")
    assert f"def {function}(" in (ROOT / file).read_text()
    rooms = ("tests/second", *(f"tests/unit/{room}" for room in run_tests.COMPILED_ROOMS))
    assert file.startswith((*rooms, "tests/lab/"))


def test_what_the_stage_runs_is_there() -> None:
    for room in run_tests.COMPILED_ROOMS:
        assert list((ROOT / "tests" / "unit" / room).glob("test_*.py")), room
    for name in run_tests.COMPILED_LAB:
        assert (ROOT / "tests" / "lab" / name).exists(), name


def test_without_a_tree_the_stage_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(command: list[str], **words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, stdout="")

    monkeypatch.setattr(subprocess, "run", refuses)
    ran = run_tests.run_compiled(run_tests.compiled_tree(), everything=False)
    assert (ran.passed, ran.failed) == (0, 1)


def test_the_whole_lab_runs_on_it_where_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, str]] = []

    def noted(kind: str, words: list[str], *, as_root: bool, compiled: Path | None = None) -> run_tests.Ran:
        assert compiled == tmp_path
        ran.extend((word, words[words.index("-m") + 1]) for word in words if word.startswith("tests/lab"))
        return run_tests.Ran(kind, 1, 0)

    monkeypatch.setattr(run_tests, "_pytest", noted)
    run_tests.run_compiled(tmp_path, everything=False)
    assert ran == [(f"tests/lab/{name}", "not long") for name in run_tests.COMPILED_LAB]
    ran.clear()
    run_tests.run_compiled(tmp_path, everything=True)
    assert ran == [("tests/lab", "not long")]
