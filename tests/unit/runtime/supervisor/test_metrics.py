"""Metrics over real sockets: what is served, what is refused, and that nobody who asks holds up the loop."""

import asyncio
import contextlib
import gc
import http.client
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.observe.counters import empty_snapshot
from gateway.observe.log import Log, LogSink
from gateway.policy import limits
from gateway.runtime.supervisor.metrics import Metrics
from gateway.runtime.supervisor.seeing import Seeing
from tests.unit.operator.fake_daemon import STATUS

PATIENCE = 60


class UnixConnection(http.client.HTTPConnection):
    """The standard library's client over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


def got(
    connection: http.client.HTTPConnection, method: str = "GET", path: str = "/metrics"
) -> tuple[int, bytes]:
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.getheader("Connection") == "close"
    connection.close()
    return answer.status, body


@contextlib.asynccontextmanager
async def served(
    listen: Path | tuple[str, int], status: Callable[[], dict[str, Any]] = lambda: STATUS
) -> AsyncIterator[Metrics]:
    """What raises while it answers rings in the daemon, whoever has asked; it does not here."""
    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: raised.append(context))
    metrics = Metrics(listen, status)
    await metrics.open()
    try:
        yield metrics
    finally:
        await metrics.close()
    gc.collect()  # a task whose exception nobody asks for tells of it with its end
    assert not raised


def run(work: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@pytest.mark.parametrize("place", ["unix", "127.0.0.1", "::1"])
def test_a_collector_gets_the_text(tmp_path: Path, place: str) -> None:
    path, port = tmp_path / "m.sock", free_port()
    client = UnixConnection(path) if place == "unix" else http.client.HTTPConnection(place, port, timeout=30)

    async def work() -> None:
        async with served(path if place == "unix" else (place, port)):
            code, body = await asyncio.to_thread(got, client)
            assert code == 200
            assert b"nightmail_protecting 1.0\n" in body
            if place == "unix":
                assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert not path.exists()

    run(work())


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    """A slip in the configuration costs nobody the identity of the site."""
    path = tmp_path / "identity"
    path.write_text("a key")

    async def work() -> None:
        with pytest.raises(EnvironmentFailureError, match=r"metrics\.listen: .*in use"):
            async with served(path):
                pass
        assert path.read_text() == "a key"
        async with served(tmp_path / "m.sock"):
            (tmp_path / "m.sock").unlink()
            path.rename(tmp_path / "m.sock")
        assert (tmp_path / "m.sock").read_text() == "a key"

    run(work())


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/metrics?x=1", 200),
        ("HEAD", "/metrics", 200),
        ("GET", "/", 404),
        ("POST", "/metrics", 405),
        ("HEAD", "/", 404),
        ("CONNECT", "a:25", 405),
    ],
)
def test_what_is_asked_for_otherwise(tmp_path: Path, method: str, path: str, code: int) -> None:
    async def work() -> None:
        async with served(tmp_path / "m.sock"):
            answer, body = await asyncio.to_thread(got, UnixConnection(tmp_path / "m.sock"), method, path)
            assert answer == code
            assert (method == "HEAD") == (body == b"")

    run(work())


def exchanged(path: Path, octets: bytes) -> bytes:
    """Say this, and nothing more; all that comes back until the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(30)
        asking.connect(str(path))
        with contextlib.suppress(OSError):
            asking.sendall(octets)
            asking.shutdown(socket.SHUT_WR)
        pieces = []
        with contextlib.suppress(OSError):
            while piece := asking.recv(65536):
                pieces.append(piece)
        return b"".join(pieces)


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        (b"", b""),
        (b"\x16\x03\x01\x02\x00", b"HTTP/1.1 400 "),
        (b"GET /metrics\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000, b"HTTP/1.1 431 "),
        (b"GET /metrics HTTP/1.1\r\nHo", b""),
        (
            b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\nGET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
            b"HTTP/1.1 200 ",
        ),
    ],
)
def test_nonsense_gets_an_end_and_the_next_one_its_text(tmp_path: Path, said: bytes, begins: bytes) -> None:
    path = tmp_path / "m.sock"

    async def work() -> None:
        async with served(path):
            answer = await asyncio.to_thread(exchanged, path, said)
            assert answer.startswith(begins), answer[:100]
            assert answer.count(b"HTTP/1.1 ") == (1 if answer else 0)
            assert (await asyncio.to_thread(got, UnixConnection(path)))[0] == 200

    run(work())


def test_who_asks_and_stays_silent_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METRICS_SECONDS", 0.3)
    path = tmp_path / "m.sock"

    async def work() -> None:
        async with served(path), asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(str(path))
            assert await reader.read() == b""
            writer.close()
            monkeypatch.setattr(limits, "METRICS_SECONDS", PATIENCE)  # who speaks has time on a busy machine
            assert (await asyncio.to_thread(got, UnixConnection(path)))[0] == 200

    run(work())


def test_too_many_who_ask_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METRICS_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr(limits, "METRICS_CONNECTIONS", 3)
    path = tmp_path / "m.sock"

    async def work() -> None:
        async with served(path), asyncio.timeout(PATIENCE):
            silent = [await asyncio.open_unix_connection(str(path)) for _ in range(3)]
            reader, writer = await asyncio.open_unix_connection(str(path))
            assert await reader.read() == b"", "the fourth is closed at once"
            writer.close()
            for reader, writer in silent:
                writer.write_eof()
                assert await reader.read() == b""
                writer.close()
            assert (await asyncio.to_thread(got, UnixConnection(path)))[0] == 200

    run(work())


def test_the_text_is_made_so_often_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    path = tmp_path / "m.sock"
    monkeypatch.setattr(limits, "METRICS_EVERY_SECONDS", 3600.0)

    def status() -> dict[str, Any]:
        asked.append(None)
        return STATUS

    async def work() -> None:
        async with served(path, status) as metrics:
            for _ in range(5):
                assert (await asyncio.to_thread(got, UnixConnection(path)))[0] == 200
            assert len(asked) == 1
            metrics._made_at -= limits.METRICS_EVERY_SECONDS
            await asyncio.to_thread(got, UnixConnection(path))
            assert len(asked) == 2

    run(work())


def test_a_socket_left_by_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    left_over = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left_over.bind(str(path))
    left_over.close()

    async def work() -> None:
        async with served(path):
            assert (await asyncio.to_thread(got, UnixConnection(path)))[0] == 200

    run(work())


def test_where_it_cannot_listen_is_one_line(tmp_path: Path) -> None:
    async def work() -> None:
        with pytest.raises(EnvironmentFailureError, match=r"^metrics\.listen: No such file or directory$"):
            await Metrics(tmp_path / "none" / "m.sock", lambda: STATUS).open()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(EnvironmentFailureError, match=r"^metrics\.listen: .*in use"):
                await Metrics(("127.0.0.1", taken.getsockname()[1]), lambda: STATUS).open()

    run(work())


@pytest.mark.parametrize("listen", [None, "bad", "good"])
def test_the_daemon_serves_metrics_where_asked_and_lives_without(tmp_path: Path, listen: str | None) -> None:
    path = {None: None, "bad": tmp_path / "none" / "m.sock", "good": tmp_path / "m.sock"}[listen]
    log = Log(LogSink.to_file(tmp_path / "log"))

    async def work() -> None:
        config = Config(metrics_listen=path)
        seeing = Seeing(config, log, lambda: STATUS, empty_snapshot, lambda: None, print)
        seeing.begin()
        await seeing.open()
        if listen == "good":
            assert path is not None
            assert (await asyncio.to_thread(got, UnixConnection(path)))[0] == 200
        await seeing.close()

    run(work())
    log.close()
    told = (tmp_path / "log").read_text()
    assert ("error metrics not-served" in told) == (listen == "bad")
