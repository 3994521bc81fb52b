"""Both implementations as S, told the same: whatever happens before the verb, the same comes of it.

A line that begins as a 421 comes whole here: what S makes of a part of one is left to it (3.4 of the text).
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.session.events import EndReceived, Event, OctetsReceived, ResetReceived, Side
from tests.playbook import EHLO, GREETING, REPLY, can_follow
from tests.second.crafted import MAIL, FarR, pinned, s_of
from tests.second.dressed import Alone
from tests.second.lines import VERB

OFFERED = FarR().reply
SENDER = [
    EHLO,
    EHLO[:2],
    EHLO[2:],
    EHLO + MAIL,
    b"HELO a\r\n",
    MAIL,
    b"EHLO \0\r\n",
    b"BDAT 1 LAST\r\nx",
    b"QUIT\r\n",
]
RECEIVER = [
    *(GREETING, GREETING[:10], GREETING[10:], b"220-a b\r\n", b"220 ***\r\n", b"220 x\0\r\n", b"554 no\r\n"),
    *(b"421 bye\r\n", b"421-bye\r\n421 bye\r\n", GREETING + REPLY, GREETING + OFFERED),
    *(OFFERED, OFFERED[:100], OFFERED[100:], OFFERED + b"250 x\r\n", REPLY, REPLY[:20], REPLY[20:]),
    *(b"250 x\r\n", b"250 x\n", b"250\r\n", b"502 no\r\n", b"\r\n"),
]
HONEST: list[Event] = [
    OctetsReceived(Side.FAR, GREETING),
    OctetsReceived(Side.NEAR, EHLO),
    OctetsReceived(Side.FAR, OFFERED),
]
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(OctetsReceived, st.just(Side.NEAR), st.sampled_from(SENDER)),
    st.builds(OctetsReceived, st.just(Side.FAR), st.sampled_from(RECEIVER)),
    st.builds(EndReceived, st.sampled_from(Side)),
    st.builds(ResetReceived, st.sampled_from(Side)),
)


def tell(s: Alone, event: Event) -> None:
    """A gateway that relays passes ends as it passes octets."""
    if s.relays and isinstance(event, EndReceived):
        s.ended.add(event.side.other)
    elif s.relays and isinstance(event, ResetReceived):
        s.was_reset.add(event.side.other)
    else:
        s.happens(event)


def came_of(s: Alone) -> tuple[object, ...]:
    clear, verb, _ = s.far.partition(VERB)
    return s.near, clear, bool(verb), s.ended, s.was_reset, s.rings, s.dials


def is_out(s: Alone) -> bool:
    """The verb is, or a handshake has failed: from here on each has keys of its own. Or all is over."""
    return VERB in s.far or s.dials > 1 or bool(s.was_reset) or s.ended == set(Side)


@pytest.mark.parametrize("is_pinned", [True, False], ids=["pinned", "unknown"])
@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(HONEST)), st.lists(EVENTS, min_size=1, max_size=7))
def test_before_the_verb(is_pinned: bool, honest: int, events: list[Event]) -> None:
    product, second = (s_of(who, **(pinned(who) if is_pinned else {})) for who in ("product", "second"))
    told: list[Event] = []
    for event in [*HONEST[:honest], *events]:
        if is_out(product) or not all(can_follow(before, event) for before in told):
            continue
        told.append(event)
        tell(product, event)
        tell(second, event)
        assert came_of(product) == came_of(second), told
