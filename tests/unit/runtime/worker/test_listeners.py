"""How many clients a listener takes in one turn of the loop."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

from gateway.intercept.syn import Flow
from gateway.policy import limits
from gateway.runtime.worker.listeners import Listeners


def test_whoever_stands_in_the_row_leaves_sessions_their_turn() -> None:
    """However many they are: the others wait for the next turn."""
    came: list[Flow] = []
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=limits.LISTEN_BACKLOG))

        def client_came(flow: Flow, accepted: socket.socket) -> None:
            came.append(flow)
            accepted.close()

        taker = SimpleNamespace(client_came=client_came, cramped=lambda: False)
        loop = SimpleNamespace(add_reader=lambda *_: None)
        listeners = Listeners(cast("Any", loop), [listener], cast("Any", taker))
        for _ in range(limits.ACCEPTS_PER_TURN + 3):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        listeners._accept(listener)
        assert len(came) == limits.ACCEPTS_PER_TURN
        listeners._accept(listener)
        assert len(came) == limits.ACCEPTS_PER_TURN + 3
