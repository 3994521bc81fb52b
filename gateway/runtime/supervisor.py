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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import uvloop

from gateway import __version__
from gateway.config import Config, Network
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept import kernel, ruleset, tproxy
from gateway.intercept.wanted import Wanted
from gateway.observe import sinks
from gateway.observe.counters import AlarmBell, Tally
from gateway.observe.log import Level
from gateway.peers.database import Database
from gateway.peers.history import Happening
from gateway.peers.look_store import LookStore
from gateway.peers.looks import Look
from gateway.peers.pins import Destination, MetPeer, MetStatement
from gateway.peers.source_store import SourceStore
from gateway.peers.store import PinStore
from gateway.policy import limits
from gateway.policy.own_path import OwnPath
from gateway.runtime import confinements, handover, hardening, preflight
from gateway.runtime.causes import Causes
from gateway.runtime.control import ControlSocket
from gateway.runtime.dead_ends import DeadEnds
from gateway.runtime.link import Message, told_destination
from gateway.runtime.order import Presented
from gateway.runtime.pool import Pool
from gateway.runtime.rulekeeper import RuleKeeper
from gateway.runtime.seeing import Seeing
from gateway.runtime.signer_process import SignerProcess
from gateway.runtime.site import Site
from gateway.runtime.sources import SourceMemory


class Supervisor:
    """One daemon. `run` returns when it was told to stop."""

    def __init__(self, config: Config) -> None:
        self._asked = config
        self._config = replace(config, inside_networks=kernel.inside_networks(config))
        self._confinements = confinements.of(self._config)
        self._log = sinks.opened(config, config.log_file)
        self._bell = AlarmBell(config.alarm_again_hours * limits.HOUR_SECONDS)
        self._own_path = OwnPath()
        self._stop = asyncio.Event()
        self._store: PinStore | None = None
        self._looks: LookStore | None = None
        self._source_store: SourceStore | None = None
        self._sources = SourceMemory(lambda: self._source_store, self._log, self._unwritable)
        self._seeing = Seeing(
            config,
            self._log,
            self._status,
            lambda: self._pool.counters(),
            lambda: self._store.database if self._store is not None else None,
            self._unwritable,
        )
        self._peers = 0
        self._heritage = handover.received()
        """What the supervisor that this process was before has left; None at a first start."""
        self._began = self._heritage.began if self._heritage is not None else time.time()
        self._anew = False

    async def run(self) -> None:
        config, heritage = self._config, self._heritage
        for directory in (config.state_dir, config.run_dir):
            _make_directory(directory)
        confinements.share(config.state_dir, self._confinements.readers)
        control = ControlSocket(config.control_socket, self._status, self._reload)
        control.require_free()
        if heritage is not None:
            self._bell.recall(heritage.alarms)
        self._site = Site(config, self._log, self._alarm)
        self._open_store()
        heirs = heritage.workers if heritage is not None else ()
        # Workers whose supervisor was killed finish their sessions, beside those of this one.
        taken = {slot.index for slot in ruleset.all_slots(config) if tproxy.is_in_use(slot.port)}
        taken |= {heir.index for heir in heirs}
        slots = ruleset.slots_of(config, ruleset.free_slot(config.workers, taken))
        self._signer = SignerProcess(
            self._confinements.signer,
            # An heir that dies before its successors lead is started again, too.
            [*(slot.index for slot in slots), *(heir.index for heir in heirs)],
            self._site.seed,
            self._log,
            self._alarm,
            lambda: self._pool.signer_serves(),
            heritage.signers if heritage is not None else (),
        )
        self._pool = Pool(
            config,
            slots,
            self._site.presented,
            self._confinements.worker,
            self._signer.worker_end,
            self._log,
            lambda: self._keeper.gate_changed(),
            self._told,
            self._alarm,
            heirs,
            heritage.past if heritage is not None else None,
        )
        self._keeper = RuleKeeper(
            config,
            ruleset.slots_to_render(config, self._pool.slots),
            lambda: self._pool.live_queues,
            self._not_ours,
            self._log,
            self._alarm,
            self._pool.gate_is,
            heritage.bypassed if heritage is not None else 0,
        )
        self._seeing.begin()
        self._dead_ends = DeadEnds(
            config.dead_end_minutes if self._keeper.knows_dead_ends else 0,
            self._keeper.while_standing,
            self._pool.note_passed_to_dead_ends,
            self._log,
        )
        self._causes = Causes(self._keeper.reset_was_odd, self._log, self._remember_trouble)
        await self._keeper.first_time(heritage.rules if heritage is not None else None)
        self._signer.start()
        self._pool.start()
        await control.open()
        await self._seeing.open()
        keeping = asyncio.create_task(self._keeper.keep())
        sparing = asyncio.create_task(self._dead_ends.keep())
        flushing = asyncio.create_task(self._flush_log())
        writing = asyncio.create_task(self._write_sources())
        presenting = asyncio.create_task(self._site.keep(self._present))
        looking = asyncio.create_task(self._keep_inside())
        event = "started" if heritage is None else "reloaded"
        self._log.fact("daemon", event, version=__version__, identity=self._site.fingerprint)
        readying = asyncio.create_task(self._tell_ready())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hung_up)
        await self._stop.wait()
        if not self._anew:
            _tell_systemd("STOPPING=1")
            self._log.fact("daemon", "stopping", reason=Reason.STOPPED)
        for task in (readying, sparing, keeping, flushing, writing, presenting, looking):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._seeing.close()
        if self._anew:
            await self._become_the_next(control)
        await self._keeper.close()
        await self._pool.stop()
        await self._signer.stop()
        self._sources.write()
        self._seeing.look()
        await control.close()
        self._log.fact("daemon", "stopped", reason=Reason.STOPPED)
        self._log.close()

    # --- Reload ------------------------------------------------------------------------------------------

    async def _tell_ready(self) -> None:
        """What is started behind us may send mail: by then it is looked at, if the rules are wanted."""
        if self._keeper.wanted is Wanted.UP:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.READY_SECONDS):
                    await self._keeper.guarded.wait()
        _tell_systemd("READY=1")

    def _hung_up(self) -> None:
        self._reloading = asyncio.ensure_future(self._reload())

    async def _reload(self) -> dict[str, Any]:
        """Load program and configuration anew, if they are fit; says why not, and changes nothing."""
        trouble = await preflight.trouble(self._config, self._pool.slots)
        if trouble:
            self._alarm(Reason.RELOAD_REFUSED, "reload", trouble)
        elif not self._stop.is_set():
            self._anew = True
            self._stop.set()
        return {"reloads": not trouble, "trouble": trouble}

    async def _become_the_next(self, control: ControlSocket) -> None:
        """The workers live on; everything else begins again. Raises EnvironmentFailureError."""
        self._keeper.leave()
        self._sources.write()
        await control.close()
        self._seeing.look()
        workers, past = self._pool.hand_over()
        self._log.fact("daemon", "reloads", workers=len(workers))
        self._log.close()
        keeper = self._keeper
        alarms = self._bell.remembered()
        signers = self._signer.pids()
        handover.execute_anew(
            handover.Handover(
                workers, past, self._began, keeper.bypassed, alarms, keeper.left_standing, signers
            )
        )

    # --- Identity ----------------------------------------------------------------------------------------

    def _present(self, presented: Presented) -> None:
        """The signer first: what a worker knows, it can have signed."""
        self._signer.sign_as(self._site.seed)
        self._pool.present(presented)

    # --- Memory of peers --------------------------------------------------------------------------------

    def _open_store(self) -> None:
        try:
            database = Database(self._config.pins_file, readers=self._confinements.readers)
            self._store = PinStore(database)
            self._looks, self._source_store = LookStore(database), SourceStore(database)
            self._sources.count()
            self._peers = len(self._store.pins())
        except EnvironmentFailureError as error:
            self._store = self._looks = self._source_store = None
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
        destination, now = told_destination(peer), int(time.time())
        self._own_path.well(met.identity, now)
        self._dead_ends.is_none(destination)
        try:
            self._store.remember(destination, met, now, _statement(peer.get("statement")))
            self._peers = len(self._store.pins()) if peer.get("new") else self._peers
        except EnvironmentFailureError as error:
            self._alarm(Reason.PINS_UNWRITABLE, "peers", str(error))
        self._ring_store_facts()

    def _unwritable(self, trouble: str) -> None:
        self._alarm(Reason.PINS_UNWRITABLE, "peers", trouble)
        self._ring_store_facts()

    def _learn_look(self, look: dict[str, Any]) -> None:
        if self._looks is None:
            return
        keywords = tuple(look["keywords"].encode("latin-1").split())
        learnt = Look(look["host"].encode("latin-1"), keywords)
        try:
            self._looks.learn(told_destination(look), learnt, int(time.time()))
        except EnvironmentFailureError as error:
            self._unwritable(str(error))

    def _remember_trouble(self, destination: Destination, likely: Reason, now: int) -> None:
        if self._looks is None:
            return
        try:
            self._looks.note_trouble(destination, likely, now)
        except EnvironmentFailureError as error:
            self._unwritable(str(error))

    def _note_trouble(self, at: Destination, reason: Reason) -> bool:
        """Into the history of the pin. Whether it is our own path, which then rings in the peer's place."""
        if self._store is None:
            return False
        now = int(time.time())
        try:
            pin = self._store.lookup(at)
            self._store.note_trouble(at, _TROUBLE[reason], now)
        except EnvironmentFailureError as error:
            self._unwritable(str(error))
            return False
        many = self._own_path.missing(pin.site, now) if pin is not None else 0
        if not many:
            return False
        told = f"{many} sites without their offer, or with failed handshakes; the last one: {at}"
        self._alarm(Reason.OWN_PATH, "our own path", told)
        return True

    def _note_failure(self, path: dict[str, Any]) -> None:
        if self._store is None:
            return
        destination = told_destination(path)
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
        elif "source" in message:
            self._sources.note(message["source"])
        elif "look" in message:
            self._learn_look(message["look"])
        elif "dead-end" in message:
            self._found_dead_end(told_destination(message["dead-end"]))
        elif "cause" in message:
            self._causes.name(message["cause"], lambda cause: None)
        elif "alarm" in message:
            self._told_alarm(message["alarm"])

    def _found_dead_end(self, destination: Destination) -> None:
        """Whoever says so, a pinned one is none: its mail would pass in clear without a word."""
        try:
            pinned = self._store is not None and self._store.lookup(destination) is not None
        except EnvironmentFailureError:
            pinned = True
        if not pinned:
            self._dead_ends.found(destination)

    def _told_alarm(self, alarm: dict[str, Any]) -> None:
        """With its likely cause, where one can be named; that may take the kernel some milliseconds."""

        reason = Reason(alarm["reason"])
        if reason in _TROUBLE and "address" in alarm:
            at = told_destination(alarm)
            if self._note_trouble(at, reason):
                return

        def ring(cause: Reason | None) -> None:
            self._alarm(reason, alarm["subject"], alarm["detail"], cause)

        if "likely" in alarm:
            self._causes.name(alarm, ring)
        else:
            ring(None)

    def _alarm(self, reason: Reason, subject: str, detail: str, cause: Reason | None = None) -> None:
        now = int(time.time())
        likely = cause.value if cause is not None else ""
        alarm = self._bell.ring(reason, subject, now, detail, likely)
        if alarm is not None:
            self._log.fact(
                "alarm",
                "rings",
                level=Level.ALARM,
                reason=alarm.reason,
                subject=alarm.subject,
                detail=alarm.detail or detail,
                likely=alarm.likely or None,
            )
            self._seeing.ring(alarm)

    def _not_ours(self) -> int:
        tallies = self._pool.counters()["tallies"]
        passed: int = tallies.get(Tally.NOT_OURS.value, 0)
        return passed

    def _status(self) -> dict[str, Any]:
        keeper = self._keeper
        return {
            "version": __version__,
            "since": int(self._began),
            "identity": self._site.fingerprint,
            "rotation": self._site.as_json(),
            "placement": self._config.placement.value,
            "wanted": keeper.wanted.value,
            "inside_networks": [str(network) for network in self._config.inside_networks],
            "rules": {
                "missing": keeper.missing if keeper.wanted is Wanted.UP else [],
                "queues": keeper.queues,
            },
            "workers": [worker.as_json() for worker in self._pool.workers],
            "signer": self._signer.as_json(),
            "counters": self._pool.counters(),
            **self._seeing.as_json(),
            "peers": self._peers,
            "sources": asdict(self._sources.counts),
            "bypassed": keeper.bypassed,
            "alarms": [alarm.as_json() for alarm in self._bell.known(int(time.time()))],
        }

    async def _keep_inside(self) -> None:
        """Addresses and routes come and go; at boot the daemon is up first. Runs until cancelled."""
        while True:
            began = time.monotonic()
            # Not in the thread of the rules, which must not wait for a long routing table.
            try:
                found = await asyncio.to_thread(kernel.inside_networks, self._asked)
            except (EnvironmentFailureError, OSError) as error:
                self._log.fact("daemon", "inside-unknown", level=Level.ERROR, detail=str(error))
                found = self._config.inside_networks
            self._surround(found)
            took = time.monotonic() - began
            await asyncio.sleep(max(limits.INSIDE_LOOK_SECONDS, took * limits.INSIDE_LOOK_REST))

    def _surround(self, found: tuple[Network, ...]) -> None:
        """An interface that is down for a moment has no routes: what is gone altogether is kept."""
        before, versions = self._config.inside_networks, {network.version for network in found}
        networks = found + tuple(network for network in before if network.version not in versions)
        if set(networks) == set(before):
            return
        self._config = replace(self._config, inside_networks=networks)
        self._pool.surround(networks)
        self._log.fact("daemon", "inside", level=Level.NOTICE, networks=",".join(map(str, networks)))

    async def _flush_log(self) -> None:
        while True:
            self._log.flush()
            await asyncio.sleep(limits.LOG_FLUSH_SECONDS)

    async def _write_sources(self) -> None:
        while True:
            await asyncio.sleep(limits.SOURCES_WRITE_SECONDS)
            self._sources.write()


_TROUBLE = {Reason.OFFER_MISSING: Happening.MISSING, Reason.HANDSHAKE_FAILED: Happening.FAILED}


def _statement(told: dict[str, Any] | None) -> MetStatement | None:
    if told is None:
        return None
    return MetStatement(bytes.fromhex(told["old"]), bytes.fromhex(told["new"]), told["serial"])


def run(config: Config) -> int:
    """`nightmail run`, until SIGTERM or SIGINT; takes a resolved configuration.

    Raises EnvironmentFailureError where it cannot start.
    """
    os.umask(0o077)
    hardening.forbid_dumps()
    if config.log_file is not None:
        sinks.stderr_into(config.log_file)  # that is where the workers write

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
