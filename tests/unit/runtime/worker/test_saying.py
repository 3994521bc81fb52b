"""What a worker has to say while its supervisor stands still: over a real link, which is full."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.policy import limits
from gateway.runtime.link import ALIVE, Link, Message
from gateway.runtime.worker.saying import Saying
from gateway.runtime.worker.turns import Turns

ALARM: Message = {"alarm": {"reason": "upgraded-changed-peer", "subject": "192.0.2.7:25", "detail": ""}}
PEER: Message = {"remember": {"address": "192.0.2.7", "port": 25, "rang": True}}
IN_CLEAR: Message = {"alarm": {"reason": "source-in-clear", "subject": "192.0.2.9", "detail": ""}}
CLIENT: Message = {"source": {"address": "192.0.2.9", "seen": "dropped"}}
MET: Message = {"source": {"address": "192.0.2.9", "seen": "upgraded", "new": True}}


class Standing:
    """A supervisor that does not read for now."""

    def __init__(self) -> None:
        self.turns = Turns()
        ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._theirs.setblocking(False)
        self.link = Link(self.turns, ours, lambda message: None, lambda: None)
        self.saying = Saying(self.link)

    def stand(self) -> None:
        while self.link.send_alive():
            pass

    def heard(self) -> list[Any]:
        """Reads all that has come, but for proofs of life."""
        found = []
        try:
            while True:
                packet = self._theirs.recv(limits.LINK_MESSAGE_OCTETS)
                if packet != ALIVE:
                    found.append(json.loads(packet))
        except BlockingIOError:
            return found

    def close(self) -> None:
        self.link.close()
        self._theirs.close()
        self.turns.close()


@pytest.fixture
def supervisor() -> Iterator[Standing]:
    supervisor = Standing()
    yield supervisor
    supervisor.close()


def test_what_there_is_room_for_leaves_at_once(supervisor: Standing) -> None:
    for message in (ALARM, PEER, CLIENT):
        assert supervisor.saying.say(message)
    assert supervisor.heard() == [ALARM, PEER, CLIENT]
    supervisor.saying.again()
    assert supervisor.heard() == []


def test_an_alarm_that_the_link_had_no_room_for_is_told_later(supervisor: Standing) -> None:
    supervisor.stand()
    assert supervisor.saying.say(ALARM)
    assert not supervisor.saying.say(CLIENT)
    supervisor.saying.again()
    assert supervisor.heard() == []
    supervisor.saying.again()
    assert supervisor.heard() == [ALARM]
    supervisor.saying.again()
    assert supervisor.heard() == []


def test_a_first_upgrade_that_the_link_had_no_room_for_is_told_later(supervisor: Standing) -> None:
    """The kernel was told for a minute only; then clients would rest again, among them those of that peer."""
    supervisor.stand()
    assert supervisor.saying.say(MET)
    assert not supervisor.saying.say({"source": {**MET["source"], "new": False}})
    supervisor.heard()
    supervisor.saying.again()
    assert supervisor.heard() == [MET]


def test_nobody_is_remembered_before_his_alarm(supervisor: Standing) -> None:
    """Whoever is remembered as one that has rung rings no more. The link may have room again just then."""
    supervisor.stand()
    supervisor.saying.say(ALARM)
    supervisor.heard()
    supervisor.saying.say(PEER)
    assert supervisor.heard() == []
    supervisor.saying.again()
    assert supervisor.heard() == [ALARM, PEER]


def test_so_many_wait_and_the_first_ones_are_heard(supervisor: Standing) -> None:
    supervisor.stand()
    told = [{"alarm": {"subject": str(number)}} for number in range(limits.UNHEARD_KEPT)]
    assert all(supervisor.saying.say(message) for message in told)
    assert not supervisor.saying.say(PEER)
    supervisor.heard()
    found = []
    for _ in range(len(told)):
        supervisor.saying.again()
        found += supervisor.heard()
    assert found == told


@pytest.mark.parametrize("message", [IN_CLEAR, PEER, MET], ids=["alarms of clients", "peers", "upgrades"])
def test_what_others_can_make_very_many_of_leaves_half_of_the_places_to_alarms(
    supervisor: Standing, message: Message
) -> None:
    """Anybody comes in clear again and again from an address that has upgraded; somebody inside sends to very
    many addresses of a friend."""
    supervisor.stand()
    said = [supervisor.saying.say(message) for _ in range(limits.UNHEARD_KEPT)]
    assert sum(said) == limits.UNHEARD_KEPT // 2
    assert supervisor.saying.say(ALARM)


def test_what_no_link_takes_keeps_nothing_else_from_being_heard(supervisor: Standing) -> None:
    """The words of a bug may be as long as what it was about."""
    too_long = {"alarm": {"detail": "x" * (1 << 20)}}
    assert not supervisor.link.send(too_long)
    assert not supervisor.saying.say(too_long)
    supervisor.stand()
    supervisor.saying.say(too_long)
    supervisor.saying.say(ALARM)
    supervisor.heard()
    supervisor.saying.again()
    assert supervisor.heard() == [ALARM]
