"""The documents against the code: what the gateway can say is explained, and what is explained it can say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from gateway import config
from gateway.errors import Reason
from gateway.policy.decision import DECISIONS
from scripts import docs
from scripts.blocks import BLOCKS, PICTURES
from tests import pages
from tests.pages import PAGES, TAGS, Block
from tests.stages import RUNS, UnstagedError, key_of, run_of

MESSAGES = "docs/messages.md"
LEAST_LETTERS = 60
"""Of a paragraph that says what a word means and what to do."""


def _explained() -> dict[str, str]:
    """Each word that is a heading, with what stands below it."""
    parts = re.split(r"^#+ (.*)\n", (pages.ROOT / MESSAGES).read_text(), flags=re.MULTILINE)
    return {
        head.strip("`"): text for head, text in zip(parts[1::2], parts[2::2], strict=True) if head[0] == "`"
    }


def test_every_reason_has_a_paragraph_for_the_operator() -> None:
    thin = {
        reason.value for reason in Reason if len(_explained().get(reason.value, "").strip()) < LEAST_LETTERS
    }
    assert not thin, MESSAGES


def test_nothing_is_explained_that_is_never_said() -> None:
    assert _explained().keys() - {reason.value for reason in Reason} == set()


def test_what_is_said_to_ring_is_what_rings() -> None:
    """Of what a session's decision says; what troubles the gateway itself has a heading of its own."""
    rings = {decision.reason for decision in DECISIONS.values() if decision.alarm}
    for reason in {decision.reason for decision in DECISIONS.values()}:
        assert (re.search(r"\*Rings[.*]", _explained()[reason.value]) is not None) == (reason in rings), (
            reason
        )


# --- What the code's own words name ---------------------------------------------------------------------


ROOMS = {one.name for one in (pages.ROOT / "gateway").iterdir() if one.is_dir()}


def _docstrings() -> list[tuple[str, str]]:
    """File, and each string that stands alone in it."""
    return [
        (str(file.relative_to(pages.ROOT)), node.value.value)
        for file in sorted((pages.ROOT / "gateway").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]


def test_a_file_that_a_docstring_names_is_where_it_says() -> None:
    """`room.file`, or `room.file.Name`; one that has moved misleads whoever looks for it."""
    strays = []
    for place, text in _docstrings():
        for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", text):
            at = pages.ROOT / "gateway" / name.replace(".", "/")
            files = (at.with_suffix(".py"), at.parent.with_suffix(".py"), at / "__init__.py")
            if name.split(".")[0] in ROOMS and not any(file.exists() for file in files):
                strays.append(f"{place}: {name}")
    assert not strays


def test_a_heading_that_the_code_refers_to_is_there() -> None:
    named = [
        (place, page, " ".join(head.split()))
        for place, text in _docstrings()
        for page, head in re.findall(r'(docs/[\w-]+\.md), "([^"]+)"', text)
    ]
    assert len(named) > 10
    for place, page, head in named:
        text = (pages.ROOT / page).read_text()
        assert head in re.findall(r"^#+ (?:[\d.]+ )?(.*)$", text, flags=re.MULTILINE), place


# --- What is generated in the documents -----------------------------------------------------------------


def test_what_is_generated_is_what_the_code_makes() -> None:
    assert not docs.differences(docs.wanted(BLOCKS, PICTURES)), "run `python -m scripts.docs`"


def test_every_block_stands_in_a_document() -> None:
    used = {name for path in docs.DOCS.glob("*.md") for name in docs.names_used(path.read_text())}
    assert used == set(BLOCKS)


BLOCK = "before\n<!-- generated: one -->\nold\n<!-- end -->\nbehind\n"


def test_a_block_is_rewritten_and_nothing_else() -> None:
    new = docs.rewritten(BLOCK, {"one": lambda: "new\n"})
    assert new == "before\n<!-- generated: one -->\nnew\n<!-- end -->\nbehind\n"
    assert docs.rewritten(new, {"one": lambda: "new\n"}) == new


def test_a_difference_is_found() -> None:
    changed = {docs.DOCS / "protocol.md": (docs.DOCS / "protocol.md").read_text() + "another line\n"}
    assert "+another line" in docs.differences(changed)[docs.DOCS / "protocol.md"]
    assert docs.differences({docs.DOCS / "not-there.svg": "<svg/>"})


@pytest.mark.parametrize(
    "text",
    [
        BLOCK.replace("one", "unknown"),
        BLOCK.replace("<!-- end -->", ""),
        BLOCK.replace("old", "<!-- generated: two -->"),
        "<!-- end -->\n",
    ],
)
def test_a_marker_that_is_wrong_is_an_error(text: str) -> None:
    with pytest.raises(docs.MarkerError):
        docs.rewritten(text, {"one": lambda: "", "two": lambda: ""})


# --- Links ----------------------------------------------------------------------------------------------


_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PLOTS = pages.ROOT / "bench" / "results"
"""Drawn by `scripts/bench`: tests/unit/bench/test_rivals_ratios.py draws them again."""


def _anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_between_the_documents_lead_somewhere(page: str) -> None:
    path = pages.ROOT / page
    text = path.read_text()
    for target in _LINK.findall(text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), target
        assert not anchor or anchor in _anchors(there.read_text()), target


def test_every_page_is_named_in_the_readme() -> None:
    named = set(_LINK.findall((pages.ROOT / "README.md").read_text()))
    assert set(PAGES) - {"README.md", "CHANGELOG.md"} - named == set()


def test_every_picture_is_drawn_by_a_script_and_shown() -> None:
    shown = {
        (pages.ROOT / page).parent.joinpath(target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^]]*\]\(([^)\s]+)\)", (pages.ROOT / page).read_text())
    }
    drawn = {docs.DOCS / name for name in PICTURES} | set(_PLOTS.glob("*.svg"))
    kept = {path for folder in ("docs", "bench", "vagrant") for path in (pages.ROOT / folder).rglob("*.svg")}
    assert shown == drawn == kept


# --- Blocks ---------------------------------------------------------------------------------------------

_OURS = re.compile(
    r"^(?:[$#] )?(?:sudo )?"
    r"(?:nightmail (?!gateway)[a-z-]+\b(?!:)|(?:scripts|packaging|vagrant)/\S|systemctl )"
)


@pytest.mark.parametrize("page", PAGES)
def test_a_block_says_what_it_is(page: str) -> None:
    wrong = {block.line: block.tag for block in pages.blocks(page) if block.tag not in TAGS}
    assert not wrong, "`sh` for commands, `text` for what is not typed (tests/pages.py)"


@pytest.mark.parametrize("page", PAGES)
def test_no_command_hides_in_a_block_that_is_not_run(page: str) -> None:
    others = [block for block in pages.blocks(page) if block.tag != "sh"]
    assert not [(one.line, line) for one in others for line in one.text.splitlines() if _OURS.match(line)]


def test_a_configuration_that_is_shown_is_one(tmp_path: Path) -> None:
    shown = [block for page in PAGES for block in pages.blocks(page) if block.tag == "toml"]
    assert shown
    for block in shown:
        (tmp_path / "nightmail.toml").write_text(block.text)
        config.load(tmp_path / "nightmail.toml")


_KEY = re.compile(r"`([a-z_]+)\.([a-z_]+)(?: = ([^`]+))?`")


def test_a_key_that_is_named_is_one_of_the_configuration() -> None:
    keys = set(config.KEYS)
    sections = {name.partition(".")[0] for name in keys if "." in name}
    named = {
        f"{section}.{key}"
        for page in PAGES
        for section, key, _ in _KEY.findall((pages.ROOT / page).read_text())
        if section in sections and key not in ("py", "db", "toml")
    }
    assert len(named) > 20
    assert named - keys == set()


def test_blocks_are_found_with_their_headings_and_commands() -> None:
    text = (
        "# One\n\n```sh\nls -l   # a word\n\n# nothing\ncat \\\n  a\n```\n\n## Two\n\n```text\n# Three\n```\n"
    )
    first, second = pages.blocks_of(text, "page.md")
    assert (first.heading, first.line, first.tag, first.commands) == ("One", 3, "sh", ["ls -l", "cat a"])
    assert (second.heading, second.line, second.text) == ("Two", 13, "# Three")
    with pytest.raises(ValueError, match=r"page\.md:1: a block does not end"):
        pages.blocks_of("```text\n", "page.md")


def test_every_block_of_commands_is_run_somewhere() -> None:
    for block in pages.command_blocks():
        run_of(block)
    assert set(RUNS) - {key_of(block) for block in pages.command_blocks()} == set(), (
        "tests/stages.py names blocks that are no more"
    )


def test_a_block_that_is_run_nowhere_is_found() -> None:
    with pytest.raises(UnstagedError, match="no test runs it"):
        run_of(Block("docs/start.md", "A new heading", 1, "sh", "nightmail status"))
