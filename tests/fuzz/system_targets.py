"""What comes from the machine itself: the configuration file, packets of the queue, the file of the pins."""

from __future__ import annotations

import contextlib
import ipaddress
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from gateway.config import Config, load
from gateway.config_text import ConfigurationError
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept.syn import parse_syn
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.store import PinStore
from tests.fuzz.target import Cursor, Target

_CONFIG_SECONDS = 2.0
_PINS_SECONDS = 5.0


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """In memory where that can be had: a run makes hundreds of thousands."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="nightmail-fuzz-", dir=memory if memory.is_dir() else None
    ) as name:
        yield Path(name)


def configuration(octets: bytes) -> None:
    """A configuration, or an error of one printable line; nothing else, and in bounded time."""
    with _directory() as directory:
        path = directory / "nightmail.toml"
        path.write_bytes(octets)
        began = time.process_time()
        try:
            config = load(path)
        except ConfigurationError as error:
            text = str(error)
            assert text.isprintable() and text.startswith(str(path)), text
            assert len(text) < 2000
        else:
            assert isinstance(config, Config)
            assert 1 <= len(config.ports) <= 15 and config.state_dir.is_absolute()
        assert time.process_time() - began < _CONFIG_SECONDS


def syn(octets: bytes) -> None:
    """Addresses and ports that stand in the packet, or nothing."""
    flow = parse_syn(octets)
    if flow is None:
        return
    for address in (flow.source, flow.destination):
        parsed = ipaddress.ip_address(address)
        assert parsed.packed in octets and ipaddress.ip_address(str(parsed)) == parsed
    for port in (flow.source_port, flow.destination_port):
        assert port.to_bytes(2, "big") in octets
    assert flow.server == (flow.destination, flow.destination_port)


_DESTINATION = Destination("192.0.2.25", 25)
_PEER = MetPeer(bytes(range(32)), 20781, True)


@cache
def _file_of_pins() -> bytes:
    """A small store as this version writes it, its journal folded in."""
    with _directory() as directory:
        path = directory / "peers.db"
        with PinStore(path) as store:
            for number in range(3):
                store.remember(
                    Destination(f"192.0.2.{number}", 25), MetPeer(bytes(32), 20700, True), 1_795_000_000
                )
            store.note_failure(Destination("198.51.100.1", 25), 1_795_000_000)
        return path.read_bytes()


def _damaged(at: Cursor) -> bytes:
    """The file with some octets changed, cut off, or any octets in its place."""
    octets = bytearray(_file_of_pins())
    choice = at.u8()
    if choice & 1:
        del octets[at.u16() :]
    if choice & 2:
        return bytes(octets[: at.u8()]) + at.rest()
    while at.more:
        place, put = at.u16() % max(len(octets), 1), at.take(1 + at.u8() % 8)
        octets[place : place + len(put)] = put
    return bytes(octets)


def pins(octets: bytes) -> None:
    """A damaged file is used as far as it is whole, moved aside, or refused; soon, and never deleted."""
    damaged = _damaged(Cursor(octets))
    with _directory() as directory:
        path = directory / "peers.db"
        path.write_bytes(damaged)
        began = time.monotonic()
        with contextlib.suppress(EnvironmentFailureError), PinStore(path) as store:
            for work in (
                store.pins,
                lambda: store.lookup(_DESTINATION),
                lambda: store.remember(_DESTINATION, _PEER, 1_795_100_000),
                lambda: store.note_failure(Destination("198.51.100.2", 25), 1_795_100_000),
                lambda: store.resting_paths(1_795_100_000),
                lambda: store.forget(Destination("192.0.2.1", 25)),
            ):
                with contextlib.suppress(EnvironmentFailureError):
                    work()
            for fact in store.take_facts():
                assert fact.reason is Reason.PINS_UNREADABLE
        assert time.monotonic() - began < _PINS_SECONDS
        assert path.exists(), "never deleted, and made anew where it was moved aside"


TARGETS = (
    Target(
        "config",
        configuration,
        ("gateway.config",),
        words=(
            b"version = 1\n",
            b"[interfaces]\n",
            b'inside = ["eth1"]\n',
            b"[mail]\nports = ",
            b"[exceptions]\n",
            b'never = ["192.0.2.0/24"]\n',
            b"[marks]\nmask = 0x",
            b"[kernel]\ntable = ",
            b'[daemon]\nstate_dir = "/',
            b"[log]\nlevel = ",
            b"[alarms]\nagain_after_hours = ",
            b'"""',
            b"'''",
            b"1979-05-27T07:32:00Z",
            b"[[",
        ),
    ),
    Target(
        "syn",
        syn,
        ("gateway.intercept.syn",),
        most_octets=512,
        words=(b"\x45", b"\x60", b"\x06", b"\x2c", b"\x3c"),
    ),
    Target(
        "pins",
        pins,
        ("gateway.peers.store", "gateway.peers.database", "gateway.peers.schema"),
        words=(b"SQLite format 3\0", b"NmP1", b"CREATE TABLE identities"),
    ),
)
