"""What strangers and workers say reaches the operator's terminal as letters, never as a command to it."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from gateway.cli import nightmail, screen
from gateway.cli.shell import shown
from gateway.operator.watching import Moment
from gateway.peers.database import Database
from gateway.peers.look_store import LookStore
from gateway.peers.looks import Look
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.source_store import SourceStore
from gateway.peers.sources import Sender, Source
from gateway.peers.store import PinStore
from gateway.policy import limits
from tests.unit.operator.fake_daemon import STATUS, daemon

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\nalarm: none\x00\x7f"
AT = Destination("192.0.2.25", 25)
CLIENT = "198.51.100.7"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A memory whose every word a stranger has chosen."""
    state = tmp_path / "state"
    state.mkdir(0o700)
    file = tmp_path / "nightmail.toml"
    file.write_text(f'[daemon]\nstate_dir = "{state}"\nrun_dir = "{tmp_path / "run"}"\n')
    now = int(time.time())
    database = Database(state / "peers.db")
    PinStore(database).remember(AT, MetPeer(b"\x05" * 32, now // limits.DAY_SECONDS, True), now)
    LookStore(database).learn(AT, Look(EVIL.encode("utf-8"), (EVIL.encode("utf-8"),)), now)
    today = now // limits.DAY_SECONDS
    source = Source(CLIENT, upgraded_day=today, name=EVIL.encode("utf-8"), seen_day=today)
    SourceStore(database).put([source], [Sender(b"\x06" * 32, today, today)], today)
    database.close()
    return file


def said(configuration: Path, *words: str) -> str:
    result = CliRunner().invoke(nightmail, ["--config", str(configuration), *words])
    assert result.exit_code in (0, 1), result.output
    return result.output


def harmless(text: str) -> bool:
    return all(character.isprintable() for character in text.replace("\n", ""))


@pytest.mark.parametrize(
    "words",
    [
        ("peers", "list"),
        ("peers", "show", AT.address),
        ("peers", "history", AT.address),
        ("peers", "sources"),
        ("explain", AT.address),
        ("explain", CLIENT),
    ],
    ids=" ".join,
)
def test_what_is_remembered_of_strangers_moves_no_cursor(configuration: Path, words: tuple[str, ...]) -> None:
    told = said(configuration, *words)
    assert harmless(told)
    assert "\nalarm: none" not in told


def test_words_of_a_worker_in_status_are_letters(configuration: Path) -> None:
    alarm = {"reason": "internal", "subject": EVIL, "detail": EVIL, "at": 0, "unheard": 0, "likely": EVIL}
    with daemon(
        configuration.parent / "run" / "control.sock", {**STATUS, "alarms": [alarm], "version": EVIL}
    ):
        told = said(configuration, "status")
    assert "internal" in told
    assert harmless(told)
    assert "\nalarm: none" not in told


def test_words_of_a_worker_on_the_live_screen_are_letters() -> None:
    """rich, which draws it, would pass an escape on."""
    alarm = {"reason": "internal", "subject": EVIL, "detail": EVIL, "at": 0, "unheard": 0}
    status = {**STATUS, "alarms": [alarm], "wanted": "up"}
    moment = Moment(wall=0.0, running=True, status=status)
    drawn = Console(width=200, force_terminal=False, file=io.StringIO())
    drawn.print(screen.drawn(moment))
    text = drawn.file.getvalue()  # type: ignore[attr-defined]
    assert "internal" in text
    assert harmless(text)


def test_a_line_is_bounded() -> None:
    assert len(shown("x" * 10_000_000)) == limits.LOG_LINE_OCTETS + 3
    assert len(shown("\x1b" * 10_000_000)) <= 10 * limits.LOG_LINE_OCTETS
    assert shown("Zürich 25 → 10") == "Zürich 25 → 10"
