"""Which form of the product the bench runs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from bench import form
from bench.form import Form
from gateway.session import sending
from scripts import compiled


def test_compiled_is_what_is_measured_unless_another_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(form.VARIABLE)
    assert form.asked() is Form.COMPILED
    monkeypatch.setenv(form.VARIABLE, "source")
    assert form.asked() is Form.SOURCE
    assert form.product() == compiled.ROOT


def test_a_form_that_is_none_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(form.VARIABLE, "compield")
    with pytest.raises(SystemExit, match="NIGHTMAIL_FORM=compield: allowed are compiled, source"):
        form.asked()


def test_a_revision_from_before_that_form_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(form.VARIABLE, "compiled")
    (tmp_path / "gateway").mkdir()
    form.compile_revision(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["gateway"]


def test_a_revision_is_compiled_by_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scripts").mkdir()
    words = "import pathlib, sys; (pathlib.Path(sys.argv[1]) / 'done').touch()"
    (tmp_path / "scripts" / "compiled.py").write_text(words)
    monkeypatch.setenv(form.VARIABLE, "source")
    form.compile_revision(tmp_path)
    assert not (tmp_path / "done").exists()
    monkeypatch.setenv(form.VARIABLE, "compiled")
    form.compile_revision(tmp_path)
    assert (tmp_path / "done").exists()


def test_scripts_are_told_where_the_product_is() -> None:
    words = [sys.executable, "-m", "bench.form"]
    variables = os.environ | {form.VARIABLE: "source"}
    done = subprocess.run(words, env=variables, cwd=compiled.ROOT, capture_output=True, text=True, check=True)
    assert Path(done.stdout.removesuffix("\n")) == compiled.ROOT


def test_a_process_knows_which_form_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert form.running() is Form.SOURCE
    monkeypatch.setattr(sending, "__file__", f"/usr/lib/sending{EXTENSION_SUFFIXES[0]}")
    assert form.running() is Form.COMPILED
