"""One octet changed, or the line cut, at each position of everything that is said before the channel stands.

Thousands of sessions on one lab. What must hold for each of them: the mail arrives once and as it was sent,
or waits with its sender; nothing changed is taken for good; what can be read on the wire has rung the bell.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.attackers import ground
from tests.attackers.altering import ChangeLarge, ChangeOctet
from tests.attackers.attack import Attack, End, Kind
from tests.attackers.cutting import Cut, CutInContent, How
from tests.attackers.ground import Ground, Trial
from tests.attackers.parties import Fate, mail
from tests.attackers.verdict import own_mails
from tests.lab.conftest import build_bare, slot

pytestmark = pytest.mark.timeout(600)

HANDSHAKE = [
    (End.R, Kind.GREETING),
    (End.S, Kind.EHLO),
    (End.R, Kind.REPLY),
    (End.S, Kind.VERB),
    (End.S, Kind.ANSWER),
    (End.R, Kind.RECORD),
    (End.S, Kind.RECORD),
]
"""Of the records the first ones."""
PATIENCE = 15.0
EVERY = 6
"""Every so many-th octet: of the records, and in an ordinary run of the handshake, too."""
EDGE = 24
"""Octets at both ends of a message that are none left out of."""
UNCHANGED = {"upgraded-new-peer", "upgraded"}
UNTOUCHED_SHARE = 0.02
"""A message may be some octets shorter than the one that was measured; then there is nothing to change."""
MASKS = (0x01, 0x02, 0x20, 0x80)


@pytest.fixture(scope="module")
def field() -> Iterator[Ground]:
    with slot() as lab:
        build_bare(lab, with_gateways=False, with_listener=False)
        with ground.opened(lab) as made:
            yield made


@pytest.fixture(scope="module")
def target(field: Ground) -> str:
    made = field.target()
    field.meet([made])
    return made


@pytest.fixture(scope="module")
def sizes(field: Ground, target: str) -> dict[tuple[End, Kind], int]:
    """How long each message of the handshake is."""
    (made,) = field.attempt([field.trial(Attack, target)])
    assert made.wire is not None
    first = {(p.origin, p.kind): len(p.octets) for p in made.wire.pieces if p.number == 0}
    assert first.keys() >= set(HANDSHAKE)
    return first


def run(field: Ground, target: str, attacks: list[Callable[[], Attack]]) -> list[Trial]:
    trials = [field.trial(attack, target, patience=PATIENCE) for attack in attacks]
    field.attempt(trials)
    tally = Counter((t.at_s.decided, t.at_s.failures, t.sent.fate.value) for t in trials)
    print(*(f"{n:6} {what}" for what, n in tally.most_common()), sep="\n")
    return trials


def check(trial: Trial) -> None:
    """What holds whatever he does."""
    own = own_mails(trial)
    assert len(own) == (trial.sent.fate is Fate.DELIVERED), f"not once: {trial}"
    assert all(one == trial.mail.content for one in own), f"altered: {trial}"
    readable = trial.mail.body in trial.on_the_wire or trial.mail.envelope in trial.on_the_wire
    assert trial.at_s.alarmed or not readable, f"readable, and nobody was told: {trial}"
    if is_untouched(trial):
        return
    noticed = trial.at_s.failures or trial.at_s.decided not in UNCHANGED or any(t.torn for t in trial.at_r)
    assert noticed or trial.at_s.torn or trial.sent.fate is Fate.QUEUED, f"taken for good: {trial}"


def is_untouched(trial: Trial) -> bool:
    """The message was shorter this time than the one that was measured: nothing of it was changed."""
    attack = trial.wire.attack if trial.wire else None
    return isinstance(attack, ChangeOctet) and not attack.done


def check_changed(trials: list[Trial]) -> None:
    for trial in trials:
        check(trial)
    untouched = sum(is_untouched(trial) for trial in trials)
    assert untouched < len(trials) * UNTOUCHED_SHARE, f"{untouched} of {len(trials)} had nothing changed"


def changes(sizes: dict[tuple[End, Kind], int], mask: int, every: int) -> list[Callable[[], Attack]]:
    """One octet of so many of the handshake, and a sample of the records."""
    return [
        lambda origin=origin, kind=kind, at=at: ChangeOctet(origin, kind, at, mask=mask)
        for origin, kind in HANDSHAKE
        for at in range(sizes[origin, kind])
        if is_sampled(at, sizes[origin, kind], EVERY if kind is Kind.RECORD else every)
    ]


def is_sampled(at: int, size: int, every: int) -> bool:
    return at % every == 0 or min(at, size - at) < EDGE


def test_octets_changed_all_along_the_handshake(
    field: Ground, target: str, sizes: dict[tuple[End, Kind], int]
) -> None:
    check_changed(run(field, target, changes(sizes, MASKS[0], EVERY)))


@pytest.mark.long
@pytest.mark.parametrize("mask", MASKS)
def test_one_octet_changed_anywhere_in_the_handshake(
    mask: int, field: Ground, target: str, sizes: dict[tuple[End, Kind], int]
) -> None:
    check_changed(run(field, target, changes(sizes, mask, 1)))


def cuts(sizes: dict[tuple[End, Kind], int], how: How, every: int) -> list[Callable[[], Attack]]:
    return [
        lambda origin=origin, kind=kind, at=at: Cut(origin, kind, at, how=how)
        for origin, kind in HANDSHAKE
        for at in range(sizes[origin, kind])
        if is_sampled(at, sizes[origin, kind], every)
    ]


def test_the_line_cut_in_the_handshake(
    field: Ground, target: str, sizes: dict[tuple[End, Kind], int]
) -> None:
    for trial in run(field, target, cuts(sizes, How.FIN, EVERY)):
        check(trial)


@pytest.mark.long
@pytest.mark.parametrize("how", [How.FIN, How.RST])
def test_the_line_cut_at_every_octet_of_the_handshake(
    how: How, field: Ground, target: str, sizes: dict[tuple[End, Kind], int]
) -> None:
    for trial in run(field, target, cuts(sizes, how, 1)):
        check(trial)


def test_records_of_content_changed_or_cut_anywhere(field: Ground, target: str) -> None:
    """A sample: header, first and last octets, and some within; nothing of the mail arrives."""
    chance = random.Random(3)
    places = [0, 1, 2, 3, 4, 18, 19, 20, -17, -16, -1, *(chance.randrange(16_000) for _ in range(12))]
    attacks: list[Callable[[], Attack]] = [lambda at=at: ChangeLarge(at) for at in places]
    for how in (How.FIN, How.RST):
        attacks += [lambda at=at, how=how: CutInContent(at % 16_000, how) for at in places]
    trials = [field.trial(attack, target, patience=PATIENCE) for attack in attacks]
    for trial in trials:
        trial.mail = mail(trial.mail.name, (b"y" * 76 + b"\r\n") * 1300)
    for trial in field.attempt(trials):
        check(trial)
        assert (trial.sent.fate, own_mails(trial)) == (Fate.QUEUED, []), str(trial)
        assert not any(received.ended for received in trial.received), f"an end, not a reset: {trial}"
