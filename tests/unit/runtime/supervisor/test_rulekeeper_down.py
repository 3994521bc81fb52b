"""The keeper of the rules beside `nightmail down`, which writes what is wanted and then removes."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Iterable

import pytest

from gateway.config import Config
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept import kernel, rules_lock
from gateway.intercept.kernel import Mended
from gateway.intercept.wanted import Wanted, Word, record_word
from gateway.operator import lifecycle
from tests.unit.runtime.supervisor.keeping import World


@pytest.mark.parametrize("finds", ["trouble", "gaps"])
def test_what_goes_while_it_is_taken_down_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch, finds: str
) -> None:
    """The look had begun before: nothing rings, and nothing is put in again."""

    def mend() -> Mended:
        record_word(world.config.wanted_file, Word(Wanted.DOWN))
        if finds == "trouble":
            raise EnvironmentFailureError("iptables-restore: line 5 failed")
        return Mended(("iptables raw -A X",), 5)

    applied: list[list[int]] = []
    monkeypatch.setattr(world.kernel, "mend", mend)
    monkeypatch.setattr(world.kernel, "missing", lambda: ["iptables raw -A X"], raising=False)
    monkeypatch.setattr(world.kernel, "apply", lambda rules, live, _: applied.append(live), raising=False)
    monkeypatch.setattr(kernel, "passed_counts", dict)
    world.keeper._look()
    assert (world.rung, applied, world.keeper.missing) == ([], [], [])


class Operator:
    """Says `down` and `up` by the commands; the kernel's rules are gone with the first."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gone: tuple[str, ...] = ()
        self._config = world.config
        monkeypatch.setattr(kernel, "KernelRules", lambda _: self)
        monkeypatch.setattr(kernel, "gate_counts", dict)
        monkeypatch.setattr(world.kernel, "mend", self._mend)
        monkeypatch.setattr(world.kernel, "swap_gate", self._swap_gate)
        monkeypatch.setattr(world.kernel, "missing", lambda: ["all"], raising=False)

    def down_and_up(self) -> None:
        lifecycle.down(self._config)
        lifecycle.up(self._config)
        self.remove()  # the last `up` found no daemon here, and has put them in itself

    def remove(self) -> None:
        self.gone = ("iptables raw -N NIGHTMAIL-GATE",)

    def apply(self, rules: object, live: list[int], vouched_seconds: float | None = None) -> None:
        self.gone = ()

    def _mend(self) -> Mended:
        gone, self.gone = self.gone, ()
        return Mended(gone)

    def _swap_gate(self, live: Iterable[int]) -> None:
        if self.gone:
            raise EnvironmentFailureError("iptables-restore: line 2 failed")


@pytest.mark.parametrize("switches", [False, True])
def test_a_down_and_an_up_between_two_looks_ring_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, switches: bool
) -> None:
    """A daemon that could not look in between finds only that the rules are gone, though `up` was said."""
    operator = Operator(world, monkeypatch)
    for _ in range(2):
        operator.down_and_up()
        world.keeper._dirty = switches
        asyncio.run(world.keeper._turn())
        assert (operator.gone, world.rung) == ((), []), "they are back"
    operator.remove()
    world.keeper._look()
    assert [reason for reason, _ in world.rung] == [Reason.RULES_MISSING], "nobody has said `down` since"


def test_a_switch_beside_a_down_rings_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    Operator(world, monkeypatch)
    monkeypatch.setattr(world.kernel, "remove", lambda: None, raising=False)
    lifecycle.down(world.config)
    world.keeper._dirty = True
    asyncio.run(world.keeper._turn())
    assert (world.rung, world.keeper._stands, world.told) == ([], False, [[]])


def test_trouble_with_a_command_that_does_not_wait_rings_when_it_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that fail at each other do so once."""
    record_word(world.config.wanted_file, Word(Wanted.UP, downs=1))
    trouble = EnvironmentFailureError("nft: No such file or directory")
    world.keeper._in_trouble(trouble)
    assert world.rung == []
    assert world.keeper.missing == [str(trouble)], "what cannot be seen is not said to stand"
    world.keeper._in_trouble(trouble)
    assert len(world.rung) == 1


def hand_is_free(config: Config) -> bool:
    with config.rules_lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_look_has_the_hand_at_the_rules(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the word that it reads to what it does: so no command takes out what is being put back."""
    free: list[bool] = []

    def mend() -> Mended:
        free.append(hand_is_free(world.config))
        return Mended()

    monkeypatch.setattr(world.kernel, "mend", mend)
    asyncio.run(world.keeper._turn())
    assert free == [False]
    assert hand_is_free(world.config)


def test_a_command_that_is_stopped_does_not_keep_the_rules_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.kernel, "mend", lambda: Mended(("iptables raw -N NIGHTMAIL-GATE",)))
    with rules_lock.held(world.config, 0.0):
        asyncio.run(asyncio.wait_for(world.keeper._turn(), 10))
    assert len(world.rung) == 1


@pytest.mark.parametrize("stumbles", [0, 1])
def test_rules_that_another_takes_out_too_are_out(
    world: World, monkeypatch: pytest.MonkeyPatch, stumbles: int
) -> None:
    """What has just gone cannot be removed, and is no trouble; what is left is taken out at once."""
    tries: list[int] = []

    def remove() -> None:
        tries.append(len(tries))
        if len(tries) <= stumbles:
            raise EnvironmentFailureError("nft: No such file or directory")

    monkeypatch.setattr(world.kernel, "remove", remove, raising=False)
    monkeypatch.setattr(kernel, "passed_counts", dict)
    record_word(world.config.wanted_file, Word(Wanted.DOWN))
    world.keeper.queues = [7, 8]
    world.keeper._look()
    world.keeper._look()
    assert len(tries) == 1 + stumbles, "and not again at each look"
    assert world.keeper.queues == [], "`nightmail down` waits for that"
    assert world.rung == []


@pytest.mark.parametrize("until_reboot", [True, False])
def test_whether_the_next_boot_finds_another_word_is_known(
    world: World, monkeypatch: pytest.MonkeyPatch, until_reboot: bool
) -> None:
    monkeypatch.setattr(world.kernel, "remove", lambda: None, raising=False)
    monkeypatch.setattr(kernel, "passed_counts", dict)
    word = Word(Wanted.UP, this_boot=Wanted.DOWN) if until_reboot else Word(Wanted.DOWN)
    record_word(world.config.wanted_file, word)
    world.keeper._look()
    assert (world.keeper.wanted, world.keeper.until_reboot) == (Wanted.DOWN, until_reboot)


def test_rules_that_do_not_go_are_tried_again_and_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def remove() -> None:
        raise EnvironmentFailureError("nft: Operation not permitted")

    monkeypatch.setattr(world.kernel, "remove", remove, raising=False)
    monkeypatch.setattr(kernel, "passed_counts", dict)
    record_word(world.config.wanted_file, Word(Wanted.DOWN))
    for _ in range(2):
        with pytest.raises(EnvironmentFailureError):
            world.keeper._look()
