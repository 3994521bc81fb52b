"""In which form the program runs: compiled where extension modules lie beside the sources, else the sources.

The Debian package has both (scripts/compiled.py makes the former out of the latter); a file of the
operator's, SWITCH, takes its processes back to the sources. Asked for before all else, by every process.
"""

from __future__ import annotations

import struct
import sys
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path
from types import TracebackType
from typing import Final

SWITCH: Final = Path("/etc/nightmail/source-form")
_LIBRARY: Final = "nightmail__mypyc"
"""Has the code of all compiled modules; what lies beside their sources only leads there."""
_HEADER: Final = struct.Struct("<40xQ10xHH2x")
"""Of an ELF file of 64 bits: where the table of its sections stands, the size of an entry, how many."""


def choose(package: Path, switch: Path = SWITCH) -> None:
    """For all modules below the folder `package` that are imported from now on. Raises ImportError."""
    sys.excepthook = _tell
    if switch.exists():
        sys.path_hooks.insert(0, lambda folder: _sources_in(folder, package))
        sys.path_importer_cache.clear()  # this module itself has been looked for already
    else:
        _require_whole(package.parent / f"{_LIBRARY}{EXTENSION_SUFFIXES[0]}")


def damage(error: BaseException) -> str | None:
    """In one line: which library it was that could not be loaded, and what to do; None if it was none."""
    if not isinstance(error, ImportError):
        return None
    path = _LIBRARY if error.name == _LIBRARY and error.path is None else error.path
    if path is None or not path.endswith((_LIBRARY, *EXTENSION_SUFFIXES)):
        return None
    told = f"{path} cannot be loaded ({str(error).removeprefix(f'{path}: ')}): install the package anew"
    ours = _LIBRARY in path or Path(path).is_relative_to(Path(__file__).parent)
    return f"{told}; until then: touch {SWITCH}" if ours else told


def _sources_in(folder: str, package: Path) -> FileFinder:
    """Raises ImportError elsewhere, as a path hook does: libraries have no other form."""
    if not Path(folder).is_relative_to(package):
        raise ImportError
    return FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))


def _require_whole(library: Path) -> None:
    """Raises ImportError for one that is cut off: it would end who loads it by SIGBUS, without a word."""
    try:
        with library.open("rb") as file:
            header, octets = file.read(_HEADER.size), library.stat().st_size
    except OSError:  # none, mostly; what else is wrong is told by who loads it
        return
    if len(header) == _HEADER.size:
        # The linker puts this table last.
        table, size, count = _HEADER.unpack(header)
        if octets >= table + size * count:
            return
    raise ImportError(f"it is cut off after {octets} octets", name=_LIBRARY, path=str(library))


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of frames, which say nothing of a file."""
    told = damage(error)
    if told is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"nightmail: {told}", file=sys.stderr)
