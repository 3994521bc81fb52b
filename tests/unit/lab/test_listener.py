"""The listener's command line and its way of knowing that it has seen everything."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.lab import listener
from gateway.lab.listener import Listener


@pytest.fixture
def one(tmp_path: Path) -> Listener:
    made = Listener("nmu-wire", tmp_path / "wire.pcap", tmp_path / "listener.pid", tmp_path / "listener.log")
    made.pcap.touch()
    return made


def test_a_token_is_found_over_the_border_of_two_looks(one: Listener) -> None:
    token = os.urandom(listener.TOKEN_OCTETS)
    one.pcap.write_bytes(b"x" * 100 + token[:7])
    found, offset = listener._look(one.pcap, 0, [token])
    assert not found
    with one.pcap.open("ab") as file:
        file.write(token[7:] + b"more")
    assert listener._look(one.pcap, offset, [b"other" * 4, token])[0]
    assert not listener._look(one.pcap, offset, [os.urandom(listener.TOKEN_OCTETS)])[0]


def test_waiting_for_octets(one: Listener) -> None:
    one.pcap.write_bytes(b"before")

    def write() -> None:
        with one.pcap.open("ab") as file:
            for _ in range(10):
                file.write(b"x" * 10)
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    listener.wait_size(one, 56, 10)
    writer.join()
    with pytest.raises(EnvironmentFailureError, match="not 1,000 octets on the wire"):
        listener.wait_size(one, 1_000, 0.01)
