"""What the keeper of the rules does when the kernel does not take what it is given: it tries again."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterable
from typing import Any

import pytest

from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept import kernel
from gateway.intercept.kernel import Mended
from gateway.intercept.wanted import Wanted, Word, record_word
from gateway.policy import limits
from tests.unit.runtime.supervisor.keeping import World


@pytest.mark.parametrize("fails", [0, 1, 3])
def test_a_gate_that_could_not_be_switched_is_switched_later(world: World, fails: int) -> None:
    """Else a worker that has just begun to serve would get no SYN until another one changes."""
    world.kernel.fails = fails
    world.keeper.gate_changed()
    asyncio.run(world.keep())
    assert world.kernel.gates == [[7, 8]]
    assert world.told == [[7, 8]]
    assert [reason for reason, _ in world.rung] == [Reason.RULES_MISSING] * fails


def test_trouble_while_looking_ends_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []

    def look() -> Mended:
        looked.append(None)
        if len(looked) == 1:
            raise EnvironmentFailureError("iptables-save: has not ended after 10 s")
        world.keeper.gate_changed()
        return Mended()

    def missing() -> list[str]:
        raise EnvironmentFailureError("iptables-save: has not ended after 10 s")

    def alarm(reason: Reason, subject: str, detail: str) -> None:
        told.append(world.keeper.missing)

    told: list[list[str]] = []
    monkeypatch.setattr(world.keeper, "_alarm", alarm)
    monkeypatch.setattr(world.kernel, "mend", look)
    monkeypatch.setattr(world.kernel, "missing", missing, raising=False)
    asyncio.run(world.keep())
    assert len(looked) >= 2
    assert world.kernel.gates == [[7, 8]]
    assert told == [["iptables-save: has not ended after 10 s"]], "what cannot be seen is not said to stand"
    assert world.keeper.missing == []


def test_it_looks_when_it_is_told_of_a_change_and_rests_between(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only in its turn: what is gone lets sessions under way out in clear until it is back."""
    monkeypatch.setattr(limits, "RULES_CHECK_SECONDS", 60.0)
    monkeypatch.setattr(limits, "RULES_TOLD_REST_SECONDS", 2.0)
    heard, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.setblocking(False)
    monkeypatch.setattr(kernel, "changes", lambda: [heard])
    looked: list[float] = []

    async def told() -> None:
        loop, seen = asyncio.get_running_loop(), asyncio.Event()

        def look() -> Mended:
            looked.append(time.monotonic())
            loop.call_soon_threadsafe(seen.set)
            return Mended()

        monkeypatch.setattr(world.kernel, "mend", look)
        keeping = asyncio.create_task(world.keeper.keep())
        await asyncio.sleep(0)  # it listens
        for _ in range(2):
            for _ in range(5):
                kernels.send(b"a change")
            async with asyncio.timeout(20):
                await seen.wait()
            seen.clear()
        keeping.cancel()
        await asyncio.wait({keeping})

    asyncio.run(told())
    assert len(looked) == 2, "not once for each word"
    assert looked[1] - looked[0] >= 0.25, "a busy machine makes the first one late"
    assert heard.fileno() == -1
    kernels.close()


def test_what_was_missing_is_told_when_it_is_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the counters had said before they began anew is not lost."""
    monkeypatch.setattr(world.kernel, "mend", lambda: Mended(("iptables raw -A X", "ip rule Y"), 5))
    world.keeper._look()
    assert world.rung == [(Reason.RULES_MISSING, "2 of ours were removed, first: iptables raw -A X")]
    assert (world.keeper.missing, world.keeper.bypassed) == ([], 5)
    monkeypatch.setattr(world.kernel, "mend", lambda: Mended(("iptables raw -A X",), 2))
    world.keeper._look()
    assert world.keeper.bypassed == 7
    monkeypatch.setattr(world.kernel, "mend", lambda: Mended(("ip rule Y",)))
    world.keeper._look()
    assert world.keeper.bypassed == 7


def test_what_cannot_be_mended_is_put_in_as_a_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[list[int]] = []

    def fails() -> Mended:
        raise EnvironmentFailureError("iptables-restore: line 5 failed")

    monkeypatch.setattr(world.kernel, "mend", fails)
    monkeypatch.setattr(world.kernel, "missing", lambda: ["iptables raw -A X"], raising=False)
    monkeypatch.setattr(world.kernel, "apply", lambda rules, live, _: applied.append(live), raising=False)
    monkeypatch.setattr(kernel, "passed_counts", dict)
    world.keeper._look()
    assert applied == [[7, 8]]
    assert [reason for reason, _ in world.rung] == [Reason.RULES_MISSING]


@pytest.mark.parametrize("adopts", [True, False])
def test_workers_of_an_older_version_need_not_prove_that_they_live(
    world: World, monkeypatch: pytest.MonkeyPatch, adopts: bool
) -> None:
    """Rules of another version are replaced; its workers serve on until their successors lead."""
    applied: list[tuple[list[int], float | None]] = []

    def apply(rules: object, live: list[int], vouched_seconds: float | None) -> None:
        applied.append((live, vouched_seconds))

    monkeypatch.setattr(world.kernel, "apply", apply, raising=False)
    monkeypatch.setattr(world.kernel, "adopt", lambda *_: adopts, raising=False)
    monkeypatch.setattr(kernel, "passed_counts", dict)
    world.keeper._adopt({"text inet": "of another version"})
    assert applied == ([] if adopts else [([7, 8], limits.READY_SECONDS)])


# --- A bridge whose VLANs change --------------------------------------------------------------------------


class Bridge:
    """What the keeper is told of it; `refusal`: why no rules are for it, if so."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refusal = "bridge.name: br0 tells VLANs apart"
        self.applied: list[list[int]] = []
        self._moved = True
        world.keeper.queues = [7, 8]
        monkeypatch.setattr(world.kernel, "mend", self._mend)
        monkeypatch.setattr(world.kernel, "apply", self._apply, raising=False)
        monkeypatch.setattr(kernel, "as_found", lambda config: config)
        monkeypatch.setattr(kernel, "bridge_refusal", lambda config: self.refusal)
        monkeypatch.setattr(kernel, "passed_counts", dict)

    def _mend(self) -> Mended:
        if self._moved:
            raise kernel.OtherVlansError("bridge.name: in VLAN 10 now")
        return Mended()

    def _apply(self, rules: object, live: Iterable[int], _: object) -> None:
        assert not self.refusal, "what stands is not taken away for rules that are refused"
        self.applied.append(list(live))
        self._moved = False


@pytest.mark.parametrize("fails", [0, 1])
def test_in_other_vlans_mail_passes_until_rules_for_them_stand(
    world: World, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """All rules but the gate stay: they keep what is under way from the wire."""
    bridge = Bridge(world, monkeypatch)
    world.kernel.fails = fails
    for _ in range(3):
        with pytest.raises(EnvironmentFailureError):
            world.keeper._look()
    assert world.kernel.gates == [[]]
    assert (world.keeper.queues, bridge.applied) == ([], [])
    world.keeper._swap()
    assert world.kernel.gates == [[], []], "nor by a worker that begins to serve"
    bridge.refusal = ""
    world.keeper._look()
    assert (world.keeper.queues, bridge.applied) == ([7, 8], [[7, 8]])
    world.keeper._look()
    world.keeper._swap()
    assert (world.kernel.gates[2:], len(bridge.applied)) == ([[7, 8]], 1)


def test_other_vlans_are_an_alarm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    Bridge(world, monkeypatch)
    rung: list[tuple[Reason, str]] = []

    async def until_it_rings_twice() -> None:
        twice = asyncio.Event()

        def alarm(reason: Reason, subject: str, detail: str) -> None:
            rung.append((reason, detail))
            if len(rung) == 2:
                twice.set()

        monkeypatch.setattr(world.keeper, "_alarm", alarm)
        keeping = asyncio.create_task(world.keeper.keep())
        await asyncio.wait_for(twice.wait(), 5)
        keeping.cancel()

    asyncio.run(until_it_rings_twice())
    assert rung[:2] == [
        (Reason.RULES_MISSING, "bridge.name: in VLAN 10 now"),
        (Reason.RULES_MISSING, "bridge.name: br0 tells VLANs apart"),
    ]
    assert world.keeper.missing == ["bridge.name: br0 tells VLANs apart"], "what `status` says"


def test_vlans_that_change_while_the_rules_are_down_are_found_with_the_next_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge(world, monkeypatch)
    with pytest.raises(EnvironmentFailureError):
        world.keeper._look()
    monkeypatch.setattr(world.kernel, "remove", lambda: None, raising=False)
    record_word(world.config.wanted_file, Word(Wanted.DOWN))
    world.keeper._look()
    bridge.refusal = ""
    record_word(world.config.wanted_file, Word(Wanted.UP))
    world.keeper._look()
    assert (world.keeper.queues, bridge.applied) == ([7, 8], [[7, 8]])


# --- What must not end, or be waited for for ever ---------------------------------------------------------


def test_a_gate_that_is_gone_is_put_back_though_its_switch_is_due(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody tells of changes (old iptables): each turn was another try to switch it."""

    def not_told() -> None:
        raise EnvironmentFailureError("changes are not told")

    def mend() -> Mended:
        world.kernel.fails = 0
        return Mended(("iptables raw -N NIGHTMAIL-GATE",))

    monkeypatch.setattr(kernel, "changes", not_told)
    monkeypatch.setattr(world.kernel, "mend", mend)
    world.kernel.fails = 1 << 30
    world.keeper.gate_changed()
    asyncio.run(world.keep())
    assert world.kernel.gates == [[7, 8]]


def test_a_gate_whose_switch_fails_by_a_bug_stays_due(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(live: Iterable[int]) -> None:
        monkeypatch.undo()
        raise TypeError("a bug")

    async def kept() -> None:
        with pytest.raises(TypeError):
            await world.keeper.keep()
        await world.keep()

    monkeypatch.setattr(world.kernel, "swap_gate", fails)
    world.keeper.gate_changed()
    asyncio.run(kept())
    assert world.kernel.gates == [[7, 8]]


def test_a_keeper_that_begins_again_looks_when_it_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look that was due when the one before failed will not come."""
    monkeypatch.setattr(limits, "RULES_CHECK_SECONDS", 60.0)
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    ours = iter([ours for ours, _ in pairs])
    monkeypatch.setattr(kernel, "changes", lambda: [next(ours)])
    looked = asyncio.Event()

    async def told() -> None:
        loop = asyncio.get_running_loop()

        def look() -> Mended:
            loop.call_soon_threadsafe(looked.set)
            return Mended()

        monkeypatch.setattr(world.kernel, "mend", look)
        world.keeper._looked_at = loop.time() + 60  # so that a look that is told of is due, and no more
        for ours, kernels in pairs:
            ours.setblocking(False)
            keeping = asyncio.create_task(world.keeper.keep())
            await asyncio.sleep(0)  # it listens
            kernels.send(b"a change")
            if kernels is pairs[-1][1]:
                world.keeper._looked_at = 0.0
                async with asyncio.timeout(5):
                    await looked.wait()
            else:
                while world.keeper._look_due is None:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            keeping.cancel()
            await asyncio.wait({keeping})

    asyncio.run(told())
    for _, kernels in pairs:
        kernels.close()


@pytest.mark.parametrize("standing", [None, {}, {"text inet": "as it was"}])
def test_trouble_with_the_rules_ends_no_daemon_at_a_reload(
    world: World, monkeypatch: pytest.MonkeyPatch, standing: dict[str, str] | None
) -> None:
    """Its workers carry mail. At a first start there are none, and who starts it is to hear of it."""

    def fails(*_: object) -> bool:
        raise EnvironmentFailureError("iptables-restore: Another app is currently holding the xtables lock")

    monkeypatch.setattr(world.kernel, "apply", fails, raising=False)
    monkeypatch.setattr(world.kernel, "adopt", fails, raising=False)
    monkeypatch.setattr(kernel, "passed_counts", dict)
    world.keeper.stands = False
    if standing is None:
        with pytest.raises(EnvironmentFailureError, match="xtables lock"):
            asyncio.run(world.keeper.first_time(standing))
        return
    asyncio.run(world.keeper.first_time(standing))
    assert [reason for reason, _ in world.rung] == [Reason.RULES_MISSING]
