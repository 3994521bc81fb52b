"""The signer signs offers of its own identity, made now, and nothing else; and how a worker asks it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from gateway.crypto.keys import IdentityKey, IdentityPublic, Label
from gateway.crypto.messages import OFFER_SIGNED
from gateway.policy import limits
from gateway.runtime.signer import NUMBER, Allowance, Keys, Signer
from gateway.runtime.worker.signing import Signing

SEED, OTHER_SEED = b"s" * 32, b"o" * 32
TODAY = 20_000
NOW = float(TODAY * limits.DAY_SECONDS + 1000)


def public(seed: bytes) -> IdentityPublic:
    return IdentityKey.from_seed(seed).public


def offer(seed: bytes = SEED, epoch: int = TODAY) -> bytes:
    identity = public(seed).octets
    return OFFER_SIGNED.encode({"hash": b"h" * 64, "identity": identity, "epoch": epoch, "flags": 0})


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def steady() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def keys(clock: Clock, steady: Clock) -> Keys:
    keys = Keys(clock, steady)
    keys.use(SEED)
    return keys


# --- What it signs ------------------------------------------------------------------------------------------


def test_an_offer_of_today_is_signed_as_an_offer(keys: Keys) -> None:
    public(SEED).verify(Label.OFFER, offer(), keys.sign(offer()))


@pytest.mark.parametrize(
    "what",
    [
        b"",
        offer()[:-1],
        offer() + b"\0",
        Label.OFFER.value + offer(),
        Label.STATIC.value + bytes(OFFER_SIGNED.octets - len(Label.STATIC.value)),
        Label.STATEMENT_OLD.value + bytes(OFFER_SIGNED.octets - len(Label.STATEMENT_OLD.value)),
        offer(OTHER_SEED),
        bytes(OFFER_SIGNED.octets),
    ],
)
def test_nothing_else_is_signed(keys: Keys, what: bytes) -> None:
    assert keys.sign(what) == b""


def test_what_it_signs_is_never_taken_for_anything_but_an_offer(keys: Keys) -> None:
    """Whatever a worker asks for, the label stands before it."""
    signature = keys.sign(offer())
    for label in Label:
        if label is not Label.OFFER:
            with pytest.raises(Exception, match="signature"):
                public(SEED).verify(label, offer(), signature)


@pytest.mark.parametrize(("epoch", "signs"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_no_offer_of_another_day_to_keep_for_then(keys: Keys, epoch: int, signs: bool) -> None:
    assert bool(keys.sign(offer(epoch=TODAY + epoch))) is signs


@pytest.mark.parametrize("set_by", [-3600, 0, 3600])
def test_an_identity_that_was_switched_off_signs_for_sessions_that_began_before(
    keys: Keys, clock: Clock, steady: Clock, set_by: int
) -> None:
    """So long and no longer, whatever the clock is set to meanwhile."""
    keys.use(OTHER_SEED)
    assert keys.sign(offer())
    assert keys.sign(offer(OTHER_SEED))
    clock.now += set_by
    keys.forget_old()
    assert keys.sign(offer())
    steady.now += limits.SIGNER_KEEPS_SECONDS + 1
    keys.forget_old()
    assert not keys.sign(offer())
    assert keys.sign(offer(OTHER_SEED))


def test_only_so_many_a_second() -> None:
    clock = Clock()
    allowance = Allowance(clock)
    assert sum(allowance.spend() for _ in range(3 * limits.SIGNATURES_PER_SECOND)) == (
        limits.SIGNATURES_PER_SECOND
    )
    clock.now += 0.5
    assert sum(allowance.spend() for _ in range(limits.SIGNATURES_PER_SECOND)) == (
        limits.SIGNATURES_PER_SECOND // 2
    )


# --- The process --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(workers: int = 1) -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """A signer in a thread; the supervisor's end of its link, and the workers' ends."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers + 1)]
    thread = threading.Thread(target=Signer(pairs[0][1], [theirs for _, theirs in pairs[1:]]).serve)
    thread.start()
    try:
        yield pairs[0][0], [ours for ours, _ in pairs[1:]]
    finally:
        for ours, _ in pairs:
            ours.close()
        thread.join(10)
        assert not thread.is_alive(), "it does not end though nobody is left who could ask"


def tell(link: socket.socket, seed: bytes) -> None:
    link.send(b'{"seed": "%s"}' % seed.hex().encode())


def asked(worker: socket.socket, what: bytes) -> bytes:
    worker.settimeout(10)
    worker.send(NUMBER.pack(7) + what)
    answer = worker.recv(1000)
    assert answer[: NUMBER.size] == NUMBER.pack(7)
    return answer[NUMBER.size :]


def today() -> int:
    return int(time.time()) // limits.DAY_SECONDS


def test_it_answers_each_worker_and_tells_how_often() -> None:
    with serving(2) as (link, workers):
        tell(link, SEED)
        for worker in workers:
            body = offer(epoch=today())
            public(SEED).verify(Label.OFFER, body, asked(worker, body))
        assert asked(workers[0], b"anything") == b""
        link.settimeout(10)
        told = link.recv(1000)
        while told != b'{"signed": 2, "refused": 1}':
            told = link.recv(1000)


def test_a_worker_that_asks_too_often_is_refused_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SIGNATURES_PER_SECOND", 3)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    with serving(2) as (link, (greedy, other)):
        tell(link, SEED)
        body = offer(epoch=today())
        assert [bool(asked(greedy, body)) for _ in range(5)] == [True] * 3 + [False] * 2
        assert asked(other, body)


def test_a_new_identity_is_known_before_a_worker_can_ask_for_it() -> None:
    with serving() as (link, (worker,)):
        tell(link, SEED)
        body = offer(epoch=today())
        assert asked(worker, body)
        for seed in (OTHER_SEED, SEED, OTHER_SEED):
            tell(link, seed)
            assert asked(worker, offer(seed, today()))


def test_without_its_supervisor_it_serves_until_the_last_worker_is_gone() -> None:
    with serving(2) as (link, workers):
        tell(link, SEED)
        assert asked(workers[0], offer(epoch=today()))
        link.close()
        workers[0].close()
        assert asked(workers[1], offer(epoch=today()))


def test_an_empty_question_is_not_the_end_of_all_questions() -> None:
    """Of one that others have taken over: whoever had its slot next got no signature any more."""
    with serving() as (link, (worker,)):
        tell(link, SEED)
        worker.send(b"")
        assert asked(worker, offer(epoch=today()))


def test_a_worker_that_only_ends_its_direction_is_gone() -> None:
    """Of one that others have taken over: what is always ready would keep the signer busy for nothing."""
    with serving(2) as (link, (ended, other)):
        tell(link, SEED)
        ended.shutdown(socket.SHUT_WR)
        ended.settimeout(10)
        assert ended.recv(1000) == b""
        assert asked(other, offer(epoch=today()))


# --- The worker's side --------------------------------------------------------------------------------------


class Asking:
    """A worker's side with the test as its signer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = asyncio.new_event_loop()
        self.offset = 0.0
        self._ours, self.signer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.signer.setblocking(False)
        clock = self.loop.time
        monkeypatch.setattr(self.loop, "time", lambda: clock() + self.offset)
        self.troubles: list[str] = []
        self.signing = Signing(self.loop, self._ours, self.troubles.append)
        self.signed: list[bytes | None] = []

    def close(self) -> None:
        self.loop.remove_reader(self._ours)
        for one in (self._ours, self.signer, self.loop):
            one.close()

    def ask(self) -> None:
        self.signing.sign(b"this", self.signed.append)

    def turn(self, done: Callable[[], bool]) -> None:
        for _ in range(1000):
            if done():
                return
            self.loop.call_later(0.001, self.loop.stop)
            self.loop.run_forever()
        raise AssertionError("it did not happen")

    def requests(self) -> list[bytes]:
        packets = []
        while select.select([self.signer], [], [], 0)[0]:
            packets.append(self.signer.recv(1000))
        return packets


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    one = Asking(monkeypatch)
    yield one
    one.close()


def test_each_answer_finds_its_question(asking: Asking) -> None:
    first: list[bytes | None] = []
    asking.signing.sign(b"first", first.append)
    asking.ask()
    one, two = asking.requests()
    assert (one[NUMBER.size :], two[NUMBER.size :]) == (b"first", b"this")
    for request, signature in ((two, b"2" * 64), (one, b"1" * 64)):
        asking.signer.send(request[: NUMBER.size] + signature)
    asking.turn(lambda: bool(first and asking.signed))
    assert (first, asking.signed) == ([b"1" * 64], [b"2" * 64])


def test_what_another_worker_asked_before_is_not_ours(asking: Asking) -> None:
    asking.ask()
    (request,) = asking.requests()
    (number,) = NUMBER.unpack_from(request)
    asking.signer.send(NUMBER.pack((number + 1) % (1 << 64)) + b"x" * 64)
    asking.signer.send(request[: NUMBER.size] + b"y" * 64)
    asking.turn(lambda: bool(asking.signed))
    assert asking.signed == [b"y" * 64]


@pytest.mark.parametrize("answer", [b"", b"short", b"l" * 65])
def test_a_refusal_is_told_and_costs_an_offer_only(asking: Asking, answer: bytes) -> None:
    asking.ask()
    asking.signer.send(asking.requests()[0][: NUMBER.size] + answer)
    asking.turn(lambda: bool(asking.signed))
    assert asking.signed == [None]
    assert asking.troubles == ["refuses to sign"]


def test_nobody_waits_again_for_a_signer_that_does_not_answer(asking: Asking) -> None:
    asking.ask()
    assert len(asking.requests()) == 1
    asking.offset = limits.SIGN_SECONDS + 0.1
    for _ in range(3):
        asking.ask()
    asking.turn(lambda: len(asking.signed) == 3)
    assert asking.signed == [None] * 3
    assert asking.requests() == []
    assert len(asking.troubles) == 1
    # What is lost for good is forgotten: the next one asks again, and an answer ends the trouble.
    asking.offset = limits.SIGNATURES_LOST_SECONDS + 0.1
    asking.signed.clear()
    asking.ask()
    (request,) = asking.requests()
    asking.signer.send(request[: NUMBER.size] + b"s" * 64)
    asking.turn(lambda: bool(asking.signed))
    assert asking.signed == [b"s" * 64]


def test_silence_is_told_though_nobody_asks_again(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGN_SECONDS", 0.01)
    asking.ask()
    asking.turn(lambda: bool(asking.troubles))
    assert asking.signed == []


def test_a_late_answer_frees_the_way_at_once(asking: Asking) -> None:
    asking.ask()
    (request,) = asking.requests()
    asking.offset = limits.SIGN_SECONDS + 0.1
    asking.signer.send(request[: NUMBER.size] + b"s" * 64)
    asking.turn(lambda: bool(asking.signed))
    asking.ask()
    assert len(asking.requests()) == 1


def test_a_socket_that_takes_no_more_costs_an_offer_only(asking: Asking) -> None:
    for _ in range(100_000):
        asking.ask()
        if asking.troubles:
            break
    assert asking.troubles
    asking.turn(lambda: asking.signed == [None])


def test_numbers_begin_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that a worker before this one left behind must find nobody; at the end it begins anew."""
    monkeypatch.setattr(os, "urandom", lambda count: b"\xff" * count)
    one = Asking(monkeypatch)
    one.ask()
    assert one.requests()[0][: NUMBER.size] == NUMBER.pack(0)
    one.close()


def test_who_gives_its_way_to_the_signer_up_asks_no_more_and_takes_no_answer(asking: Asking) -> None:
    asking.ask()
    (request,) = asking.requests()
    asking.signing.close()
    asking.signing.close()
    asking.signer.send(request[: NUMBER.size] + b"s" * 64)
    asking.ask()
    asking.turn(lambda: len(asking.signed) == 2)
    assert asking.signed == [None, None], "nobody waits"
    assert asking.requests() == []
    assert asking._ours.recv(100)[NUMBER.size :] == b"s" * 64, "what comes now is its successor's"
    assert asking.troubles == []
