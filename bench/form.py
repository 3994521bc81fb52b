"""Which form of the product is measured: compiled, as the Debian package has it, unless another is asked for.

`NIGHTMAIL_FORM=source scripts/bench …` measures what a checkout runs; scripts/chaos and scripts/soak ask the
same, by `python -m bench.form`, which prints where `gateway` is to come from. Counterpart:
`scripts.compiled`.
"""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

from gateway.session import sending
from scripts import compiled

VARIABLE: Final = "NIGHTMAIL_FORM"


class Form(enum.Enum):
    COMPILED = "compiled"
    SOURCE = "source"


def asked() -> Form:
    """Raises SystemExit for a word that names no form."""
    word = os.environ.get(VARIABLE, Form.COMPILED.value)
    try:
        return Form(word)
    except ValueError:
        raise SystemExit(f"bench: {VARIABLE}={word}: allowed are compiled, source") from None


def product() -> Path:
    """The tree that daemons run from. Made in two minutes where it is not there yet."""
    return compiled.tree() if asked() is Form.COMPILED else compiled.ROOT


def compile_revision(tree: Path) -> None:
    """`tree` holds another revision's files: in the same form, by its own words, where it has that form."""
    if asked() is Form.COMPILED and (tree / "scripts" / "compiled.py").exists():
        subprocess.run([sys.executable, "-m", "scripts.compiled", str(tree)], cwd=tree, check=True)


def running() -> Form:
    """What this process has, and what the labs that it builds start."""
    return Form.COMPILED if sending.__file__.endswith(tuple(EXTENSION_SUFFIXES)) else Form.SOURCE


if __name__ == "__main__":
    print(product())
