"""docs/security.md against what it names: every test and every claim exists, and every line names one."""

from __future__ import annotations

import re
from pathlib import Path

from tests.model.asking import Verdict
from tests.model.queries import queries

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "security.md").read_text()
WRITTEN = re.sub(r"<!-- generated: .*?<!-- end -->", "", TEXT, flags=re.DOTALL)
CLAIMS = {query.claim: query for query in queries()}
ROOMS = {claim.partition("/")[0] for claim in CLAIMS}


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def rows() -> list[list[str]]:
    """The lines of the parties' tables: what, answer, shown by."""
    lines = [line for line in WRITTEN.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row != ["what", "", "shown by"]]


def test_every_test_that_is_named_exists() -> None:
    named = [name for name in quoted(WRITTEN) if "::" in name and "…" not in name]
    assert len(named) > 40
    missing = []
    for name in named:
        file, _, test = name.partition("::")
        path = TESTS / file
        if not path.exists() or not re.search(rf"^(?:async )?def {test}\(", path.read_text(), re.MULTILINE):
            missing.append(name)
    assert missing == []


def test_every_claim_that_is_named_exists() -> None:
    named = {name for name in quoted(WRITTEN) if name.partition("/")[0] in ROOMS and "/" in name}
    assert len(named) > 40
    assert named - set(CLAIMS) == set()


def test_every_line_names_what_shows_it() -> None:
    assert len(rows()) > 50
    for what, answer, shown in rows():
        names = quoted(shown)
        assert answer and names, what
        assert all("::" in name or name in CLAIMS for name in names), what


def test_no_claim_that_says_no_is_shown_by_an_attack_nor_the_other_way_round() -> None:
    for what, answer, shown in rows():
        verdicts = {CLAIMS[name].expected for name in quoted(shown) if name in CLAIMS}
        if answer.startswith("no"):
            assert verdicts <= {Verdict.HOLDS}, what
        if answer == "yes":
            assert verdicts <= {Verdict.ATTACK}, what


def test_every_whole_claim_is_told_in_words() -> None:
    """A query that nobody reads about is none of the document's; variants and honest runs need no line."""
    whole = {
        claim
        for claim, query in CLAIMS.items()
        if "/without-" not in claim and query.expected is not Verdict.REACHED
    }
    told = set(quoted(WRITTEN))
    assert whole - told - {"agreement/swapped-offers/pinned-needs-no-address"} == set()
