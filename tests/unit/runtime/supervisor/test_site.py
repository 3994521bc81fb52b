"""The identity in the running daemon: follows the file, switches on its day, survives what goes wrong."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.crypto.rotation import announced, withdrawn
from gateway.crypto.statement import read_statement
from gateway.errors import Reason
from gateway.observe.log import Log, LogSink
from gateway.policy import limits
from gateway.runtime import identity_file
from gateway.runtime.machine import Machine
from gateway.runtime.order import Presented
from gateway.runtime.supervisor.site import Site

BEGAN = 1_800_000_000
DAY = 86400


@dataclass
class Daemon:
    path: Path
    config: Config
    log: Log
    now: float = BEGAN
    rung: list[tuple[Reason, str]] = field(default_factory=list)

    def site(self) -> Site:
        def alarm(reason: Reason, subject: str, detail: str) -> None:
            self.rung.append((reason, detail))

        return Site(self.config, self.log, alarm, lambda: self.now)


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    config = Config(state_dir=tmp_path)
    log = Log(LogSink.to_file(tmp_path / "log"), clock=lambda: BEGAN)
    return Daemon(config.identity_file, config, log)


def announce(daemon: Daemon, days: int = 14) -> None:
    identity_file.change(
        daemon.path, lambda site: announced(site, lambda count: b"n" * count, int(daemon.now), days)
    )


def test_a_command_is_followed(daemon: Daemon) -> None:
    site = daemon.site()
    first = site.fingerprint
    assert site.presented.statements == ()
    announce(daemon)
    site.look()
    assert site.fingerprint == first
    assert len(site.presented.statements) == 1
    assert site.as_json()["use_at"] == BEGAN + 14 * DAY
    identity_file.change(daemon.path, withdrawn)
    site.look()
    assert site.presented.statements == ()
    assert daemon.rung == []


def test_a_command_that_comes_while_another_is_followed_is_followed_too(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = daemon.site()
    announce(daemon)
    load = identity_file.load

    def overtaken(path: Path) -> identity_file.Kept | None:
        monkeypatch.undo()
        kept = load(path)
        identity_file.change(path, withdrawn)
        return kept

    monkeypatch.setattr(identity_file, "load", overtaken)
    site.look()
    assert len(site.presented.statements) == 1
    site.look()
    assert site.presented.statements == ()
    assert daemon.rung == []


def test_the_switch_is_made_on_its_day_and_written_down(daemon: Daemon) -> None:
    site = daemon.site()
    first = site.identity.key.public
    announce(daemon)
    daemon.now += 14 * DAY - 1
    site.look()
    assert site.identity.key.public == first
    daemon.now += 1
    site.look()
    second = site.identity.key.public
    said = read_statement(site.presented.statements[0])
    assert (said.old, said.new) == (first, second)
    kept = identity_file.load(daemon.path)
    assert kept is not None
    assert kept.site.key.public == second
    assert daemon.rung == []


def test_a_switch_that_came_while_nothing_ran_is_made_at_the_start(daemon: Daemon) -> None:
    first = daemon.site().fingerprint
    announce(daemon)
    daemon.now += 30 * DAY
    assert daemon.site().fingerprint != first


def test_the_statement_ends(daemon: Daemon) -> None:
    site = daemon.site()
    announce(daemon, 0)
    site.look()
    daemon.now += limits.STATEMENT_SHOWN_DAYS * DAY - 1
    assert len(site.presented.statements) == 1
    daemon.now += 1
    assert site.presented.statements == ()


@pytest.mark.parametrize("what", ["gone", "readable by others", "rubbish", "of another machine"])
def test_what_cannot_be_read_rings_and_the_identity_stays_in_use(
    known_machine: None, daemon: Daemon, what: str
) -> None:
    site = daemon.site()
    first = site.fingerprint
    assert site.trouble == ""
    if what == "gone":
        daemon.path.unlink()
    elif what == "readable by others":
        daemon.path.write_text(daemon.path.read_text() + "\n")
        daemon.path.chmod(0o644)
    elif what == "rubbish":
        daemon.path.write_text("rubbish")
    else:
        daemon.path.unlink()
        identity_file.load_or_make(daemon.path, machine=Machine("1" * 32, "2" * 32))
    assert str(daemon.path) in site.trouble, "so that no reload begins with another identity, or with none"
    site.look()
    assert site.fingerprint == first
    assert [reason for reason, _ in daemon.rung] == [Reason.IDENTITY_UNUSABLE]


def test_an_identity_of_another_machine_rings_at_the_start(known_machine: None, daemon: Daemon) -> None:
    other = identity_file.load_or_make(daemon.path, machine=Machine("1" * 32, "2" * 32))
    site = daemon.site()
    assert site.fingerprint != other.site.key.public.fingerprint
    ((reason, told),) = daemon.rung
    assert reason is Reason.IDENTITY_OF_ANOTHER_MACHINE
    assert site.fingerprint in told


def test_the_workers_are_told_of_what_is_new_and_of_nothing_else(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "IDENTITY_LOOK_SECONDS", 0.001)
    told: list[Presented] = []

    async def watched() -> None:
        site = daemon.site()
        heard = asyncio.Event()

        def changed(presented: Presented) -> None:
            told.append(presented)
            heard.set()

        keeping = asyncio.create_task(site.keep(changed))
        for days in (14, 0):
            heard.clear()
            if days:
                announce(daemon)
            else:
                daemon.now += 14 * DAY
            await asyncio.wait_for(heard.wait(), 5)
        keeping.cancel()

    asyncio.run(watched())
    assert [len(one.statements) for one in told] == [1, 1]
    assert told[0].identity != told[1].identity
    assert told[0].static != told[1].static


def test_what_is_presented_goes_over_the_link_and_shows_no_key() -> None:
    presented = Presented(b"i" * 32, b"s" * 32, 7, 21, b"e" * 64, (b"one", b"two"))
    assert Presented.from_json(presented.as_json()).as_json() == presented.as_json()
    assert presented.as_json()["static"] == "73" * 32
    assert "sss" not in repr(presented)
    assert "7373" not in repr(presented)
