"""`docs/attackers.md` shows the table that the tests on the wire run, row for row."""

from __future__ import annotations

from gateway.errors import Reason
from tests.attackers.expectations import BY_NAME, DOCUMENT, ROWS, document, table


def test_the_document_shows_the_table() -> None:
    text = DOCUMENT.read_text()
    assert table() in text
    assert document(text) == text


def test_every_row_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(ROWS)


def test_the_rows_use_the_gateways_own_words() -> None:
    words = {reason.value for reason in Reason} | {""}
    for row in ROWS:
        assert {*row.decided.split("|"), *row.failures, *row.channel.split("|")} <= words, row.name
