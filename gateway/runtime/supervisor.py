"""The daemon's first process: identity, memory, rules, workers, control socket. Never on the data path.

When it ends in order it leaves the rules (they act on nothing without workers) and the workers' sessions have
ended; when it is killed, the workers give their queues back and end by themselves.
Counterparts: `pool`, `rulekeeper`, `control`, `worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from gateway import __version__
from gateway.config import Config
from gateway.crypto.keys import IdentityKey
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept import kernel, ruleset
from gateway.intercept.wanted import Wanted
from gateway.observe.counters import AlarmBell, Tally
from gateway.observe.log import Level, Log, LogSink, to_stderr
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.store import PinStore
from gateway.policy import limits
from gateway.runtime import identity_file
from gateway.runtime.control import ControlSocket
from gateway.runtime.link import Message
from gateway.runtime.pool import Pool
from gateway.runtime.rulekeeper import RuleKeeper


class Supervisor:
    """One daemon. `run` returns when it was told to stop."""

    def __init__(self, config: Config) -> None:
        self._config = replace(config, inside_networks=kernel.inside_networks(config))
        sink = LogSink.to_file(config.log_file) if config.log_file else to_stderr()
        self._log = Log(sink, least=Level(config.log_level), clock=time.time)
        self._bell = AlarmBell(config.alarm_again_hours * limits.HOUR_SECONDS)
        self._stop = asyncio.Event()
        self._store: PinStore | None = None
        self._peers = 0
        self._began = time.time()

    async def run(self) -> None:
        config = self._config
        for directory in (config.state_dir, config.run_dir):
            _make_directory(directory)
        control = ControlSocket(config.control_socket, self._status)
        control.require_free()
        seed = identity_file.load_or_make(config.identity_file)
        self._identity = IdentityKey.from_seed(seed).public
        self._open_store()
        slots = ruleset.slots_of(config)
        self._pool = Pool(
            config, slots, seed, self._log, lambda: self._keeper.gate_changed(), self._told, self._alarm
        )
        self._keeper = RuleKeeper(
            config, slots, lambda: self._pool.live_queues, self._not_ours, self._log, self._alarm
        )
        await self._keeper.first_time()
        await self._pool.start()
        await control.open()
        keeping = asyncio.create_task(self._keeper.keep())
        flushing = asyncio.create_task(self._flush_log())
        self._log.fact("daemon", "started", version=__version__, identity=self._identity.fingerprint)
        _tell_systemd("READY=1")
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        await self._stop.wait()
        _tell_systemd("STOPPING=1")
        self._log.fact("daemon", "stopping", reason=Reason.STOPPED)
        for task in (keeping, flushing):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._keeper.close()
        await self._pool.stop()
        await control.close()
        self._log.fact("daemon", "stopped", reason=Reason.STOPPED)
        self._log.close()

    # --- Memory of peers --------------------------------------------------------------------------------

    def _open_store(self) -> None:
        try:
            self._store = PinStore(self._config.pins_file)
            self._peers = len(self._store.pins())
        except EnvironmentFailureError as error:
            self._store = None
            self._alarm(Reason.PINS_UNREADABLE, "peers", str(error))
        self._ring_store_facts()

    def _ring_store_facts(self) -> None:
        for fact in self._store.take_facts() if self._store is not None else []:
            self._alarm(fact.reason, "peers", fact.detail)

    def _remember(self, peer: dict[str, Any]) -> None:
        """Written here and nowhere else. Trouble with the disk is an alarm; the session has its channel."""
        if self._store is None:
            self._open_store()
        if self._store is None:
            return
        met = MetPeer(bytes.fromhex(peer["identity"]), peer["epoch"], peer["full"])
        try:
            self._store.remember(Destination(peer["address"], peer["port"]), met, int(time.time()))
            self._peers = len(self._store.pins()) if peer.get("new") else self._peers
        except EnvironmentFailureError as error:
            self._alarm(Reason.PINS_UNWRITABLE, "peers", str(error))
        self._ring_store_facts()

    def _note_failure(self, path: dict[str, Any]) -> None:
        if self._store is None:
            return
        destination = Destination(path["address"], path["port"])
        try:
            failures = self._store.note_failure(destination, int(time.time()))
        except EnvironmentFailureError as error:
            self._alarm(Reason.PINS_UNWRITABLE, "peers", str(error))
            return
        if failures.rest_until:
            until = failures.rest_until - int(time.time())
            self._log.fact(
                "peers", "rests", reason=Reason.RECENTLY_FAILED, to=str(destination), seconds=until
            )

    # --- Messages, alarms, status -----------------------------------------------------------------------

    def _told(self, message: Message) -> None:
        if "remember" in message:
            self._remember(message["remember"])
        elif "failure" in message:
            self._note_failure(message["failure"])
        elif "alarm" in message:
            alarm = message["alarm"]
            self._alarm(Reason(alarm["reason"]), alarm["subject"], alarm["detail"])

    def _alarm(self, reason: Reason, subject: str, detail: str) -> None:
        now = int(time.time())
        if reason is Reason.OFFER_MISSING:
            rung = self._bell.missing(subject, now)
        else:
            one = self._bell.ring(reason, subject, now, detail)
            rung = [one] if one is not None else []
        for alarm in rung:
            self._log.fact(
                "alarm",
                "rings",
                level=Level.ALARM,
                reason=alarm.reason,
                subject=alarm.subject,
                detail=alarm.detail or detail,
            )

    def _not_ours(self) -> int:
        tallies = self._pool.counters()["tallies"]
        passed: int = tallies.get(Tally.NOT_OURS.value, 0)
        return passed

    def _status(self) -> dict[str, Any]:
        keeper = self._keeper
        return {
            "version": __version__,
            "since": int(self._began),
            "identity": self._identity.fingerprint,
            "wanted": keeper.wanted.value,
            "rules": {
                "missing": keeper.missing if keeper.wanted is Wanted.UP else [],
                "queues": keeper.queues,
            },
            "workers": [worker.as_json() for worker in self._pool.workers],
            "counters": self._pool.counters(),
            "peers": self._peers,
            "bypassed": keeper.bypassed,
            "alarms": [alarm.as_json() for alarm in self._bell.known(int(time.time()))],
        }

    async def _flush_log(self) -> None:
        while True:
            self._log.flush()
            await asyncio.sleep(limits.LOG_FLUSH_SECONDS)


def run(config: Config) -> int:
    """`nightmail run`, until SIGTERM or SIGINT; takes a resolved configuration.

    Raises EnvironmentFailureError where it cannot start.
    """
    os.umask(0o077)

    async def supervised() -> None:
        await Supervisor(config).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(supervised())
    return 0


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailureError(f"{path}: cannot be made: {error.strerror}") from None


def _tell_systemd(word: str) -> None:
    """sd_notify(3): one datagram to where systemd says; without systemd, nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect("\0" + address[1:] if address.startswith("@") else address)
        notify.send(word.encode())
