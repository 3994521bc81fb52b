"""The layout of our eight mark bits: values never meet, and never leave the mask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import LocalMisuseError
from gateway.intercept.marks import ANSWERS, SLOTS, MarkBits, Verdict

MASKS = [0xFF << shift for shift in range(25)]


@pytest.mark.parametrize("mask", MASKS)
def test_all_values_differ_and_stay_under_the_mask(mask: int) -> None:
    bits = MarkBits(mask)
    values = [bits.take(slot) for slot in range(SLOTS)] + [bits.answer(answer) for answer in ANSWERS]
    values += [bits.dialled, bits.accepted, bits.turned]
    assert len(set(values)) == len(values)
    assert all(value and value & ~mask == 0 for value in values)


@pytest.mark.parametrize("mask", MASKS)
def test_the_taken_bit_means_for_us_and_nothing_else_has_it(mask: int) -> None:
    bits = MarkBits(mask)
    assert all(bits.take(slot) & bits.taken for slot in range(SLOTS))
    others = [bits.dialled, bits.accepted, *(bits.answer(answer) for answer in ANSWERS)]
    assert not any(value & bits.taken for value in others)
    # A take mark never looks like a socket's: the rules test these bits alone.
    assert not any(bits.take(slot) & (bits.dialled | bits.accepted) for slot in range(SLOTS))


@pytest.mark.parametrize("mask", [0, 0x7F, 0x1FF, 0xF0F, 0x1FE00000000, -1, 0x80000000])
def test_other_masks_are_refused(mask: int) -> None:
    with pytest.raises(LocalMisuseError):
        MarkBits(mask)


@given(st.sampled_from(MASKS), st.integers(0, 0xFFFFFFFF), st.integers(0, SLOTS - 1))
def test_bits_of_the_site_are_kept(mask: int, site: int, slot: int) -> None:
    bits = MarkBits(mask)
    merged = bits.merged(site, bits.take(slot))
    assert merged & ~mask == site & ~mask
    assert merged & mask == bits.take(slot)


def test_marks_of_verdicts() -> None:
    bits = MarkBits(0xFF000000)
    assert bits.of_verdict(Verdict.TAKE, 3) == 0x43000000
    assert bits.of_verdict(Verdict.REFUSE, 3) == 0x01000000
    assert bits.of_verdict(Verdict.PASS, 3) is None
    assert bits.of_verdict(Verdict.DROP, 3) is None
    with pytest.raises(LocalMisuseError):
        bits.take(SLOTS)
    with pytest.raises(LocalMisuseError):
        bits.answer(Verdict.PASS)
