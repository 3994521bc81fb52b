"""The way of a session as machine code: `python -m scripts.compiled FOLDER` compiles it where it stands.

FOLDER holds the package `gateway`. Beside each module of MODULES an extension module of the same name is
laid, which Python loads in place of the source; without it, the source runs. mypyc makes them out of the
annotations that mypy checks, so the compiled modules are exactly as strict as those: what is no `bytes` where
`bytes` is asked for raises TypeError. The Debian package has them; bench and tests make a copy of the tree
for them (`tree`; without FOLDER its place is printed). docs/performance.md says what they bring.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
MODULES: Final = (
    "crypto/*",
    "intercept/admission",
    "intercept/counted",
    "intercept/gate",
    "intercept/held",
    "intercept/icmp_budget",
    "intercept/marks",
    "intercept/nfqueue",
    "intercept/outcomes",
    "intercept/pulse",
    "intercept/statements",
    "intercept/syn",
    "observe/counters",
    "observe/log",
    "observe/protection",
    "observe/sinks",
    "peers/comparison",
    "peers/history",
    "peers/looks",
    "peers/pins",
    "peers/sources",
    "policy/*",
    "runtime/worker/*",
    "session/*",
    "smtp/*",
)
"""Below gateway/: all that a worker does for a session, from its SYN to its last line in the log."""
VALUES: Final = ("policy/limits", "session/commands", "session/context", "session/events", "smtp/events")
"""Not these: nothing but values, which gain nothing. A limit is compiled in where it is used."""
_PARTS: Final = ("gateway", "iptables", "docs/messages.md")
"""What the daemon needs of a checkout."""
_FLAGS: Final = frozenset(("CFLAGS", "CPPFLAGS", "LDFLAGS"))
_KEPT: Final = 3
"""Trees of earlier states, for a bench that goes back and forth."""


def modules(package: Path) -> list[Path]:
    """The sources to compile, relative to the folder that holds `package`. Raises FileNotFoundError."""
    found = set()
    for pattern in MODULES:
        matches = [path for path in package.glob(f"{pattern}.py") if not path.name.startswith("__")]
        if not matches:
            raise FileNotFoundError(f"scripts/compiled.py: there is no {package / pattern}.py")
        found.update(matches)
    values = {package / f"{name}.py" for name in VALUES}
    return sorted(path.relative_to(package.parent) for path in found - values)


def compile_in(folder: Path, python: str = sys.executable) -> None:
    """Lay the extension modules into `folder`/gateway, for the interpreter `python`, whose packages are those
    that the annotations name. Raises SystemExit, with the compiler's own words on standard error."""
    sources = modules(folder / "gateway")
    command = [sys.executable, str(Path(__file__).resolve()), "--build", str(folder), python]
    # A build of a Debian package sets these, and setuptools takes them in place of Python's own: without
    # those C's asserts stand in the result. The package is to have what is measured.
    variables = {name: said for name, said in os.environ.items() if name not in _FLAGS}
    done = subprocess.run(
        [*command, *map(str, sources)], env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout[-4000:] + done.stderr[-4000:])
        raise SystemExit(f"compiled: {folder}: the compiler has failed; its last words stand above")
    list_in(folder)


def list_in(folder: Path) -> None:
    """Write down what each extension module is as it was made: those who load them look (gateway/form.py)."""
    from gateway import form  # not to be had where this file is run by its own path

    made = [*sorted((folder / "gateway").rglob("*.so")), *folder.glob(f"{form.LIBRARY}.*.so")]
    lines = [f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.relative_to(folder)}\n" for one in made]
    (folder / form.LISTED).write_text("".join(lines))


def tree() -> Path:
    """A copy of this checkout's product, compiled: made once for each state of it, in two minutes."""
    cache = ROOT / "build" / "compiled"
    cache.mkdir(parents=True, exist_ok=True)
    wanted = cache / _state()
    with _locked(cache):
        if not wanted.exists():
            print("compiled: compiling, some two minutes", file=sys.stderr)
            _forget_oldest(cache)
            with tempfile.TemporaryDirectory(dir=cache, prefix="making-") as name:
                making = Path(name) / "tree"
                _copy_parts(making)
                compile_in(making)
                making.rename(wanted)
        os.utime(wanted)
    return wanted


def _state() -> str:
    """Names all that the result depends on."""
    digest = hashlib.sha256(f"{sys.version} {platform.machine()}".encode())
    digest.update((ROOT / "constraints.txt").read_bytes() + Path(__file__).read_bytes())
    digest.update(Path(__file__).with_name("misread.py").read_bytes())
    for part in _PARTS:
        top = ROOT / part
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _copy_parts(to: Path) -> None:
    for part in _PARTS:
        source, target = ROOT / part, to / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy2(source, target)


def _forget_oldest(cache: Path) -> None:
    for left in cache.glob("making-*"):
        shutil.rmtree(left)
    states = sorted(
        (path for path in cache.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    for old in states[:-_KEPT]:
        shutil.rmtree(old)


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(folder: Path, python: str, sources: list[str]) -> None:
    """In a process of its own: setuptools and mypy leave much behind."""
    from mypyc.build import mypycify
    from setuptools import setup

    sys.path.insert(0, str(ROOT))
    from scripts.misread import misread

    os.chdir(folder)
    with tempfile.TemporaryDirectory(prefix="nightmail-compiled-") as work:
        flags = ["--config-file", str(ROOT / "pyproject.toml"), "--python-executable", python]
        flags += ["--cache-dir", f"{work}/cache"]
        extensions = mypycify(
            [*flags, *sources], opt_level="2", debug_level="0", target_dir=work, group_name="nightmail"
        )
        with Path(work, "ops.txt").open() as operations:
            if found := misread(map(Path, sources), operations):
                raise SystemExit("what mypyc takes for something else:\n" + "\n".join(found))
        for extension in extensions:
            # mypyc makes errors of warnings, and each newer gcc has more of them.
            extension.extra_compile_args.append("-Wno-error")
            # Bound when it is loaded: what does not fit is told then, not by the end of a process with its
            # mail; and nothing that leads to code can be written after. Without names that debuggers read.
            extension.extra_link_args += ["-Wl,-z,relro,-z,now", "-Wl,-s"]
        arguments = ["--quiet", "build_ext", "--build-lib", str(folder), "--build-temp", work]
        setup(name="nightmail", packages=[], py_modules=[], ext_modules=extensions, script_args=arguments)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--build"]:
        _build(Path(arguments[1]), arguments[2], arguments[3:])
    elif len(arguments) in (1, 2):
        compile_in(Path(arguments[0]).resolve(), *arguments[1:])
    elif not arguments:
        print(tree())
    else:
        print("usage: python -m scripts.compiled [FOLDER [PYTHON]]", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
