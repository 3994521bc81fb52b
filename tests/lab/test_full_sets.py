"""Our sets hold a quarter of a million connections, and others as much: no look at the rules reads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.intercept import kernel, ruleset
from gateway.intercept.kernel.nft import NftTables
from gateway.intercept.objects import NftTable
from tests.lab.own_namespaces import ip, remove_ours
from tests.lab.rules_ground import CONFIG, sh, within

PREFIX: Final = "nmfs"
HERE: Final = f"{PREFIX}-{os.getpid()}"
MORE: Final = 50
"""Sets in our table and in another one, beside those that there are."""
TABLES: Final = ruleset.render(CONFIG, ruleset.slots_of(CONFIG)).of(NftTable)
_GETSETELEM: Final = "| 02573 |"
"""NFT_MSG_GETSETELEM of the nftables subsystem, <linux/netfilter/nf_tables.h>, as nft shows what it sends."""


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of nft to the kernel, a file for each run of it; what is asked by way of it is asked twice."""
    remove_ours(PREFIX)
    told, nft = tmp_path / "told", tmp_path / "bin" / "nft"
    told.mkdir()
    nft.parent.mkdir()
    own = shutil.which("nft")
    nft.write_text(f'#!/bin/sh\n{own} --debug=mnl "$@" </dev/null >{told}/$$ 2>&1\nexec {own} "$@"\n')
    nft.chmod(0o755)
    text = "".join(each.text for each in TABLES) + "add table inet others\n"
    for name in (f"{table} s{each}" for table in ("nightmail", "others") for each in range(MORE)):
        text += f"add set inet {name} {{ type ipv4_addr; }}\nadd element inet {name} {{ 192.0.2.1 }}\n"
    ip(f"netns add {HERE}")
    try:
        sh(HERE, "nft -f -", stdin=text)
        monkeypatch.setenv("PATH", f"{nft.parent}:{os.environ['PATH']}")
        yield told
    finally:
        monkeypatch.undo()
        remove_ours(PREFIX)


def look() -> list[str]:
    tables = NftTables()
    tables.learn(TABLES)
    return tables.missing(TABLES)[1:]  # the first is the chain of the gate's workers, of whom there are none


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (look, []),
        (kernel.DEAD_ENDS.count, 0),
        (lambda: kernel.DEAD_ENDS.has(("192.0.2.7", 25)), False),
        (lambda: kernel.reset_was_odd("192.0.2.7", "10.1.0.2"), None),
    ],
    ids=["look", "count", "dead-end", "reset"],
)
def test_what_sets_hold_is_not_read(questions: Path, ask: Callable[[], Any], answer: object) -> None:
    assert within(HERE, ask) == answer
    runs = [each.read_text() for each in questions.iterdir()]
    assert runs
    assert max(run.count(_GETSETELEM) for run in runs) < MORE


def test_what_a_set_has_is_found_and_stays(questions: Path) -> None:
    def asked() -> tuple[bool, bool | None, int]:
        return (
            kernel.DEAD_ENDS.has(("192.0.2.7", 25)),
            kernel.reset_was_odd("192.0.2.7", "10.1.0.2"),
            kernel.DEAD_ENDS.count(),
        )

    within(HERE, lambda: kernel.DEAD_ENDS.add([("192.0.2.7", 25)], 60))
    sh(HERE, "nft -f -", stdin="add element inet nightmail plain_resets4 { 192.0.2.7 . 10.1.0.2 }\n")
    for _ in range(2):
        assert within(HERE, asked) == (True, False, 0)
    sh(HERE, "nft -f -", stdin="add element inet nightmail odd_resets4 { 192.0.2.7 . 10.1.0.2 }\n")
    assert within(HERE, asked) == (True, True, 0)
    within(HERE, lambda: kernel.DEAD_ENDS.remove(("192.0.2.7", 25)))
    assert within(HERE, asked) == (False, True, 0)
    for address in ("192.0.2.7", "2001:db8::7"):
        within(HERE, lambda address=address: kernel.DEAD_ENDS.add([(address, 25)], 60))
        assert within(HERE, lambda address=address: kernel.DEAD_ENDS.has((address, 25)))
    within(HERE, kernel.DEAD_ENDS.forget)
    for address in ("192.0.2.7", "2001:db8::7"):
        assert not within(HERE, lambda address=address: kernel.DEAD_ENDS.has((address, 25)))
