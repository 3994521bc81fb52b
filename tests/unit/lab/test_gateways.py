"""The daemon's configuration as the lab writes it, and its answers as the lab reads them."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Placement, load
from gateway.lab import gateways
from gateway.lab.gateways import Gateway
from gateway.lab.topology import load as load_topology

WORKERS = [{"state": "serving", "queue": 1}, {"state": "serving", "queue": 2}]
SERVING = {"wanted": "up", "workers": WORKERS, "rules": {"missing": [], "queues": [1, 2]}}


@pytest.fixture
def one(tmp_path: Path) -> Gateway:
    made = Gateway(load_topology().nodes["gw-a"], "nmu-gw-a", tmp_path)
    gateways.prepare(made)
    return made


def test_the_configuration_is_one_that_the_daemon_takes(one: Gateway) -> None:
    config = load(one.configuration)
    assert (config.inside, config.outside) == (("inside",), ("outside",))
    assert config.control_socket == one.control_socket
    assert config.state_dir.is_relative_to(one.folder)


@pytest.mark.parametrize("placement", gateways.INTERFACES)
def test_so_it_is_for_every_placement(tmp_path: Path, placement: Placement) -> None:
    made = Gateway(load_topology().nodes["gw-a"], "nmu-gw-a", tmp_path, placement=placement)
    gateways.prepare(made)
    assert load(made.configuration).placement is placement


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (SERVING, True),
        ({}, False),
        ({**SERVING, "rules": {"missing": ["x"], "queues": [1, 2]}}, False),
        ({**SERVING, "rules": {"missing": [], "queues": [1]}}, False),
        ({**SERVING, "wanted": "down", "rules": {"missing": [], "queues": []}}, True),
        ({**SERVING, "workers": []}, False),
        (
            {**SERVING, "workers": [{"state": "serving", "queue": 1}, {"state": "starting", "queue": 2}]},
            False,
        ),
    ],
)
def test_what_serving_means(status: dict[str, Any], wanted: bool) -> None:
    assert gateways.serves(status) is wanted


def answer_once(one: Gateway, octets: bytes) -> threading.Thread:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(one.control_socket))
    server.listen(1)

    def serve() -> None:
        with server, server.accept()[0] as asking:
            assert asking.recv(100) == b"status\n"
            asking.sendall(octets)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_asking(one: Gateway) -> None:
    assert gateways.ask(one) is None
    thread = answer_once(one, json.dumps(SERVING).encode())
    assert gateways.ask(one) == SERVING
    thread.join()
    # The socket of a dead daemon: nobody listens.
    assert gateways.ask(one) is None


def test_an_answer_that_is_none(one: Gateway) -> None:
    thread = answer_once(one, b"[1, 2")
    assert gateways.ask(one) is None
    thread.join()


def test_last_words(one: Gateway) -> None:
    assert "said nothing" in gateways.last_words(one)
    one.log.write_text("first\nlast\n")
    assert gateways.last_words(one) == "last"


def test_the_last_words_of_a_gateway_whose_worker_dies_are_what_it_died_of(one: Gateway) -> None:
    one.log.write_text(
        'first\nTraceback (most recent call last):\n  File "a.py", line 1\nKeyError: 1\nlast\n'
    )
    assert gateways.last_words(one) == "KeyError: 1"
