"""From which ports a gateway on the mail server itself dials it, and how long it looks for one."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import closing
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.intercept import tproxy
from gateway.intercept.marks import MarkBits
from gateway.intercept.syn import Flow
from gateway.policy import limits
from gateway.runtime.worker.dials import Dials
from gateway.runtime.worker.poller import Poller

FLOW = Flow("192.0.2.1", 40_000, "198.51.100.7", 25)


@pytest.mark.parametrize("by", ["clients", "other sockets"])
def test_where_every_port_is_taken_the_kernel_chooses(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """After some tries: whoever has many connections from one address must not have us look for ever."""
    tried: list[int] = []
    ours, theirs = socket.socketpair()

    def is_port_taken(flow: Flow) -> bool:
        if by == "clients":
            tried.append(flow.source_port)
        assert len(tried) <= limits.SPARE_PORT_TRIES, "looks on"
        return by == "clients"

    def dial(flow: Flow, marks: MarkBits, *, from_port: int | None = None) -> socket.socket:
        if from_port == tproxy.ANY_PORT:
            return ours
        tried.append(from_port or 0)
        raise tproxy.NotDialledError(errno.EADDRINUSE, "taken")

    monkeypatch.setattr(tproxy, "dial", dial)
    loop = asyncio.new_event_loop()
    with closing(loop), closing(Poller(loop)) as poller, theirs:
        asker = cast("Any", SimpleNamespace(is_port_taken=is_port_taken))
        dials = Dials(loop, poller, MarkBits(0xFF000000), asker, keeps_port=False)
        dials.dial_to_this_machine(FLOW, lambda *_: None)
        assert dials.flows() == [FLOW]
        dials.drop(FLOW)
    last = limits.FIRST_SPARE_PORT + limits.SPARE_PORTS
    assert len(set(tried)) == len(tried) == limits.SPARE_PORT_TRIES
    assert all(limits.FIRST_SPARE_PORT <= port < last for port in tried)
