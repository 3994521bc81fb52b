"""Another revision of this tree, beside which this one is measured: its files, and planes that run it."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import gateway as product
from bench import form, planes
from bench.planes import Plane, Variant

ROOT: Final = Path(product.__file__).parent.parent
EACH_SESSION: Final = "\n[offers]\nrest = false\n"
"""As in the lab's configuration; an older revision may not know the word."""


def standing_of(tree: Path, variants: list[Variant]) -> AbstractContextManager[dict[Variant, Plane]]:
    """Planes whose daemons run from `tree`."""
    knows = "offers.rest" in (tree / "gateway" / "config.py").read_text()
    return planes.standing(
        "before",
        variants,
        source=tree,
        change=lambda _, text: text if knows else text.replace(EACH_SESSION, ""),
    )


@contextlib.contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """A copy of that revision's files, in the form that is measured; gone afterwards."""
    done = subprocess.run(["git", "-C", str(ROOT), "archive", revision], capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: {done.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory(prefix="nightmail-against-") as folder:
        # Python 3.11.2's tarfile, Debian 12's, knows no filter yet.
        subprocess.run(["tar", "-x", "-C", folder], input=done.stdout, check=True)
        form.compile_revision(Path(folder))
        yield Path(folder)
