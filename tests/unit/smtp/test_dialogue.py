"""A walk over the whole table: each role, each stage, each thing seen; legal or refused, nothing else."""

from __future__ import annotations

import itertools

import pytest

from gateway.errors import LocalMisuseError
from gateway.smtp.dialogue import TRANSITIONS, Seen, Stage, next_stage
from gateway.smtp.events import Role

LEGAL = {
    (Stage.GREETING, Seen.GREETING_COMPLETE): (Stage.EHLO, Stage.EHLO),
    (Stage.GREETING, Seen.EHLO_COMPLETE): (Stage.EARLY_EHLO, Stage.EARLY_EHLO),
    (Stage.GREETING, Seen.NOT_UNDERSTOOD): (Stage.OPAQUE, Stage.OPAQUE),
    (Stage.GREETING, Seen.GIVEN_UP): (Stage.OPAQUE, Stage.OPAQUE),
    (Stage.EARLY_EHLO, Seen.GREETING_COMPLETE): (Stage.REPLY, Stage.REPLY),
    (Stage.EARLY_EHLO, Seen.BEHIND_EHLO): (Stage.EARLY_EHLO, Stage.OPAQUE),
    (Stage.EARLY_EHLO, Seen.NOT_UNDERSTOOD): (Stage.OPAQUE, Stage.OPAQUE),
    (Stage.EARLY_EHLO, Seen.GIVEN_UP): (Stage.OPAQUE, Stage.OPAQUE),
    (Stage.EHLO, Seen.EHLO_COMPLETE): (Stage.REPLY, Stage.REPLY),
    (Stage.EHLO, Seen.NOT_UNDERSTOOD): (Stage.OPAQUE, Stage.OPAQUE),
    (Stage.EHLO, Seen.GIVEN_UP): (Stage.OPAQUE, Stage.OPAQUE),
    (Stage.REPLY, Seen.BEHIND_EHLO): (Stage.REPLY, Stage.OPAQUE),
    (Stage.REPLY, Seen.REPLY_COMPLETE): (Stage.DECIDED, Stage.DECIDED),
    (Stage.REPLY, Seen.NOT_UNDERSTOOD): (Stage.OPAQUE, Stage.OPAQUE),
    (Stage.REPLY, Seen.GIVEN_UP): (Stage.OPAQUE, Stage.OPAQUE),
    (Stage.DECIDED, Seen.GIVEN_UP): (Stage.OPAQUE, Stage.OPAQUE),
    (Stage.OPAQUE, Seen.GIVEN_UP): (Stage.OPAQUE, Stage.OPAQUE),
}
"""(stage, seen) -> the next stage at the sending and at the receiving gateway."""


@pytest.mark.parametrize(("stage", "seen"), list(itertools.product(Stage, Seen)))
def test_every_stage_and_everything_seen(stage: Stage, seen: Seen) -> None:
    expected = LEGAL.get((stage, seen))
    if expected is None:
        for role in Role:
            with pytest.raises(LocalMisuseError):
                next_stage(role, stage, seen)
    else:
        assert (next_stage(Role.SENDING, stage, seen), next_stage(Role.RECEIVING, stage, seen)) == expected


@pytest.mark.parametrize("role", Role)
def test_every_stage_is_reached_and_opaque_is_for_good(role: Role) -> None:
    reached, todo = {Stage.GREETING}, [Stage.GREETING]
    while todo:
        for stage in TRANSITIONS[role][todo.pop()].values():
            if stage not in reached:
                reached.add(stage)
                todo.append(stage)
    assert reached == set(Stage)
    assert set(TRANSITIONS[role][Stage.OPAQUE].values()) == {Stage.OPAQUE}
    assert set(TRANSITIONS[role][Stage.DECIDED].values()) == {Stage.OPAQUE}
