"""Compiled or source form, and what is said of a library that cannot be loaded: in processes of their own.

The library here is a small one; `packaging/try.sh` does the same with the true ones, in a daemon that serves,
and tests/lab/test_damaged_library.py with a true daemon.
"""

from __future__ import annotations

import _ctypes
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import gateway
from gateway import form
from scripts import compiled

FOLDERS = (".", "deep")
DAMAGED = b"\x7fELF"
SUFFIX = EXTENSION_SUFFIXES[0]
C = """
#include <Python.h>
static struct PyModuleDef library = {PyModuleDef_HEAD_INIT, "nightmail__mypyc"};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "module"};
PyMODINIT_FUNC PyInit_nightmail__mypyc(void) { return PyModule_Create(&library); }
PyMODINIT_FUNC PyInit_module(void) { PySys_WriteStdout("compiled\\n"); return PyModule_Create(&module); }
"""
"""One file for the library and for what lies beside the sources."""


@pytest.fixture(scope="session")
def extension(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("extension")
    (folder / "one.c").write_text(C)
    compiler = shlex.split(sysconfig.get_config_var("CC"))
    words = ["-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", "one.c", "-o", "one.so"]
    subprocess.run([*compiler, *words], cwd=folder, check=True, timeout=60)
    return (folder / "one.so").read_bytes()


@pytest.fixture
def package(tmp_path: Path, extension: bytes) -> Path:
    """One of our name, with our first two modules, and below it modules that have both forms."""
    made, ours = tmp_path / "gateway", Path(gateway.__file__).parent
    (made / "deep").mkdir(parents=True)
    (made / "__init__.py").write_text((ours / "__init__.py").read_text())
    words = (ours / "form.py").read_text()
    assert str(form.SWITCH) in words
    (made / "form.py").write_text(words.replace(str(form.SWITCH), str(tmp_path / "switch")))
    (made / "deep" / "__init__.py").touch()
    for folder in FOLDERS:
        (made / folder / "module.py").write_text("print('source')\n")
        _extension(made / folder / "module").write_bytes(extension)
    _library(made).write_bytes(extension)
    compiled.list_in(tmp_path)
    return made


def _extension(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def _library(package: Path) -> Path:
    return _extension(package.parent / form.LIBRARY)


def _run(package: Path, module: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", f"import {module}"]
    return subprocess.run(words, cwd=package.parent, capture_output=True, text=True, timeout=60)


def _require_told(done: subprocess.CompletedProcess[str], library: Path, why: str) -> None:
    [line] = done.stderr.splitlines()
    assert line.startswith(f"nightmail: {library} cannot be loaded (")
    assert why in line


@pytest.mark.parametrize("module", ["gateway.module", "gateway.deep.module"])
def test_what_is_whole_is_run_compiled(package: Path, module: str) -> None:
    done = _run(package, f"{module}; print(repr(gateway.LIBRARY_TROUBLE))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "compiled\n''\n", "")


def test_without_a_library_there_is_nothing_to_tell(package: Path) -> None:
    for path in (*package.rglob("*.so"), _library(package), package.parent / form.LISTED):
        path.unlink()
    done = _run(package, "gateway.module; print(repr(gateway.LIBRARY_TROUBLE))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "source\n''\n", "")


def _cut(octets: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes()[:octets])


def _flip_a_bit(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.write_bytes(octets)


def _make_unreadable(path: Path) -> None:
    """For root, too."""
    path.unlink()
    path.mkdir()


def _replace(path: Path) -> None:
    """With one that can be loaded, but is none of ours."""
    path.write_bytes(Path(_ctypes.__file__).read_bytes())


def _replace_in_list(path: Path) -> None:
    _replace(path)
    compiled.list_in(path.parent)


def _be_of_another_python(path: Path) -> None:
    path.rename(path.with_name(f"{form.LIBRARY}.cpython-399-x86_64-linux-gnu.so"))
    compiled.list_in(path.parent)


AS_PACKED = "not as it was packed"


@pytest.mark.parametrize("which", [form.LIBRARY, "gateway/module", "gateway/deep/module"])
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_cut(0), AS_PACKED),
        (_cut(len(DAMAGED)), AS_PACKED),
        (_cut(4096), AS_PACKED),
        (_cut(-1), AS_PACKED),
        (_flip_a_bit, AS_PACKED),
        (_replace, AS_PACKED),
        (_make_unreadable, "Is a directory"),
        (Path.unlink, "No such file or directory"),
    ],
    ids=["empty", "its head", "its first page", "all but an octet", "bit", "another", "unreadable", "gone"],
)
def test_with_a_damaged_file_all_modules_are_sources(
    package: Path, which: str, damage: Callable[[Path], object], why: str
) -> None:
    damaged = _extension(package.parent / which)
    damage(damaged)
    done = _run(package, "gateway.module, gateway.deep.module; print(gateway.LIBRARY_TROUBLE)")
    _require_told(done, damaged, why)
    trouble = done.stderr.strip().removeprefix("nightmail: ").removesuffix("; its sources run until then")
    assert (done.returncode, done.stdout) == (0, f"source\nsource\n{trouble}\n")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_replace_in_list, "PyInit_nightmail__mypyc"),
        (_be_of_another_python, "nightmail__mypyc.sha256 does not name it"),
    ],
)
def test_what_is_as_it_was_packed_and_yet_cannot_be_loaded(
    package: Path, damage: Callable[[Path], object], why: str
) -> None:
    damage(_library(package))
    done = _run(package, "gateway.module")
    _require_told(done, _library(package), why)
    assert (done.returncode, done.stdout) == (0, "source\n")


@pytest.mark.parametrize(
    "damage",
    [
        *(_cut(0), _cut(100), _cut(-2), _flip_a_bit, _make_unreadable, Path.unlink),
        lambda path: path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1])),
        lambda path: path.write_bytes(bytes(4096)),
        lambda path: path.write_bytes(b"\0  \0\n" + path.read_bytes()),
        lambda path: path.write_bytes(b"\xff  \xff\n" + path.read_bytes()),
    ],
    ids=[
        "empty",
        "part",
        "all but its end",
        "bit",
        "unreadable",
        "gone",
        "without its last line",
        "zeros",
        "NUL",
        "no UTF-8",
    ],
)
def test_a_damaged_list_says_nothing_of_any_file(package: Path, damage: Callable[[Path], object]) -> None:
    damage(package.parent / form.LISTED)
    done = _run(package, "gateway.module")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"nightmail: {package.parent}/")
    assert (done.returncode, done.stdout) == (0, "source\n")


def test_a_library_that_is_not_there_is_named_where_no_list_tells_of_it(package: Path) -> None:
    _library(package).unlink()
    (package.parent / form.LISTED).unlink()
    (package / "bare.py").write_text(f"import {form.LIBRARY}\n")
    done = _run(package, "gateway.bare")
    assert done.returncode == 1
    _require_told(done, Path(form.LIBRARY), "No module named")


def test_who_has_closed_its_standard_error_gets_nothing_elsewhere(package: Path) -> None:
    _cut(0)(_library(package))
    command = f"{shlex.quote(sys.executable)} -c 'import gateway.module' 2>&-"
    done = subprocess.run(["sh", "-c", command], cwd=package.parent, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"source\n")


@pytest.mark.parametrize("module", ["gateway.module", "gateway.deep.module"])
def test_the_switch_makes_the_sources_run(package: Path, module: str) -> None:
    (package.parent / "switch").touch()
    done = _run(package, f"{module}; print(repr(gateway.LIBRARY_TROUBLE))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "source\n''\n", "")
    _cut(0)(_library(package))
    assert _run(package, module).stderr == "", "who has the sources run needs no library"


def test_other_libraries_have_no_other_form(package: Path) -> None:
    (package.parent / "switch").touch()
    (package.parent / "other.py").touch()
    other = _extension(package.parent / "other")
    other.write_bytes(DAMAGED)
    done = _run(package, "gateway.module, other")
    assert done.returncode == 1
    _require_told(done, other, "too short")
    assert "sources" not in done.stderr


def test_any_other_failure_keeps_its_frames(package: Path) -> None:
    (package / "bug.py").write_text("import nowhere_to_be_found\n")
    told = _run(package, "gateway.bug").stderr
    assert "Traceback" in told
    assert "nowhere_to_be_found" in told


def test_what_is_no_library_is_no_damage() -> None:
    for error in (ValueError("so"), ImportError("so"), ImportError("so", path="/a/source.py")):
        assert form.damage(error) is None
    assert form.damage(ImportError("so", path="/a/b.so")) is not None
