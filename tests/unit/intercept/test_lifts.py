"""What was before us, noted in an interface's alias (255 octets), and read by whatever process undoes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.intercept.kernel.lifts import _Former
from gateway.intercept.objects import FAMILIES

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}", fullmatch=True)
SEVERAL = st.lists(NAMES, max_size=4, unique=True).map(tuple)
SOME_FAMILIES = st.sampled_from([(), (4,), (6,), FAMILIES])


@given(
    former=st.builds(
        _Former,
        bridge=NAMES,
        made=st.booleans(),
        called=SOME_FAMILIES,
        filtered=SOME_FAMILIES,
        down=SEVERAL,
        with_ipv6=SEVERAL,
    )
)
def test_a_note_says_what_was_noted_and_fits(former: _Former) -> None:
    assert _Former.read(former.note()) == former
    assert len(former.note()) < 256


def test_a_note_of_a_later_version_is_understood_as_far_as_it_goes() -> None:
    read = _Former.read("nightmail: bridge=br0 made=1 tint=blue called=4")
    assert read == _Former("br0", made=True, called=(4,), filtered=())
