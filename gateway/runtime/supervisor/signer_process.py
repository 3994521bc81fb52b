"""The signer as the supervisor sees it: started, told the identity, started again when it ends, or hangs.

Holds both ends of every worker's socket pair to it, so that a new worker and a new signer find what the one
before them left, and no question is lost; a pair that a worker in other hands has shut is made anew. A signer
lives as long as anybody can ask it: after a reload the old one serves the workers of its own generation.
Counterparts: `signer` (the process), `pool` (gives workers their ends).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
from collections.abc import Callable, Iterable
from typing import Any

from gateway.errors import Reason
from gateway.observe.log import Level, Log
from gateway.policy import limits
from gateway.runtime.hardening import Confinement
from gateway.runtime.link import Link, Message
from gateway.runtime.supervisor.child import Child


class SignerProcess:
    """`start` once; `sign_as` whenever the identity changes, before the workers are told of it.

    `old` are the signers of earlier generations, which end by themselves.
    """

    def __init__(
        self,
        confinement: Confinement,
        slots: Iterable[int],
        seed: bytes,
        log: Log,
        alarm: Callable[[Reason, str, str], None],
        serves: Callable[[], None],
        old: Iterable[int] = (),
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._confinement = confinement
        self._seed = seed
        self._log = log
        self._alarm = alarm
        self._serves = serves
        self._stopping = False
        self._pairs = {slot: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for slot in slots}
        self._process: Child | None = None
        self._link: Link | None = None
        self._restarts = 0
        self._rest_seconds = limits.RESTART_SECONDS
        self._started_at = 0.0
        self._heard_at = self._looked_at = self._loop.time()
        self._is_ready = self._hangs = False
        self._past = {"signed": 0, "refused": 0}
        self._counts = dict(self._past)
        self._layers: list[str] = []
        self._old: dict[int, Child] = {}
        for pid in old:
            with contextlib.suppress(OSError):  # it has ended, and somebody has waited for it
                self._old[pid] = Child(self._loop, pid, lambda status, pid=pid: self._forget(pid))  # type: ignore[misc]

    def start(self) -> None:
        """As soon as there is a process to be had."""
        self._begin()
        self._watch()

    def _watch(self) -> None:
        """Now, and from now on. No silence counts that this process may itself have slept through."""
        now = self._loop.time()
        slept = now - self._looked_at > 2 * limits.COUNTERS_EVERY_SECONDS
        self._looked_at = now
        if self._stopping:
            return
        self._loop.call_later(limits.COUNTERS_EVERY_SECONDS, self._watch)
        if not slept and self._process is not None and not self._process.has_ended:
            self._judge(self._process, now - self._heard_at)

    def _judge(self, process: Child, silent: float) -> None:
        """It says something every second, once it is ready."""
        if self._is_ready and silent > limits.SIGNER_HUNG_AFTER_SECONDS and not self._hangs:
            self._hangs = True
            self._alarm(Reason.SIGNER_SILENT, "signer", f"hangs, silent={silent:.1f}")
        if silent > (limits.KILL_HUNG_AFTER_SECONDS if self._is_ready else limits.START_SECONDS):
            self._log.fact("signer", "kill-hung", level=Level.ERROR)
            process.kill()

    def _begin(self) -> None:
        try:
            self._spawn()
        except OSError as error:
            self._log.fact("signer", "cannot-start", level=Level.ERROR, detail=error.strerror)
            self._ended(-1)

    def _spawn(self) -> None:
        """Raises OSError where no process is to be had."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inherited = [theirs.fileno(), *(signers.fileno() for _, signers in self._pairs.values())]
        words = [json.dumps(self._confinement.as_json()), *map(str, inherited)]
        try:
            self._process = Child.start(self._loop, "gateway.runtime.signer", words, inherited, self._ended)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._started_at = self._heard_at = self._loop.time()
        self._is_ready = self._hangs = False
        self._link = Link(self._loop, ours, self._told, lambda: None)

    def worker_end(self, slot: int) -> int:
        """The descriptor that the worker of this slot is to inherit. Raises OSError where none is left."""
        if any(map(_is_shut, self._pairs[slot])):
            shut = self._pairs[slot]
            self._pairs[slot] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in shut:
                end.close()
            if self._process is not None:  # it knows those only that were there when it began
                self._process.kill()
        return self._pairs[slot][0].fileno()

    def sign_as(self, seed: bytes) -> None:
        self._seed = seed
        self._tell_who()

    def pids(self) -> tuple[int, ...]:
        """Of all that live, for the next supervisor."""
        living = () if self._process is None or self._process.has_ended else (self._process.pid,)
        return (*living, *self._old)

    def as_json(self) -> dict[str, Any]:
        living = self._process is not None and not self._process.has_ended
        return {
            "pid": self._process.pid if living and self._process is not None else None,
            "serves": living and self._is_ready and not self._hangs,
            "hangs": self._hangs,
            "restarts": self._restarts,
            "confined": self._layers,
            **{name: self._past[name] + self._counts[name] for name in self._past},
        }

    async def stop(self) -> None:
        """When no worker is left who could ask."""
        self._stopping = True
        children = [self._process, *self._old.values()]
        for worker, signer in self._pairs.values():
            worker.close()
            signer.close()
        if self._link is not None:
            self._link.close()
        for child in children:
            if child is not None:
                child.kill()
                await child.wait()

    def _tell_who(self) -> None:
        if self._link is not None:
            self._link.send({"seed": self._seed.hex()})

    def _told(self, message: Message) -> None:
        self._heard_at, self._hangs = self._loop.time(), False
        if "ready" in message:
            self._is_ready = True
            self._layers = message["layers"]
            self._log.fact("signer", "serves", pid=message["ready"])
            if trouble := message.get("trouble"):
                self._alarm(Reason.LIBRARY_UNUSABLE, "library", trouble)
            self._tell_who()
            self._serves()
        else:
            self._counts = {name: message[name] for name in self._counts}

    def _ended(self, status: int) -> None:
        if self._link is not None:
            self._link.close()
        self._past = {name: self._past[name] + self._counts[name] for name in self._past}
        self._counts = dict.fromkeys(self._counts, 0)
        if self._stopping:
            return
        self._alarm(Reason.SIGNER_SILENT, "signer", f"ended, status={status}; it starts again")
        if self._loop.time() - self._started_at >= limits.STABLE_SECONDS:
            self._rest_seconds = limits.RESTART_SECONDS
        self._loop.call_later(self._rest_seconds, self._start_again)
        self._rest_seconds = min(2 * self._rest_seconds, limits.RESTART_MOST_SECONDS)

    def _start_again(self) -> None:
        if self._stopping:
            return
        self._restarts += 1
        self._begin()

    def _forget(self, pid: int) -> None:
        self._old.pop(pid, None)


def _is_shut(end: socket.socket) -> bool:
    """In one direction at least: nothing else ends a pair of which both ends are held here."""
    poll = select.poll()
    poll.register(end, select.POLLRDHUP)
    return bool(poll.poll(0))
