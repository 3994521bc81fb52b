"""Every fuzz target by its name, and where its corpus stands."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.fuzz import crypto_targets, session_targets, smtp_targets, system_targets
from tests.fuzz.target import Target

CORPUS: Final = Path(__file__).parent / "corpus"
"""Committed: corpus/TARGET/ holds one file for each case, named by the beginning of its SHA-256."""

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for room in (smtp_targets, crypto_targets, session_targets, system_targets)
    for target in room.TARGETS
}


def corpus(name: str) -> list[Path]:
    """The committed cases of a target, in the same order on every machine."""
    return sorted(path for path in (CORPUS / name).iterdir() if path.is_file())
