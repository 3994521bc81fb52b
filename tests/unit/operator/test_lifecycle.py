"""The word first, the deed second; and both with a daemon that runs. The kernel is a fake here."""

import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from gateway.config import Config, FoundInterface
from gateway.config_text import ConfigurationError
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel, rules_lock
from gateway.intercept.wanted import Wanted, Word, read_wanted, read_word
from gateway.operator import lifecycle, orphans, planning
from gateway.policy import limits
from tests.unit.operator.fake_daemon import daemon
from tests.unit.operator.fake_kernel import FakeKernel

SOURCE = Path(__file__).parents[3]
ENDS = (signal.SIGTERM, signal.SIGHUP)
"""What ends a command, beside Ctrl-C."""


def test_up_without_a_daemon(config: Config, fake: FakeKernel) -> None:
    assert "no daemon is running" in lifecycle.up(config)
    assert fake.done == [("apply [2500, 2501]", Wanted.UP)]


AT_WORK = """
import sys
from pathlib import Path
from gateway.config import Config
from gateway.operator import turn
with turn.taken(Config(state_dir=Path(sys.argv[1])), lambda _: None):
    print("taken", flush=True)
    input()
"""


@contextlib.contextmanager
def another_at_work(config: Config) -> Iterator[int]:
    """Its process; it ends when it is told to."""
    words = [sys.executable, "-c", AT_WORK, str(config.state_dir)]
    with Popen(words, stdin=PIPE, stdout=PIPE, text=True, cwd=SOURCE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        yield process.pid
        process.communicate("\n")


def test_who_comes_while_another_is_at_work_waits_and_is_told_whom_for(
    config: Config, fake: FakeKernel
) -> None:
    pauses: list[float] = []
    with another_at_work(config) as pid:
        for act in (lifecycle.up, lifecycle.down):
            with pytest.raises(
                EnvironmentFailureError, match=f"is at work \\(process {pid}\\): say it again"
            ):
                act(config, pause=pauses.append)
    assert fake.done == []
    assert sum(pauses) == pytest.approx(2 * limits.TURN_SECONDS)
    assert "rules are in place" in lifecycle.up(config)


def test_who_waited_is_next(config: Config, fake: FakeKernel) -> None:
    with contextlib.ExitStack() as other:
        other.enter_context(another_at_work(config))
        assert "rules are out" in lifecycle.down(config, pause=lambda _: other.close())
    assert fake.done == [("remove", Wanted.DOWN)]


def test_a_folder_that_went_meanwhile_is_locked_anew(config: Config, fake: FakeKernel) -> None:
    """By the undoing of the other one."""
    with contextlib.ExitStack() as other:
        other.enter_context(another_at_work(config))

        def undone(_: float) -> None:
            config.state_dir.rename(config.state_dir.with_name("gone"))
            other.close()

        assert "rules are in place" in lifecycle.up(config, pause=undone)
        assert read_wanted(config.wanted_file) is Wanted.UP


def test_up_leaves_the_rules_to_a_running_daemon_and_waits_for_them(config: Config, fake: FakeKernel) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            fake.counts = {"eth0": 0}

    with daemon(config.control_socket):
        assert "the daemon keeps them" in lifecycle.up(config, pause=pause)
    assert fake.done == []
    assert read_wanted(config.wanted_file) is Wanted.UP
    assert len(pauses) == 3


def test_a_plan_beside_a_running_daemon_knows_its_queues(
    config: Config, fake: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload has moved them."""
    asked: list[list[int]] = []
    monkeypatch.setattr(kernel, "plan", lambda config, rules, queues: asked.append(queues) or [])
    monkeypatch.setattr(kernel, "remarks", lambda config: [])
    monkeypatch.setattr(kernel, "notes", list)
    workers = [{"generation": 1, "queue": 2500}, {"generation": 2, "queue": 2502}]
    for queues, expected in (([2502, 2503], [2502, 2503]), ([], [2502])):
        with daemon(config.control_socket, {"workers": workers, "rules": {"queues": queues}}):
            planning.plan(config)
        assert asked.pop() == expected
    planning.plan(config)
    assert asked.pop() == [2500, 2501]


def test_up_says_when_the_daemon_does_not(config: Config, fake: FakeKernel) -> None:
    with daemon(config.control_socket), pytest.raises(EnvironmentFailureError, match="its log says why"):
        lifecycle.up(config, pause=lambda seconds: None)


def test_up_that_fails_is_undone(config: Config, fake: FakeKernel) -> None:
    lifecycle.down(config)
    fake.done.clear()
    fake.fails = True
    with pytest.raises(EnvironmentFailureError, match="not permitted"):
        lifecycle.up(config)
    assert [what for what, _ in fake.done] == ["apply [2500, 2501]", "remove"]
    assert read_wanted(config.wanted_file) is Wanted.DOWN


def test_up_that_is_interrupted_is_undone(
    config: Config, fake: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(wanted: Any, live_queues: list[int]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "apply", interrupted)
    with pytest.raises(EnvironmentFailureError, match="as it was before"):
        lifecycle.up(config)
    assert [what for what, _ in fake.done] == ["remove"]


def test_what_cannot_be_undone_is_said(
    config: Config, fake: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, iptables that another one holds: nobody is told that everything is as it was."""

    def interrupted(wanted: Any, live_queues: list[int]) -> None:
        config.wanted_file.unlink()
        config.wanted_file.mkdir()
        raise KeyboardInterrupt

    def held() -> None:
        raise EnvironmentFailureError("iptables: held by another")

    monkeypatch.setattr(fake, "apply", interrupted)
    monkeypatch.setattr(fake, "remove", held)
    told = f"not all is as it was before: {config.wanted_file}: cannot be removed: Is a directory"
    with pytest.raises(EnvironmentFailureError) as caught:
        lifecycle.up(config)
    assert str(caught.value) == f"interrupted; {told}; iptables: held by another"


def test_what_has_made_up_fail_and_is_in_the_way_back_as_well_is_said_once(
    config: Config, fake: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise EnvironmentFailureError("iptables is not installed")

    monkeypatch.setattr(fake, "apply", missing)
    monkeypatch.setattr(fake, "remove", missing)
    with pytest.raises(EnvironmentFailureError) as caught:
        lifecycle.up(config)
    assert str(caught.value) == "iptables is not installed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_undoing_is_not_interrupted(
    config: Config, fake: FakeKernel, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Who presses Ctrl-C twice is told that all is as it was."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDS}
    try:

        def interrupted(*_: object) -> None:
            signal.raise_signal(signal.SIGINT)

        def interrupted_as_well() -> None:
            signal.raise_signal(number)
            fake.note("remove")

        monkeypatch.setattr(fake, "apply", interrupted)
        monkeypatch.setattr(fake, "remove", interrupted_as_well)
        with pytest.raises(EnvironmentFailureError, match="as it was before"):
            lifecycle.up(config)
        assert [what for what, _ in fake.done] == ["remove"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert all(signal.getsignal(number) is signal.default_int_handler for number in ENDS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_routing_table_of_others_is_left_to_them(config: Config, fake: FakeKernel) -> None:
    """Their default route went, and `down` did not bring it back."""
    fake.refusal = "kernel.table: routing table 2525 has a route of others"
    with pytest.raises(EnvironmentFailureError, match="2525 has a route of others"):
        lifecycle.up(config)
    assert fake.done == []
    assert not config.state_dir.exists()
    fake.counts = {"eth0": 0}  # ours stand there already
    lifecycle.up(config)
    assert fake.done == [("apply [2500, 2501]", Wanted.UP)]


def test_a_second_up_that_fails_leaves_the_rules_of_the_first(config: Config, fake: FakeKernel) -> None:
    fake.counts, fake.fails = {"eth0": 3}, True
    with pytest.raises(EnvironmentFailureError):
        lifecycle.up(config)
    assert [what for what, _ in fake.done] == ["apply [2500, 2501]"]
    assert read_wanted(config.wanted_file) is Wanted.UP


def test_up_that_fails_leaves_no_file_behind(config: Config, fake: FakeKernel) -> None:
    fake.fails = True
    with pytest.raises(EnvironmentFailureError):
        lifecycle.up(config)
    assert not config.state_dir.exists()


# --- Until the next boot ---------------------------------------------------------------------------------


def test_for_this_boot_alone(config: Config, fake: FakeKernel) -> None:
    lifecycle.down(config)
    assert "after the next boot it is as it was" in lifecycle.up(config, until_reboot=True)
    assert read_word(config.wanted_file) == Word(Wanted.DOWN, Wanted.UP, downs=1)
    # The next boot finds the first `down`.
    assert "are out until `nightmail up`" in lifecycle.down(config, until_reboot=True)
    assert read_word(config.wanted_file) == Word(Wanted.DOWN, Wanted.DOWN, downs=2)
    lifecycle.up(config)
    assert read_word(config.wanted_file) == Word(Wanted.UP, downs=2)
    assert "until the next boot" in lifecycle.down(config, until_reboot=True)
    assert read_word(config.wanted_file) == Word(Wanted.UP, Wanted.DOWN, downs=3)


# --- Down ------------------------------------------------------------------------------------------------


def test_down(config: Config, fake: FakeKernel) -> None:
    assert "rules are out" in lifecycle.down(config)
    assert fake.done == [("remove", Wanted.DOWN)]
    assert fake.ends == [False]


def test_workers_without_a_supervisor_end_before_anything_else(
    config: Config, fake: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that reads the word takes the rules out, and knows nothing of them."""

    def end(pause: object, *, hurried: bool) -> None:
        assert not config.wanted_file.exists()
        fake.ends.append(hurried)
        if not hurried:
            raise KeyboardInterrupt
        monkeypatch.setattr(orphans, "end", lambda *_, **__: None)

    monkeypatch.setattr(orphans, "end", end)
    assert lifecycle.down(config) == OUT
    assert (fake.ends, fake.done) == ([False, True], [("remove", Wanted.DOWN)])


@pytest.mark.parametrize(
    ("wanted", "rules", "obeyed"),
    [
        ("up", {"queues": [2500, 2501], "stand": True}, False),
        ("down", {"queues": [2500, 2501]}, False),
        ("up", {"queues": []}, False),
        ("down", {"queues": [], "stand": True, "reset": 0}, False),
        ("down", {"queues": [], "stand": False, "reset": 0}, True),
        ("down", {"queues": []}, True),  # by an older one, which ends no session before
    ],
)
def test_down_leaves_the_rules_to_a_running_daemon_until_it_has_obeyed(
    config: Config, fake: FakeKernel, wanted: str, rules: dict[str, Any], obeyed: bool
) -> None:
    """Or has had the time for that."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        assert fake.done == []
        assert read_wanted(config.wanted_file) is Wanted.DOWN
        pauses.append(seconds)

    with daemon(config.control_socket, {"wanted": wanted, "rules": rules}, questions=0):
        assert lifecycle.down(config, pause=pause) == OUT
    assert [what for what, _ in fake.done] == ["remove"]
    assert sum(pauses) == pytest.approx(limits.RULES_ASKED_SECONDS if obeyed else limits.DOWN_SECONDS)
    assert fake.ends == [False, False], "its workers, too, should it have been killed meanwhile"


OUT = "rules are out and stay out; mail passes in clear until `nightmail up`"
STAND_STILL = "cannot go on, and what mail servers still send in them leaves in clear: end the daemon"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"rules": {"queues": [], "stand": False, "reset": 1}}, "1 session had not ended and was reset"),
        ({"rules": {"queues": [], "stand": False, "reset": 9}}, "9 sessions had not ended and were reset"),
        ({"rules": {"queues": []}}, f"3 sessions that are open {STAND_STILL}"),
        ({"rules": {"queues": [], "stand": True}}, f"3 sessions that are open {STAND_STILL}"),
    ],
)
def test_down_says_what_became_of_sessions_that_did_not_end(
    config: Config, fake: FakeKernel, told: dict[str, Any], said: str
) -> None:
    workers = [{"sessions": 2}, {"sessions": 1}]
    with daemon(config.control_socket, {"wanted": "down", "workers": workers, **told}, questions=0):
        assert lifecycle.down(config, pause=lambda seconds: None) == f"{OUT}; {said}"


def test_down_waits_for_no_daemon_that_hangs(
    config: Config, fake: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "OBEYING_SECONDS", 0.05)
    with hanging(config.control_socket):
        told = lifecycle.down(config, pause=lambda seconds: None)
    hangs = f"{config.control_socket}: the daemon has not answered within 0.05 s"
    assert told == f"{OUT}; {hangs}: sessions that are open {STAND_STILL}"
    assert fake.done == [("remove", Wanted.DOWN)]


@contextlib.contextmanager
def hanging(control: Path) -> Iterator[None]:
    """Who listens there, and answers nobody."""
    control.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(control))
        listener.listen()
        yield


def test_a_daemon_that_ends_meanwhile_has_no_sessions(config: Config, fake: FakeKernel) -> None:
    with contextlib.ExitStack() as running:
        running.enter_context(hanging(config.control_socket))
        assert lifecycle.down(config, pause=lambda seconds: running.close()) == OUT
    assert fake.done == [("remove", Wanted.DOWN)]


def test_a_daemon_that_is_killed_as_it_is_asked_has_none(config: Config, fake: FakeKernel) -> None:
    """Who had asked hears nothing, and then nobody listens there."""
    config.control_socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(config.control_socket))
        listener.listen()

        def die() -> None:
            listener.accept()[0].close()  # whether it runs
            with listener.accept()[0] as asking:  # how far it is
                asking.recv(1)
                listener.close()

        dying = threading.Thread(target=die)
        dying.start()
        assert lifecycle.down(config, pause=lambda seconds: None) == OUT
        dying.join()
    assert fake.ends == [False, False]


def test_down_that_is_interrupted_has_sessions_reset_and_takes_the_rules_out(
    config: Config, fake: FakeKernel
) -> None:
    """And is not interrupted a second time."""

    def interrupted(_: float) -> None:
        signal.raise_signal(signal.SIGINT)

    answer = {"wanted": "down", "rules": {"queues": [], "stand": True}}
    with daemon(config.control_socket, answer, questions=0) as asked:
        assert lifecycle.down(config, pause=interrupted) == OUT
    assert asked[0] == b"hurry\n"
    assert len(asked) == 1 + limits.HURRIED_DOWN_SECONDS / limits.RULES_ASKED_SECONDS
    assert fake.done == [("remove", Wanted.DOWN)]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_hand_at_a_time_is_at_the_rules(config: Config, fake: FakeKernel) -> None:
    """`FakeKernel.note` looks for that."""
    config.run_dir.mkdir()
    lifecycle.up(config)
    lifecycle.down(config)
    assert [what for what, _ in fake.done] == ["apply [2500, 2501]", "remove"]
    assert fake.waited


def test_a_daemon_that_begins_meanwhile_puts_the_rules_in_itself(
    config: Config, fake: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each would take the other's gate for a wrong one."""
    with contextlib.ExitStack() as begun:

        def held(*_: object) -> contextlib.nullcontext[None]:
            begun.enter_context(daemon(config.control_socket, questions=0))
            fake.counts = {"eth0": 0}
            return contextlib.nullcontext()

        monkeypatch.setattr(rules_lock, "held", held)
        assert "the daemon keeps them" in lifecycle.up(config)
    assert fake.done == []


def test_down_is_remembered_even_if_the_kernel_refuses(config: Config, fake: FakeKernel) -> None:
    fake.fails = True
    with pytest.raises(EnvironmentFailureError):
        lifecycle.down(config)
    assert read_wanted(config.wanted_file) is Wanted.DOWN


def test_the_rules_go_also_where_the_word_cannot_be_written(config: Config, fake: FakeKernel) -> None:
    """A disk that is full, or that the kernel has made read-only."""
    (config.wanted_file / "in the way").mkdir(parents=True)
    fake.note = lambda what: fake.done.append((what, Wanted.UP))  # type: ignore[method-assign]
    with daemon(config.control_socket, questions=0), pytest.raises(EnvironmentFailureError) as refused:
        lifecycle.down(config)
    assert f"{config.wanted_file}: cannot be written: Is a directory; the rules stay" in str(refused.value)
    assert fake.done == [], "the daemon would put them back, and ring"
    with pytest.raises(
        EnvironmentFailureError, match="Is a directory; rules are out, until a daemon is started"
    ):
        lifecycle.down(config)
    assert [what for what, _ in fake.done] == ["remove"]


OTHER = (
    "another daemon keeps the rules of this network namespace (process 7, /x/control.sock),{}"
    " say it with its configuration (`nightmail --config FILE`)"
)


def test_a_daemon_with_another_configuration_is_not_put_out_by_an_up(
    config: Config, fake: FakeKernel
) -> None:
    """Each would take the other's rules out, without end."""
    fake.other = "process 7, /x/control.sock"
    with pytest.raises(EnvironmentFailureError) as refused:
        lifecycle.up(config)
    assert str(refused.value) == OTHER.format(" not by this configuration:")
    assert fake.done == []
    assert not config.state_dir.exists()


@pytest.mark.parametrize("obeys", [False, True])
def test_down_beside_a_daemon_with_another_configuration(
    config: Config, fake: FakeKernel, obeys: bool
) -> None:
    """One that looks for the word in the same place obeys; any other one puts its rules back."""
    fake.other = "process 7, /x/control.sock"
    fake.counts = {"eth0": 3}
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        fake.counts = {} if obeys else {"eth0": 0}

    if obeys:
        assert "rules are out" in lifecycle.down(config, pause=pause)
    else:
        with pytest.raises(EnvironmentFailureError) as refused:
            lifecycle.down(config, pause=pause)
        assert str(refused.value) == OTHER.format(" and has put them back:")
    assert pauses == [2 * limits.RULES_CHECK_SECONDS]
    assert fake.done == [("remove", Wanted.DOWN)]


def test_down_and_another_daemon_at_the_rules_in_the_same_moment(config: Config, fake: FakeKernel) -> None:
    """One of the two finds gone what it has just seen, and the tool fails: in its own words, which say
    nothing of whose rules these are."""
    fake.counts, fake.fails = {"eth0": 3}, True

    def pause(_: float) -> None:
        fake.fails = False

    fake.other = "process 7, /x/control.sock"
    with pytest.raises(EnvironmentFailureError) as refused:
        lifecycle.down(config, pause=pause)
    assert str(refused.value) == OTHER.format(" and has put them back:")
    fake.counts, fake.fails = {}, True
    assert lifecycle.down(config, pause=pause) == OUT
    assert [what for what, _ in fake.done] == ["remove"] * 3, "what the first one has left goes with another"


def test_who_may_do_neither_hears_of_the_word(config: Config, fake: FakeKernel) -> None:
    """So that the end of the line is that root may."""
    (config.wanted_file / "in the way").mkdir(parents=True)

    def denied() -> None:
        raise EnvironmentFailureError("not permitted")

    fake.remove = denied  # type: ignore[method-assign]
    with pytest.raises(EnvironmentFailureError, match=r"cannot be written: Is a directory$"):
        lifecycle.down(config)


def test_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        lifecycle, "discover", lambda: [FoundInterface("wan", True), FoundInterface("lan", False)]
    )
    assert lifecycle.resolved(Config()).inside == ("lan",)
    with pytest.raises(ConfigurationError):
        lifecycle.resolved(Config(inside=("nope",)))
