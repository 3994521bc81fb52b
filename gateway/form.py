"""In which form the program runs: compiled where extension modules lie beside the sources, else the sources.

The Debian package has both (scripts/compiled.py makes the former out of the latter). A file of the
operator's, SWITCH, takes its processes back to the sources; where an extension module cannot be had as it was
packed, they run, too, and the daemon rings. Asked for before all else, by every process for itself: one may
be compiled, and the next one not.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import sys
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path
from types import TracebackType
from typing import Final

SWITCH: Final = Path("/etc/nightmail/source-form")
LIBRARY: Final = "nightmail__mypyc"
"""Has the code of all compiled modules; what lies beside their sources only leads there."""
LISTED: Final = f"{LIBRARY}.sha256"
"""Beside the library: what it and the extension modules are when they are whole, as `sha256sum` tells it."""


def choose(package: Path, switch: Path = SWITCH) -> str:
    """For all modules below the folder `package` that are imported from now on. Why they are sources although
    there is a library; empty where there is nothing to tell.

    All modules of a process have one form: compiled ones call each other past Python's import.
    """
    sys.excepthook = _tell
    wanted = switch.exists()
    trouble = "" if wanted else _trouble(package.parent)
    if trouble:
        _say(f"{trouble}; its sources run until then")
    if wanted or trouble:
        sys.path_hooks.insert(0, lambda folder: _sources_in(folder, package))
        sys.path_importer_cache.clear()  # this module itself has been looked for already
    return trouble


def damage(error: BaseException) -> str | None:
    """In one line: which library it was that could not be loaded, and what to do; None if it was none."""
    if not isinstance(error, ImportError):
        return None
    path = LIBRARY if error.name == LIBRARY and error.path is None else error.path
    if path is None or not path.endswith((LIBRARY, *EXTENSION_SUFFIXES)):
        return None
    return _told(path, error)


def _told(path: str, error: Exception) -> str:
    return f"{path} cannot be loaded ({str(error).removeprefix(f'{path}: ')}): install the package anew"


def _sources_in(folder: str, package: Path) -> FileFinder:
    """Raises ImportError elsewhere, as a path hook does: libraries have no other form."""
    if not Path(folder).is_relative_to(package):
        raise ImportError
    return FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))


def _trouble(folder: Path) -> str:
    """Why the compiled modules in `folder` are not to be used; empty if they are, or if there are none."""
    library, listed = folder / f"{LIBRARY}{EXTENSION_SUFFIXES[0]}", folder / LISTED
    if not (library.exists() or listed.exists()):
        return ""
    try:
        _require_whole(library, listed)
        # What hinders it shows here, where there is still a choice: each module would load it.
        importlib.import_module(LIBRARY)
    except Exception as error:  # whatever a damaged disk makes of it
        return damage(error) or _told(str(library), error)
    return ""


def _require_whole(library: Path, listed: Path) -> None:
    """Raises ImportError for a file that is not as it was packed. One that is cut off would end who loads it
    by SIGBUS, and one with other octets by anything, both without a word. The library stands last in the
    list, so that a list that is cut off lacks it."""
    lines = [line.partition("  ") for line in listed.read_text(errors="replace").splitlines()]
    sums = {name: told for told, _, name in lines}
    if library.name not in sums:
        raise ImportError(f"{listed.name} does not name it", path=str(library))
    for name, told in sums.items():
        path = library.parent / name
        if _sum(path) != told:
            raise ImportError("it is not as it was packed", path=str(path))


def _sum(path: Path) -> str:
    """Raises ImportError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImportError(error.strerror, path=str(path)) from None


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of frames, which say nothing of a file."""
    told = damage(error)
    if told is None:
        sys.__excepthook__(kind, error, trace)
    else:
        _say(told)


def _say(told: str) -> None:
    """Where nobody hears it, or nothing more can be written, it is not said."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"nightmail: {told}", file=sys.stderr)
