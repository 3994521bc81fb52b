"""The table of `nightmail audit`: as many people as the sentence below it counts, masked or not."""

from __future__ import annotations

from gateway.operator import audit

PEOPLE = ["bea@b.test", "ben@b.test", "carl@b.test"]


def test_people_who_look_the_same_behind_their_masks_are_counted() -> None:
    assert audit._addresses(PEOPLE, False) == "b***@b.test (2), c***@b.test"
    assert audit._addresses(PEOPLE, True) == "bea@b.test, ben@b.test, carl@b.test"
    assert audit._addresses([], False) == "none"


def test_a_long_list_is_cut() -> None:
    many = [f"{letter}@b.test" for letter in "abcde"]
    assert audit._addresses(many, True).endswith("c@b.test and 2 more")
    assert audit._addresses(many, False).endswith("c***@b.test and 2 more")
