"""What a worker makes of what its sessions tell of clients that ignore offers: who rests, what ends it."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.config import Config, Placement
from gateway.crypto.keys import IdentityPublic
from gateway.crypto.tickets import Ticket
from gateway.errors import Reason
from gateway.intercept.outcomes import DialOutcome
from gateway.intercept.syn import Flow
from gateway.peers.sources import Sender, Source, SourceSeen, after_upgrade
from gateway.policy import limits
from gateway.runtime.worker.connection import Connection
from gateway.session.commands import NoteSource
from gateway.smtp.events import Role
from tests.unit.runtime.sockets import tcp_pair
from tests.unit.runtime.worker.without_sockets import CLIENT, MANY, Stub, Worker, flow

ELSEWHERE = "198.51.100.1"
IDENTITY = b"A" * 32


def upgrade(identity: bytes = IDENTITY, epoch: int = 20_000) -> NoteSource:
    return NoteSource(SourceSeen.UPGRADED, b"mail", identity, epoch)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(tmp_path)
    yield worker
    worker.close()


def test_it_rests_behind_many_ignored_offers(worker: Worker) -> None:
    worker.ignored_many()
    assert [worker.rests() for _ in range(limits.OFFERS_REST_ONE_IN)] == [True] * (
        limits.OFFERS_REST_ONE_IN - 1
    ) + [False]
    assert not worker.rests(ELSEWHERE)


def test_with_the_switch_off_nobody_rests(tmp_path: Path) -> None:
    worker = Worker(tmp_path, Config(offers_rest=False))
    worker.ignored_many()
    assert not worker.rests()
    worker.close()


@pytest.mark.parametrize("reason", [Reason.OFFERS_IGNORED, Reason.HELO, Reason.ENDED_BEFORE_DECISION])
def test_a_session_without_an_offer_counts_neither_way(worker: Worker, reason: Reason) -> None:
    for _ in range(MANY - 1):
        worker.decided(Reason.NO_VERB)
        worker.decided(reason)
    assert not worker.rests()
    worker.decided(Reason.NO_VERB)
    assert worker.rests()


@pytest.mark.parametrize(
    "ends",
    [
        lambda worker: worker.decided(Reason.UPGRADED),
        lambda worker: worker.decided(Reason.UPGRADED_OLD_EPOCH),
        lambda worker: worker.decided(Reason.HANDSHAKE_FAILED),
        lambda worker: worker.saw(NoteSource(SourceSeen.DROPPED)),
    ],
    ids=["upgraded", "old epoch", "handshake failed", "broken off"],
)
def test_what_ends_a_clients_rest(worker: Worker, ends: Any) -> None:
    worker.ignored_many()
    worker.ignored_many(ELSEWHERE)
    ends(worker)
    assert not worker.rests()
    assert worker.rests(ELSEWHERE)


def test_a_first_upgrade_ends_the_rest_of_all_here_and_is_said_so(worker: Worker) -> None:
    worker.ignored_many()
    worker.saw(upgrade(), ELSEWHERE)
    assert not worker.rests()
    assert [message["source"]["new"] for message in worker.said] == [True]


def test_the_kernel_hears_of_a_first_upgrade_before_anybody_else(worker: Worker) -> None:
    """The peer remembers us with our next record, and the supervisor needs a while to empty the sets."""
    worker.saw(upgrade(), ELSEWHERE)
    assert worker.met == 1
    worker.saw(upgrade(), ELSEWHERE)
    worker.saw(NoteSource(SourceSeen.DROPPED))
    assert worker.met == 1


def test_the_supervisor_hears_who_rests_and_where_each_time(worker: Worker) -> None:
    """By a session without an offer: the kernel has not let it by."""
    worker.ignored_many()
    assert worker.said == []
    worker.decided(Reason.OFFERS_IGNORED)
    worker.decided(Reason.OFFERS_IGNORED)
    assert worker.said == 2 * [{"rests": {"client": CLIENT, "address": "203.0.113.7", "port": 25}}]


def test_the_supervisor_hears_of_a_handshake_that_failed(worker: Worker) -> None:
    """Somebody is there, and another worker's word may have put him to rest."""
    worker.decided(Reason.HANDSHAKE_FAILED)
    assert worker.said == [{"wakes": {"client": CLIENT}}]


@pytest.mark.parametrize("note", [upgrade(b"B" * 32), upgrade()], ids=["identity", "address"])
def test_what_is_new_is_an_identity_or_an_address(worker: Worker, note: NoteSource) -> None:
    worker.saw(upgrade(), ELSEWHERE)
    worker.ignored_many()
    worker.saw(note, ELSEWHERE if note.identity != IDENTITY else "203.0.113.99")
    assert not worker.rests()
    assert worker.said[-1]["source"]["new"] is True


def test_one_that_is_known_ends_nobodys_rest(worker: Worker) -> None:
    """Else a busy site's peers would have everybody offered to all day."""
    worker.sources.expect(after_upgrade(Source(ELSEWHERE), b"mail", 20_000), Sender(IDENTITY, 20_000, 20_000))
    worker.ignored_many()
    worker.saw(upgrade(epoch=20_001), ELSEWHERE)
    assert worker.rests()
    assert worker.said[-1]["source"]["new"] is False


def test_a_first_upgrade_at_another_worker_ends_it_as_well(worker: Worker) -> None:
    worker.ignored_many()
    worker.sessions.learning.learn_source(ELSEWHERE, SourceSeen.DROPPED)
    assert worker.rests()
    worker.sessions.learning.learn_source(ELSEWHERE, SourceSeen.UPGRADED)
    assert not worker.rests()


def test_neighbours_of_a_first_upgrade_at_another_worker_do_not_rest(worker: Worker) -> None:
    worker.sessions.learning.learn_source("192.0.2.200", SourceSeen.UPGRADED)
    worker.ignored_many()
    worker.ignored_many(ELSEWHERE)
    assert not worker.rests()
    assert worker.rests(ELSEWHERE)


# --- Peers that take nothing any more -----------------------------------------------------------------------


def test_all_sessions_are_looked_at_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STALL_LOOK_SECONDS", 0.001)
    worker = Worker(tmp_path)
    looks: list[str] = []

    def looked(name: str) -> None:
        looks.append(name)
        if len(looks) == 4:
            worker._loop.stop()

    for name in ("one", "another"):
        connection = cast("Connection", Stub(look=lambda _now, name=name: looked(name)))
        worker.sessions._roles[connection] = Role.SENDING
    worker._loop.run_forever()
    assert looks == ["one", "another"] * 2
    worker.close()


def test_with_them_tickets_that_are_too_old_are_looked_for(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [worker._loop.time()]
    monkeypatch.setattr(worker._loop, "time", lambda: now[0])
    surroundings = worker._surroundings
    ticket = Ticket(b"name", b"secret", IdentityPublic(IDENTITY), 1, None)
    of_pair = surroundings.receiving(flow(CLIENT), now[0]).tickets
    assert of_pair is not None
    of_pair.keep(ticket, now[0])
    surroundings._held.keep(ticket, now[0])
    worker.sessions._look()
    assert (len(surroundings._offered), len(surroundings._held)) == (1, 1)
    now[0] += limits.TICKET_SECONDS + limits.TICKET_GRACE_SECONDS
    worker.sessions._look()
    assert (len(surroundings._offered), len(surroundings._held)) == (0, 0)


# --- What the log says of a session -------------------------------------------------------------------------


@pytest.mark.parametrize("placement", list(Placement))
def test_the_port_that_the_other_end_sees_is_told_where_it_is_another_one(
    tmp_path: Path, placement: Placement
) -> None:
    worker = Worker(tmp_path, Config(placement=placement))
    worker.sessions.dialler = Ended()
    accepted, client = tcp_pair()
    dialled, server = tcp_pair()
    said = f" dialled_from={server.getpeername()[1]}\n"
    worker.sessions.pair_ready(flow(CLIENT), Role.SENDING, accepted, dialled)
    worker.sessions.stop()
    worker.sessions._log.flush()
    for each in (client, server):
        each.close()
    worker.close()
    (line,) = re.findall(r" session begun .*\n", worker.log.read_text())
    assert line.endswith(said) is (placement is Placement.HOST)
    assert ("dialled_from" in line) is (placement is Placement.HOST)


# --- A bug of ours ------------------------------------------------------------------------------------------


class Ended:
    """In the intake's place."""

    def __init__(self) -> None:
        self.flows: list[tuple[Flow, bool]] = []

    def dial(self, *_: object, **__: object) -> None: ...

    def ended(self, flow: Flow, *, by_reset: bool) -> None:
        self.flows.append((flow, by_reset))


@pytest.mark.parametrize("where", ["log", "start"])
def test_a_session_that_cannot_begin_or_end_as_it_should_is_over_all_the_same(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    sessions, ended = worker.sessions, Ended()
    sessions.dialler = ended
    whole = sessions._log.fact

    def fact(subsystem: str, event: str, **fields: Any) -> None:
        if event == "ended":
            raise RuntimeError("a bug")
        whole(subsystem, event, **fields)

    def start(connection: Connection) -> None:
        raise RuntimeError("a bug")

    if where == "log":
        monkeypatch.setattr(sessions._log, "fact", fact)
    else:
        monkeypatch.setattr(Connection, "start", start)
    accepted, client = tcp_pair()
    dialled, server = tcp_pair()
    sessions.pair_ready(flow(CLIENT), Role.RECEIVING, accepted, dialled)
    if where == "log":
        (connection,) = sessions._roles
        with pytest.raises(RuntimeError):
            connection.stop()
    assert not sessions.open
    assert sessions._bank._accounts == {}
    assert [each for each, _ in ended.flows] == [flow(CLIENT)]
    for peer in (client, server):
        peer.settimeout(5)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        peer.close()
    if where == "start":
        assert ended.flows == [(flow(CLIENT), True)]
        assert [said["alarm"]["reason"] for said in worker.said if "alarm" in said] == ["internal"]
        worker.sessions._log.flush()
        log = worker.log.read_text()
        assert " session failed " in log
        assert "session ended" in log
        assert "reason=internal" in log


def test_a_bug_on_the_way_to_a_session_is_told_with_the_addresses(worker: Worker) -> None:
    worker.sessions.flow_failed(flow(CLIENT), RuntimeError("a bug"))
    worker.sessions._log.flush()
    assert f"gate failed source={CLIENT}:40002 to=203.0.113.7:25" in worker.log.read_text()
    assert [said["alarm"]["reason"] for said in worker.said] == ["internal"]


SERVER = "203.0.113.7:25"


def rung(worker: Worker) -> list[tuple[str, str, str]]:
    alarms = [said["alarm"] for said in worker.said]
    return [(alarm["reason"], alarm["subject"], alarm["detail"]) for alarm in alarms]


def test_every_dial_that_fails_has_a_reason_of_its_own(worker: Worker) -> None:
    """None is called a fault of ours."""
    failed = [outcome for outcome in DialOutcome if outcome is not DialOutcome.CONNECTED]
    for outcome in failed:
        worker.sessions.dial_failed(flow(CLIENT), Role.SENDING, outcome)
    worker.sessions._log.flush()
    lines = worker.log.read_text().splitlines()
    assert len(lines) == len(failed)
    assert not [line for line in lines if "reason=internal" in line]
    assert worker.said == []


def test_forged_syns_write_few_lines_and_are_counted(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost their sender nothing, and a journal that gets too many lines drops others as well."""
    now = [worker._loop.time()]
    monkeypatch.setattr(worker.sessions._loop, "time", lambda: now[0])
    sessions, a_second = worker.sessions, int(limits.LINES_OF_SYNS_PER_SECOND)

    def lines() -> int:
        sessions._log.flush()
        return len(worker.log.read_text().splitlines())

    for _ in range(500):
        sessions.syn_refused(flow(CLIENT), Reason.SPOOFED_INSIDE_SOURCE)
        sessions.dial_failed(flow(CLIENT), Role.RECEIVING, DialOutcome.REFUSED)
    flood = lines()
    assert flood <= 2 * a_second
    sessions.dial_failed(flow(CLIENT), Role.SENDING, DialOutcome.REFUSED)
    assert lines() == flood + 1
    now[0] += 1
    for _ in range(500):
        sessions.syn_refused(flow(CLIENT), Reason.SPOOFED_INSIDE_SOURCE)
    assert lines() == flood + 1 + a_second
    ended = sessions._counters.snapshot()["ended"]["in"]
    assert ended == {"spoofed-inside-source": 1000, "dial-refused": 500}


def test_what_keeps_us_from_dialling_rings_by_its_name_once_in_a_while(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(worker.sessions._loop, "time", lambda: now[0])
    for number in (errno.EPERM, errno.EPERM, errno.ENODEV):
        worker.sessions.kept_from_dialling(flow(CLIENT), number)
    latest = f"the latest from {CLIENT} to {SERVER}"
    assert rung(worker) == [
        ("dial-impossible", "EPERM", f"Operation not permitted, {latest}"),
        ("dial-impossible", "ENODEV", f"No such device, {latest}"),
    ]
    now[0] += limits.OVERLOAD_TOLD_SECONDS
    worker.sessions.kept_from_dialling(flow(CLIENT), errno.EPERM)
    assert len(worker.said) == 3


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("known", [True, False])
def test_a_route_that_swallows_what_is_for_a_peer_rings(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, role: Role, known: bool
) -> None:
    """Where it is for us alone, the client's SYN has gone on, and the mail of a peer is in clear."""
    monkeypatch.setattr(worker.sessions, "is_known", lambda flow, role: known)
    worker.sessions.dial_failed(flow(CLIENT), role, DialOutcome.SWALLOWED)
    worker.sessions._log.flush()
    rings = known and role is Role.SENDING
    assert rung(worker) == (
        [("dial-impossible", SERVER, f"a route swallows it, the latest from {CLIENT} to {SERVER}")]
        if rings
        else []
    )
    assert ("reason=dial-impossible" if rings else "reason=dial-silent") in worker.log.read_text()


@pytest.mark.parametrize(
    ("reason", "is_failure"),
    [
        (Reason.HANDSHAKE_FAILED, True),
        (Reason.OFFER_MISSING, True),
        (Reason.REDIAL_DIFFERS, True),
        (Reason.REDIAL_FAILED, True),
        (Reason.NO_OFFER, False),
        (Reason.UPGRADED, False),
    ],
)
def test_what_counts_against_a_path_that_never_upgraded(
    worker: Worker, reason: Reason, is_failure: bool
) -> None:
    """A failed handshake that ends in a 421 as well: where the second dial is shut out each time, or meets
    another server of a pool, the mail would wait for ever."""
    worker.decided(reason, role=Role.SENDING)
    assert ({"failure": {"address": "203.0.113.7", "port": 25}} in worker.said) is is_failure


def test_channels_that_break_one_after_the_other_ring(worker: Worker) -> None:
    """Their senders try again, each time in vain, and no session by itself says so."""
    learning = worker.sessions.learning
    for now in (0.0, 300.0, 900.0):
        assert not worker.said
        learning.note_channel_end(flow(CLIENT), True, now)
    learning.note_channel_end(flow(CLIENT), None, 1000.0)
    (rung,) = worker.said
    assert rung["alarm"] == {
        "reason": "channels-break",
        "subject": "203.0.113.7:25",
        "detail": f"{limits.BROKEN_CHANNELS} in a row",
    }
    learning.note_channel_end(flow(CLIENT), False, 1800.0)
    learning.note_channel_end(flow(CLIENT), True, 2700.0)
    assert worker.said == [rung]


@pytest.mark.parametrize("role", Role)
def test_how_each_channel_of_the_sending_side_ended_is_noted(
    worker: Worker, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[object] = []
    monkeypatch.setattr(worker.sessions.learning, "note_channel_end", lambda *said: noted.append(said[:2]))
    worker.sessions.dialler = cast("Any", SimpleNamespace(ended=lambda flow, *, by_reset: None))
    near, peer = tcp_pair()
    far, server = tcp_pair()
    worker.sessions.pair_ready(flow(CLIENT), role, near, far)
    (connection,) = worker.sessions._roles
    monkeypatch.setattr(type(connection._machine), "channel_broke", True)
    connection._near.reset()
    connection._far.reset()
    assert noted == ([(flow(CLIENT), True)] if role is Role.SENDING else [])
    for each in (peer, server):
        each.close()


# --- Whom it counts for -------------------------------------------------------------------------------------

IN_ONE_NETWORK = ["2001:db8:5:1::1", "2001:db8:5:1:2::1"]


@pytest.mark.parametrize(
    ("role", "accounts"), [(Role.RECEIVING, ["2001:db8:5:1::/64"]), (Role.SENDING, IN_ONE_NETWORK)]
)
def test_what_waits_for_a_strangers_network_is_one_account(
    worker: Worker, role: Role, accounts: list[str]
) -> None:
    worker.sessions.dialler = Ended()
    ends = []
    for client in IN_ONE_NETWORK:
        accepted, far = tcp_pair()
        dialled, near = tcp_pair()
        ends += [far, near]
        worker.sessions.pair_ready(flow(client), role, accepted, dialled)
    assert list(worker.sessions._bank._accounts) == accounts
    worker.sessions.stop()
    assert worker.sessions._bank._accounts == {}
    for each in ends:
        each.close()


def test_a_strangers_network_has_the_handshakes_of_one_source(tmp_path: Path) -> None:
    worker = Worker(tmp_path, Config(handshakes_per_source=1))
    now = worker._loop.time()
    clients = (*IN_ONE_NETWORK, "2001:db8:5:2::1")
    found = [worker._surroundings.receiving(flow(client), now).overloaded for client in clients]
    worker.close()
    assert found == [False, True, False]
