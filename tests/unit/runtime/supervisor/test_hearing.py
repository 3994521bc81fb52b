"""Weeks of mail as the workers tell of it: what rings, and how often; with a real memory on disk.

A simulated day is 12 sessions for each server, two hours apart. Every scenario asks the same: does it end
in alarms for ever? Sessions are `compare` and `decide` over the pin, as `session.sending` uses them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.crypto.keys import fingerprint_of
from gateway.errors import Reason
from gateway.observe import sinks
from gateway.observe.counters import AlarmBell
from gateway.peers.comparison import Observed, compare
from gateway.peers.history import Happening
from gateway.peers.pins import Destination, MetPeer, MetStatement, updated
from gateway.peers.store import PinStore
from gateway.policy import limits
from gateway.policy.decision import decide, waits_for_statement
from gateway.runtime.supervisor.causes import Causes
from gateway.runtime.supervisor.hearing import Hearing
from gateway.runtime.supervisor.peer_memory import PeerMemory
from gateway.runtime.supervisor.spared import DEAD_ENDS, RESTING, Spared

BEGAN = 1_800_000_000
DAY = 86400
EVERY = 7200


def identity(number: int) -> bytes:
    return bytes([number]) * 32


def address(number: int) -> Destination:
    """Each in a network of its own."""
    return Destination(f"192.0.{number}.2", 25)


@dataclass
class Weeks:
    """One gateway's memory, and a clock that the test turns."""

    config: Config
    clock: list[float]
    memory: PeerMemory
    hearing: Hearing
    bell: AlarmBell
    rung: list[tuple[int, Reason, str]] = field(default_factory=list)
    reasons: set[Reason] = field(default_factory=set)

    @property
    def now(self) -> int:
        return int(self.clock[0])

    @property
    def day(self) -> int:
        return (self.now - BEGAN) // DAY

    def session(
        self,
        to: Destination,
        offers: bytes | None,
        *,
        shows: tuple[MetStatement, ...] = (),
        full: bool = True,
    ) -> None:
        """One session with a server that offers as `offers`, or not at all."""
        assert self.memory.pins is not None
        pin = self.memory.pins.lookup(to)
        if offers is None:
            decision = decide(compare(pin, Observed.missing()))
        else:
            observed = Observed.offered(offers, 20_000, full=full)
            waits = waits_for_statement(pin, offers, follows=bool(shows))
            decision = decide(compare(pin, observed, shows[0] if waits else None))
        self.reasons.add(decision.reason)
        if decision.alarm:
            where = {"address": to.address, "port": to.port}
            self._told(
                {"alarm": {"reason": decision.reason.value, "subject": str(to), "detail": "", **where}}
            )
        if offers is None:
            return
        for statement in shows or (None,):
            met = MetPeer(offers, 20_000, full)
            is_unknown = pin is None or pin.find(offers) is None
            if is_unknown or updated(pin, to, met, self.now, statement) is not pin:
                self._tell_of(to, met, statement, new=pin is None, rang=decision.alarm)

    def first_sessions_at_once(self, to: Destination, *offers: bytes) -> None:
        """All judged before any of them is remembered: each finds no pin."""
        decision = decide(compare(None, Observed.offered(offers[0], 20_000, full=True)))
        assert not decision.alarm
        for identity in offers:
            self._tell_of(to, MetPeer(identity, 20_000, full=True), None, new=True)

    def _tell_of(
        self, to: Destination, met: MetPeer, statement: MetStatement | None, *, new: bool, rang: bool = False
    ) -> None:
        told = {"address": to.address, "port": to.port, "new": new, "rang": rang}
        who = {"identity": met.identity.hex(), "epoch": met.epoch, "full": met.full}
        shown = {}
        if statement is not None:
            names = {"old": statement.old.hex(), "new": statement.new.hex(), "serial": statement.serial}
            shown = {"statement": names}
        self._told({"remember": {**told, **who, **shown}})

    def _told(self, message: dict[str, object]) -> None:
        before = {(alarm.reason, alarm.subject): alarm.at for alarm in self.bell.known(self.now)}
        self.hearing.hear(message)
        for alarm in self.bell.known(self.now):
            if before.get((alarm.reason, alarm.subject)) != alarm.at:
                self.rung.append((self.day, alarm.reason, alarm.subject))

    def times(self, days: int) -> Iterator[int]:
        """The number of each session's turn; the clock goes on between them."""
        for number in range(days * DAY // EVERY):
            yield number
            self.clock[0] += EVERY


@pytest.fixture
def weeks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Weeks]:
    clock = [float(BEGAN)]
    state = tmp_path / "state"
    state.mkdir(0o700)
    config = Config(state_dir=state, run_dir=tmp_path / "run", log_file=tmp_path / "log")
    monkeypatch.setattr(time, "time", lambda: clock[0])
    log = sinks.opened(config, config.log_file)
    again_seconds = config.alarm_again_hours * limits.HOUR_SECONDS
    bell = AlarmBell(again_seconds)

    def rings(reason: Reason, subject: str, detail: str, cause: Reason | None = None) -> None:
        bell.ring(reason, subject, int(clock[0]), detail, cause.value if cause is not None else "")

    async def no_rules(work: Callable[[], None]) -> None:
        """None stand here."""

    async def nobody_knows(server: str, client: str) -> bool | None:
        return None

    memory = PeerMemory(config.pins_file, None, log, rings, again_seconds)
    dead_ends = Spared(DEAD_ENDS, 0, no_rules, lambda sessions: None, log, {})
    resting = Spared(RESTING, 0, no_rules, lambda sessions: None, log, {})
    hearing = Hearing(memory, dead_ends, resting, Causes(nobody_knows, log, memory.note_cause), rings)
    memory.open()
    assert memory.pins is not None
    # Ten thousand writes a test: the disk need not have them all.
    memory.pins.database.read(lambda connection: connection.execute("PRAGMA synchronous = OFF").close())
    yield Weeks(config, clock, memory, hearing, bell)
    memory.pins.close()
    log.close()


def history_of(weeks: Weeks, to: Destination) -> list[Happening]:
    with PinStore.read_only(weeks.config.pins_file) as store:
        return [event.happening for event in store.history(to)]


# --- Sites of all kinds -----------------------------------------------------------------------------------


def test_a_quiet_peer_never_rings_and_is_hardly_written(weeks: Weeks) -> None:
    for _ in weeks.times(28):
        weeks.session(address(1), identity(1))
    assert weeks.rung == []
    assert history_of(weeks, address(1)) == [Happening.FIRST_SEEN]


def test_a_site_with_several_addresses_and_one_identity(weeks: Weeks) -> None:
    for number in weeks.times(28):
        weeks.session(address(number % 5), identity(1))
    assert weeks.rung == []


@pytest.mark.parametrize("gateways", [2, 3, 4])
def test_gateways_without_a_common_identity_behind_one_address_ring_once_each(
    weeks: Weeks, gateways: int
) -> None:
    """A peer behind NAT or a load balancer whose boxes were each set up alone."""
    for number in weeks.times(28):
        weeks.session(address(1), identity(number % gateways))
    assert len(weeks.rung) == gateways - 1
    assert all(day == 0 for day, _, _ in weeks.rung)
    assert all(reason is Reason.UPGRADED_CHANGED_PEER for _, reason, _ in weeks.rung)


def test_two_identities_on_one_address_one_of_which_goes_away(weeks: Weeks) -> None:
    for number in weeks.times(14):
        weeks.session(address(1), identity(number % 2))
    for _ in weeks.times(14):
        weeks.session(address(1), identity(1))
    assert [day for day, _, _ in weeks.rung] == [0]
    assert history_of(weeks, address(1))[-1] is Happening.ACCEPTED
    with PinStore.read_only(weeks.config.pins_file) as store:
        pin = store.lookup(address(1))
    assert pin is not None
    assert all(known.accepted for known in pin.identities)


def test_a_reinstalled_gateway_rings_once_and_is_accepted_in_time(weeks: Weeks) -> None:
    for _ in weeks.times(7):
        weeks.session(address(1), identity(1))
    for _ in weeks.times(21):
        weeks.session(address(1), identity(2))
    assert weeks.rung == [(7, Reason.UPGRADED_CHANGED_PEER, str(address(1)))]
    assert history_of(weeks, address(1)) == [Happening.FIRST_SEEN, Happening.CHANGED, Happening.ACCEPTED]


def test_two_identities_in_first_sessions_at_once_ring_for_the_one_that_is_not_accepted(weeks: Weeks) -> None:
    """One in the middle shows his own in one of two first sessions: neither had a pin to ring for, and what
    is seen, and not accepted, never rings again."""
    weeks.first_sessions_at_once(address(1), identity(1), identity(2), identity(2))
    for _ in weeks.times(3):
        weeks.session(address(1), identity(2))
    assert weeks.rung == [(0, Reason.UPGRADED_CHANGED_PEER, str(address(1)))]


def test_another_stranger_on_the_same_day_rings_too(weeks: Weeks) -> None:
    """The bell takes an address for one cause a day, and each stranger rings but once in his life."""
    weeks.session(address(1), identity(1))
    weeks.session(address(1), identity(2))
    for _ in weeks.times(3):
        weeks.session(address(1), identity(3))
    at = str(address(1))
    changed = Reason.UPGRADED_CHANGED_PEER
    assert weeks.rung == [(0, changed, at), (0, changed, f"{at} (2)")]


def test_strangers_of_two_days_ring_as_often_as_they_come(weeks: Weeks) -> None:
    """None of them has the subject of one that rang within the day, however they are spread."""
    at = address(1)
    weeks.session(at, identity(1))
    rung: list[list[str]] = []
    for number, hours in enumerate((1, 3, 22, 28, 47), start=2):
        weeks.clock[0] = BEGAN + hours * 3600.0
        weeks.rung.clear()
        weeks.session(at, identity(number))
        rung.append([subject for _, _, subject in weeks.rung])
    assert rung == [[str(at)], [f"{at} (2)"], [f"{at} (3)"], [str(at)], [f"{at} (2)"]]


def test_strangers_for_whom_there_is_no_place_ring_as_often_as_they_come(weeks: Weeks) -> None:
    """With all places taken by accepted ones none is kept, and each is a stranger once a day all the same."""
    at = address(1)
    for number in range(1, 5):
        weeks.session(at, identity(number))
    assert weeks.memory.pins is not None
    for number in range(2, 5):
        weeks.memory.pins.accept(at, identity(number))
    weeks.clock[0] += 2 * DAY
    weeks.rung.clear()
    for turn in weeks.times(2):
        weeks.session(at, identity(5 + turn % 2))
    assert weeks.rung == [
        (2, Reason.UPGRADED_CHANGED_PEER, str(at)),
        (2, Reason.UPGRADED_CHANGED_PEER, f"{at} (2)"),
        (3, Reason.UPGRADED_CHANGED_PEER, str(at)),
        (3, Reason.UPGRADED_CHANGED_PEER, f"{at} (2)"),
    ]
    for number in range(10, 99):
        weeks.session(at, identity(number))
    assert len(weeks.rung) <= 4 + limits.IDENTITIES_PER_PIN


def test_each_stranger_is_named(weeks: Weeks) -> None:
    """Who is to accept one of them compares its name with what the other site says."""
    for number in (1, 2, 3):
        weeks.session(address(1), identity(number))
    details = {alarm.subject: alarm.detail for alarm in weeks.bell.known(weeks.now)}
    assert details[f"{address(1)} (2)"] == f"peer={fingerprint_of(identity(3))}"


def test_very_many_strangers_at_one_address_do_not_keep_the_bell_busy(weeks: Weeks) -> None:
    """Somebody in the middle has as many identities as he likes; a person hears of few of them a day."""
    for number in range(1, 200):
        weeks.session(address(1), identity(number))
    assert len(weeks.rung) == limits.IDENTITIES_PER_PIN


def test_first_sessions_at_once_with_one_identity_are_no_news(weeks: Weeks) -> None:
    weeks.first_sessions_at_once(address(1), identity(1), identity(1))
    assert weeks.rung == []


def test_an_identity_forgotten_while_its_session_was_under_way_rings_anew(weeks: Weeks) -> None:
    weeks.session(address(1), identity(1))
    weeks.session(address(1), identity(2))
    weeks.clock[0] += 2 * DAY
    assert weeks.memory.pins is not None
    assert weeks.memory.pins.forget_identity(address(1), identity(2)) is not None
    weeks._tell_of(address(1), MetPeer(identity(2), 20_000, full=True), None, new=False)
    assert [day for day, _, _ in weeks.rung] == [0, 2]


def test_a_peer_switched_off_for_a_week_rings_once_a_day_until_it_is_back(weeks: Weeks) -> None:
    for _ in weeks.times(7):
        weeks.session(address(1), identity(1))
    for _ in weeks.times(7):
        weeks.session(address(1), None)
    for _ in weeks.times(14):
        weeks.session(address(1), identity(1))
    assert [day for day, _, _ in weeks.rung] == list(range(7, 14))
    assert {reason for _, reason, _ in weeks.rung} == {Reason.OFFER_MISSING}
    assert history_of(weeks, address(1)) == [Happening.FIRST_SEEN, Happening.MISSING, Happening.BACK]


# --- Rollover ---------------------------------------------------------------------------------------------


def test_a_rotation_behind_several_addresses_rings_nowhere(weeks: Weeks) -> None:
    """Announced for two weeks; one address is heard of in this time, one later, one a year later."""
    old, new = identity(1), identity(2)
    said = MetStatement(old, new, BEGAN)
    for number in weeks.times(7):
        weeks.session(address(number % 3), old)
    for _ in weeks.times(14):
        weeks.session(address(0), old, shows=(said,))
    for _ in weeks.times(14):
        weeks.session(address(0), new, shows=(said,))
        weeks.session(address(1), new, shows=(said,))
    weeks.clock[0] += 365 * DAY
    weeks.session(address(2), new, shows=(said,))
    assert weeks.rung == []
    assert Reason.UPGRADED_BY_STATEMENT in weeks.reasons
    assert Reason.UPGRADED_CHANGED_PEER not in weeks.reasons
    assert history_of(weeks, address(0))[1:] == [Happening.ANNOUNCED, Happening.ROLLED_OVER]
    assert history_of(weeks, address(2))[1:] == [Happening.ROLLED_OVER]


def test_gateways_of_a_site_that_change_over_one_after_the_other(weeks: Weeks) -> None:
    old, new = identity(1), identity(2)
    said = MetStatement(old, new, BEGAN)
    for number in weeks.times(20):
        weeks.session(address(1), new if number % 2 else old, shows=(said,))
    for _ in weeks.times(40):
        weeks.session(address(1), new, shows=(said,))
    assert weeks.rung == []
    assert history_of(weeks, address(1))[-1] is Happening.FORGOTTEN
    weeks.session(address(1), old)
    assert [reason for _, reason, _ in weeks.rung] == [Reason.UPGRADED_CHANGED_PEER]


def test_without_its_statement_a_rotation_rings_once(weeks: Weeks) -> None:
    weeks.session(address(1), identity(1))
    for _ in weeks.times(28):
        weeks.session(address(1), identity(2))
    assert len(weeks.rung) == 1


# --- Very many --------------------------------------------------------------------------------------------


def test_peers_are_not_all_counted_for_each_one_that_comes(
    weeks: Weeks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among a million that takes 0.4 s, in which nobody looks after the workers."""
    pins, clock, counted = weeks.memory.pins, [time.monotonic() + 1000], []
    assert pins is not None
    whole = pins.count

    def count() -> int:
        clock[0] += 0.4
        counted.append(whole())
        return counted[-1]

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(pins, "count", count)
    for number in range(20):
        weeks.session(address(number), identity(number))
    assert weeks.memory.count == 20
    assert counted == [1]
    pins.forget(address(0))
    clock[0] += 0.5 * limits.PEERS_COUNT_REST
    weeks.session(address(30), identity(30))
    assert weeks.memory.count == 20
    assert len(counted) == 2


# --- Our own path -----------------------------------------------------------------------------------------


def test_all_pins_missing_at_once_is_told_as_our_own_path_once_a_day(weeks: Weeks) -> None:
    sites = 30
    for _ in weeks.times(3):
        for number in range(sites):
            weeks.session(address(number), identity(number))
    for _ in weeks.times(7):
        for number in range(sites):
            weeks.session(address(number), None)
    for _ in weeks.times(7):
        for number in range(sites):
            weeks.session(address(number), identity(number))
    by_reason = {reason: [day for day, one, _ in weeks.rung if one is reason] for _, reason, _ in weeks.rung}
    assert by_reason[Reason.OWN_PATH] == list(range(3, 10))
    # Until the picture is there, they ring alone.
    singly = by_reason[Reason.OFFER_MISSING]
    assert len(singly) == limits.MANY_MISSING - 1
    assert set(singly) == {3}


def test_many_sites_of_one_network_switched_off_are_not_our_path(weeks: Weeks) -> None:
    """Whoever strips the offer of one site, and has many identities at a host of his own."""
    theirs, peer = [Destination(f"2001:db8:5:{number:x}::25", 25) for number in range(30)], address(40)
    for _ in weeks.times(1):
        for number, each in enumerate(theirs):
            weeks.session(each, identity(number))
        weeks.session(peer, identity(40))
    for each in (*theirs, peer):
        weeks.session(each, None)
    assert {reason for _, reason, _ in weeks.rung} == {Reason.OFFER_MISSING}
    assert str(peer) in {subject for _, _, subject in weeks.rung}


def test_one_large_site_switched_off_is_not_our_path(weeks: Weeks) -> None:
    for turn in weeks.times(4):
        for number in range(10):
            weeks.session(address(number), identity(1) if turn < 24 else None)
        for number in range(20, 24):
            weeks.session(address(number), identity(number))
    assert {reason for _, reason, _ in weeks.rung} == {Reason.OFFER_MISSING}
    subjects = {subject for _, _, subject in weeks.rung}
    assert len(weeks.rung) <= 2 * len(subjects)


def test_trouble_of_a_stranger_is_kept_nowhere(weeks: Weeks) -> None:
    weeks._told(
        {
            "alarm": {
                "reason": "handshake-failed",
                "subject": "x",
                "detail": "",
                "address": "192.0.2.9",
                "port": 25,
            }
        }
    )
    assert history_of(weeks, address(9)) == []
    assert [reason for _, reason, _ in weeks.rung] == [Reason.HANDSHAKE_FAILED]


def test_history_is_bounded_over_a_year_of_coming_and_going(weeks: Weeks) -> None:
    for number in range(365):
        weeks.clock[0] += DAY
        weeks.session(address(1), identity(1) if number % 3 else None)
    assert len(history_of(weeks, address(1))) <= limits.HISTORY_PER_PIN
