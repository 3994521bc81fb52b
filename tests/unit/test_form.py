"""Compiled or source form, and what is said of a library that cannot be loaded: in processes of their own.

`packaging/try.sh` does the same with the true ones, in a daemon that serves.
"""

from __future__ import annotations

import _ctypes
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import gateway
from gateway import form

FOLDERS = (".", "deep")
DAMAGED = b"\x7fELF"


def _package(top: Path) -> Path:
    """One of our name, with our first two modules, and below it modules that have both forms."""
    package, ours = top / "gateway", Path(gateway.__file__).parent
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text((ours / "__init__.py").read_text())
    words = (ours / "form.py").read_text()
    assert str(form.SWITCH) in words
    (package / "form.py").write_text(words.replace(str(form.SWITCH), str(top / "switch")))
    (package / "deep" / "__init__.py").touch()
    for folder in FOLDERS:
        (package / folder / "module.py").write_text("print('source')\n")
        _extension(package / folder / "module").write_bytes(DAMAGED)
    return package


def _extension(path: Path) -> Path:
    return path.with_name(path.name + EXTENSION_SUFFIXES[0])


def _run(top: Path, module: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", f"import {module}"]
    return subprocess.run(words, cwd=top, capture_output=True, text=True, timeout=60)


def _require_told(done: subprocess.CompletedProcess[str], library: Path, why: str) -> None:
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"nightmail: {library}")
    assert why in line


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_library_that_cannot_be_loaded_is_named_in_one_line(tmp_path: Path, folder: str) -> None:
    package = _package(tmp_path)
    module = "gateway.module" if folder == "." else "gateway.deep.module"
    _require_told(_run(tmp_path, module), _extension(package / folder / "module").resolve(), "too short")


def test_a_library_that_is_cut_off_is_told_before_it_is_loaded(tmp_path: Path) -> None:
    _package(tmp_path)
    whole, library = Path(_ctypes.__file__).read_bytes(), _extension(tmp_path / "nightmail__mypyc")
    library.write_bytes(whole)
    told = _run(tmp_path, "gateway.module").stderr
    assert "too short" in told, "it is whole: the damage is elsewhere"
    assert f"touch {tmp_path / 'switch'}" in told
    for octets in (0, len(DAMAGED), len(whole) // 2, len(whole) - 1):
        library.write_bytes(whole[:octets])
        _require_told(_run(tmp_path, "gateway.module"), library, f"cut off after {octets} octets")
    (tmp_path / "switch").touch()
    assert _run(tmp_path, "gateway.module").stdout == "source\n"


def test_a_library_that_is_not_there_is_named(tmp_path: Path) -> None:
    package = _package(tmp_path)
    (package / "bare.py").write_text("import nightmail__mypyc\n")
    _require_told(_run(tmp_path, "gateway.bare"), Path("nightmail__mypyc"), "No module named")


@pytest.mark.parametrize("module", ["gateway.module", "gateway.deep.module"])
def test_the_switch_makes_the_sources_run(tmp_path: Path, module: str) -> None:
    _package(tmp_path)
    (tmp_path / "switch").touch()
    done = _run(tmp_path, module)
    assert (done.returncode, done.stdout, done.stderr) == (0, "source\n", "")


def test_the_switch_is_for_our_modules_alone(tmp_path: Path) -> None:
    _package(tmp_path)
    (tmp_path / "switch").touch()
    (tmp_path / "other.py").touch()
    _extension(tmp_path / "other").write_bytes(DAMAGED)
    done = _run(tmp_path, "gateway.module, other")
    _require_told(done, _extension(tmp_path / "other"), "too short")
    assert "touch" not in done.stderr


def test_any_other_failure_keeps_its_frames(tmp_path: Path) -> None:
    package = _package(tmp_path)
    (package / "bug.py").write_text("import nowhere_to_be_found\n")
    told = _run(tmp_path, "gateway.bug").stderr
    assert "Traceback" in told
    assert "nowhere_to_be_found" in told


def test_what_is_no_library_is_no_damage() -> None:
    for error in (ValueError("so"), ImportError("so"), ImportError("so", path="/a/source.py")):
        assert form.damage(error) is None
    assert form.damage(ImportError("so", path="/a/b.so")) is not None
