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
from gateway.operator import lifecycle, orphans
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
        monkeypatch.setattr(orphans, "end", lambda pause, *, hurried: None)
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
    assert (world.rung, world.keeper.stands, world.told) == ([], False, [[]])


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
    for _ in range(2):
        asyncio.run(world.keeper._turn())
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
    record_word(world.config.wanted_file, Word(Wanted.DOWN))
    for _ in range(2):
        with pytest.raises(EnvironmentFailureError):
            asyncio.run(world.keeper._turn())
    assert world.keeper.stands


# --- Sessions first --------------------------------------------------------------------------------------


@pytest.fixture
def removed(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many times sessions had been ended when the rules went."""
    times: list[int] = []
    monkeypatch.setattr(world.kernel, "remove", lambda: times.append(len(world.emptied)), raising=False)
    return times


def test_sessions_end_behind_a_closed_gate_and_before_the_rules_go(world: World, removed: list[int]) -> None:
    record_word(world.config.wanted_file, Word(Wanted.DOWN))
    world.resets = 3
    asyncio.run(world.keeper._turn())
    assert (world.kernel.gates, world.emptied, removed) == ([[]], [[]], [1])
    assert (world.keeper.stands, world.keeper.reset) == (False, 3)
    asyncio.run(world.keeper._turn())
    assert (len(world.emptied), removed) == (1, [1]), "once"


def test_who_serves_meanwhile_is_sent_nothing(world: World, removed: list[int]) -> None:
    """A worker that has been started anew, for its sessions had to be reset."""
    record_word(world.config.wanted_file, Word(Wanted.DOWN))
    world.keeper._look()
    world.keeper._swap_what_stands()
    assert world.kernel.gates == [[]]


def test_rules_that_are_wanted_again_meanwhile_stay(
    world: World, removed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    record_word(world.config.wanted_file, Word(Wanted.DOWN))

    async def empty() -> int:
        record_word(world.config.wanted_file, Word(Wanted.UP))
        return 0

    monkeypatch.setattr(world.keeper, "_empty", empty)
    asyncio.run(world.keeper._turn())
    assert (world.kernel.gates, removed, world.keeper.stands) == ([[], [7, 8]], [], True)


def test_a_gate_that_is_closed_opens_where_the_rules_are_wanted_again(world: World) -> None:
    """As where they could not be taken out."""
    record_word(world.config.wanted_file, Word(Wanted.DOWN))
    world.keeper._look()
    record_word(world.config.wanted_file, Word(Wanted.UP))
    world.keeper._look()
    assert world.kernel.gates == [[], [7, 8]]


@pytest.mark.parametrize("stands", [True, False])
def test_a_gate_that_cannot_be_closed_is_tried_again_unless_it_is_gone(
    world: World, removed: list[int], monkeypatch: pytest.MonkeyPatch, stands: bool
) -> None:
    """Sessions that had just begun would be left without rules; a command has taken them out itself."""
    monkeypatch.setattr(kernel, "gate_counts", lambda: {"lan": 3} if stands else {})
    record_word(world.config.wanted_file, Word(Wanted.DOWN))
    world.kernel.gates.append([7, 8])
    world.kernel.fails = 1
    if stands:
        with pytest.raises(EnvironmentFailureError):
            asyncio.run(world.keeper._turn())
        assert (world.emptied, removed) == ([], [])
    asyncio.run(world.keeper._turn())
    assert (len(world.emptied), removed) == (1, [1])


def test_what_passes_by_the_closed_gate_passes_as_it_is_wanted_to(
    world: World, removed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = {"lan": 5}
    monkeypatch.setattr(kernel, "passed_counts", lambda: passed)

    async def empty() -> int:
        passed["lan"] = 50
        return 0

    monkeypatch.setattr(world.keeper, "_empty", empty)
    record_word(world.config.wanted_file, Word(Wanted.DOWN))
    asyncio.run(world.keeper._turn())
    assert world.keeper.bypassed == 5


@pytest.mark.parametrize("adopts", [True, False])
def test_a_down_that_a_reload_overtakes_is_seen_through(
    world: World, removed: list[int], monkeypatch: pytest.MonkeyPatch, adopts: bool
) -> None:
    """Rules that the process before has left stand, whatever is wanted by now; none are put in."""
    world.keeper.stands = False
    monkeypatch.setattr(world.kernel, "adopt", lambda *_: adopts, raising=False)
    record_word(world.config.wanted_file, Word(Wanted.DOWN))
    asyncio.run(world.keeper.first_time({"inet nightmail": "7"}))
    asyncio.run(world.keeper._turn())
    assert (world.kernel.gates, removed) == ([[]], [1])


@pytest.mark.parametrize("says_it", ["at once", "while sessions end"])
def test_rules_that_were_not_ours_are_put_in_anew_where_they_are_wanted_again(
    world: World, removed: list[int], monkeypatch: pytest.MonkeyPatch, says_it: str
) -> None:
    """A reload that overtakes a `down` leaves them as they stand: nobody would miss what goes of them."""
    applied: list[list[int]] = []

    def apply(rules: object, live: list[int], vouched_seconds: float | None = None) -> None:
        applied.append(live)
        world.kernel.standing = {"text inet": "ours"}

    async def empty() -> int:
        record_word(world.config.wanted_file, Word(Wanted.UP))
        return 0

    world.keeper.stands, world.kernel.standing = False, {}
    monkeypatch.setattr(world.kernel, "adopt", lambda *_: False, raising=False)
    monkeypatch.setattr(world.kernel, "apply", apply, raising=False)
    monkeypatch.setattr(kernel, "passed_counts", dict)
    monkeypatch.setattr(kernel, "as_found", lambda config: config)
    monkeypatch.setattr(kernel, "bridge_refusal", lambda config: "")
    record_word(world.config.wanted_file, Word(Wanted.DOWN))
    asyncio.run(world.keeper.first_time({"text inet": "of another version"}))
    if says_it == "at once":
        record_word(world.config.wanted_file, Word(Wanted.UP))
    monkeypatch.setattr(world.keeper, "_empty", empty)
    for _ in range(2):
        asyncio.run(world.keeper._turn())
    assert (applied, removed, world.keeper.stands) == ([[7, 8]], [], True)
    assert world.kernel.gates == [[]], "none of ours is sent anything by theirs"


def test_nobody_new_is_sent_anything_where_a_reload_overtakes_a_down(
    world: World, removed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that come up before the first look change the gate."""
    world.keeper.stands, world.kernel.standing = False, {}
    monkeypatch.setattr(world.kernel, "adopt", lambda *_: False, raising=False)
    record_word(world.config.wanted_file, Word(Wanted.DOWN))
    asyncio.run(world.keeper.first_time({"text inet": "of another version"}))
    world.keeper.gate_changed()
    asyncio.run(world.keeper._turn())
    assert world.kernel.gates == [[]]
