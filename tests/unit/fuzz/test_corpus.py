"""The committed corpus through every fuzz target, without the fuzzer: what it has found once stays found."""

from __future__ import annotations

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.table import CORPUS, TARGETS, corpus


@pytest.mark.parametrize("name", TARGETS)
def test_every_committed_case(name: str) -> None:
    cases = corpus(name)
    assert cases
    for case in cases:
        TARGETS[name].run(case.read_bytes())


def test_every_seed() -> None:
    """From vectors and dialogues as they are now; the corpus is what is left of those of some day."""
    names = set()
    for name, octets in seeds():
        TARGETS[name].run(octets)
        names.add(name)
    assert names == set(TARGETS)


def test_the_corpus_is_small_and_of_these_targets() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS)
    assert len(files) <= 900
    assert sum(path.stat().st_size for path in files) < 512 * 1024


@pytest.mark.parametrize("name", TARGETS)
def test_degenerate_inputs(name: str) -> None:
    for octets in (b"", b"\0", b"\xff", bytes(64), b"\xff" * 64, bytes(range(256))):
        TARGETS[name].run(octets)
