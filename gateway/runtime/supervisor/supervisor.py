"""The daemon's first process: identity, memory, rules, workers, control socket. Never on the data path.

When it ends in order it leaves the rules (they act on nothing without workers) and the workers' sessions have
ended; when it is killed, the workers give their queues back and end by themselves.
Counterparts: `pool`, `rulekeeper`, `hearing` (what workers say), `control`, `worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import uvloop

from gateway import LIBRARY_TROUBLE, __version__
from gateway.config import Config, Network
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept import ruleset
from gateway.intercept.wanted import Wanted
from gateway.observe import sinks
from gateway.observe.counters import AlarmBell, Direction, Tally
from gateway.observe.log import Level
from gateway.policy import limits
from gateway.runtime import confinements, hardening
from gateway.runtime.bug import Bug
from gateway.runtime.link import told_address
from gateway.runtime.order import Presented, require_tellable
from gateway.runtime.supervisor import handover, heap, preflight
from gateway.runtime.supervisor.causes import Causes
from gateway.runtime.supervisor.control import Answer, ControlSocket
from gateway.runtime.supervisor.hearing import Hearing
from gateway.runtime.supervisor.inside import Inside
from gateway.runtime.supervisor.lasting import Keeper, kept
from gateway.runtime.supervisor.peer_memory import PeerMemory
from gateway.runtime.supervisor.pool import Pool
from gateway.runtime.supervisor.rulekeeper import RuleKeeper
from gateway.runtime.supervisor.seeing import Seeing
from gateway.runtime.supervisor.signer_process import SignerProcess
from gateway.runtime.supervisor.site import Site
from gateway.runtime.supervisor.sole import Sole
from gateway.runtime.supervisor.spared import DEAD_ENDS, RESTING, Spared


class Supervisor:
    """One daemon. `run` returns when it was told to stop."""

    def __init__(self, config: Config) -> None:
        self._log = sinks.opened(config, config.log_file)
        self._inside = Inside(config, self._log, self._surround)
        self._config = replace(config, inside_networks=self._inside.networks)
        self._confinements = confinements.of(self._config)
        again_seconds = config.alarm_again_hours * limits.HOUR_SECONDS
        self._bell = AlarmBell(again_seconds)
        self._stop = asyncio.Event()
        self._one_reload = asyncio.Lock()
        """What one asks the program on the disk, and runs on over its own exec, nobody would wait for."""
        self._memory = PeerMemory(
            config.pins_file, self._confinements.readers, self._log, self._alarm, again_seconds
        )
        self._seeing = Seeing(
            config,
            self._log,
            self._status,
            lambda: self._pool.counters(),
            lambda: self._memory.database,
            self._memory.unwritable,
        )
        left = handover.received()
        self._reloaded = left is not None
        """Whether this process was a supervisor before."""
        self._left = left if left is not None else handover.Handover.of_nobody(time.time())
        self._sole = Sole(config.control_socket, self._left.sole)
        self._anew = False

    async def run(self) -> None:
        """Raises EnvironmentFailureError where it cannot start."""
        asyncio.get_running_loop().set_exception_handler(self._callback_failed)
        control = self._prepare()
        self._make_processes()
        self._make_keepers()
        await self._start(control)
        heap.settle()
        async with kept(self._lasting(control), self._failed):
            self._say_started()
            await self._stop.wait()
            self._say_stopping()
        await self._seeing.close()
        if self._anew and await self._is_not_overtaken():
            await self._become_the_next(control)
        await self._finish(control)

    # --- Start and end -----------------------------------------------------------------------------------

    def _prepare(self) -> ControlSocket:
        """What is on disk: directories, that no other daemon is here, the identity, the memory of peers."""
        config = self._config
        require_tellable(config)
        for directory in (config.state_dir, config.run_dir):
            preflight.make_directory(directory)
        confinements.share(config.state_dir, self._confinements.readers)
        control = ControlSocket(config.control_socket, self._answers(), self._left.control)
        control.require_free()
        self._be_alone()
        self._bell.recall(self._left.alarms)
        self._seeing.tell(self._left.untold)
        if LIBRARY_TROUBLE:
            self._alarm(Reason.LIBRARY_UNUSABLE, "library", LIBRARY_TROUBLE)
        self._site = Site(config, self._log, self._alarm)
        self._memory.open()
        return control

    def _be_alone(self) -> None:
        """Raises EnvironmentFailureError at a first start where we are not; a reload ends no daemon."""
        try:
            doubt = self._sole.take()
        except EnvironmentFailureError as error:
            if not self._reloaded:
                raise
            doubt = str(error)
        if doubt:
            self._log.fact("daemon", "perhaps-not-alone", level=Level.NOTICE, detail=doubt)

    def _make_processes(self) -> None:
        """Signer and workers, none of which runs yet."""
        config, left = self._config, self._left
        taken = preflight.slots_in_use(config) | {heir.index for heir in left.workers}
        slots = ruleset.slots_with_room(config, taken)
        if len(slots) < config.workers:
            self._log.fact("pool", "fewer-workers", level=Level.NOTICE, workers=len(slots))
        self._signer = SignerProcess(
            self._confinements.signer,
            # An heir that dies before its successors lead is started again, too.
            [*(slot.index for slot in slots), *(heir.index for heir in left.workers)],
            self._site.seed,
            self._log,
            self._alarm,
            serves=lambda: self._pool.signer_serves(),
            old=left.signers,
        )
        self._pool = Pool(
            config,
            slots,
            self._site.presented,
            self._confinements.worker,
            self._signer.worker_end,
            self._log,
            on_change=lambda: self._keeper.gate_changed(),
            on_message=lambda message: self._hearing.hear(message),
            alarm=self._alarm,
            heirs=left.workers,
            past=left.past,
            ending=left.ending,
            newest=left.newest,
        )

    def _make_keepers(self) -> None:
        """Who keeps the rules, what passes by them unseen, and what is heard of peers."""
        config, left = self._config, self._left
        self._keeper = RuleKeeper(
            config,
            ruleset.slots_to_render(config, self._pool.slots),
            live=lambda: self._pool.live_queues,
            not_ours=self._not_ours,
            log=self._log,
            alarm=self._alarm,
            on_gate=self._pool.gate_is,
            hung=lambda: self._pool.any_hung,
            empty=lambda: self._pool.ending.of_sessions(),
            bypassed=left.bypassed,
        )
        standing, passed = self._keeper.while_standing, self._pool.note_passed_unseen
        self._dead_ends = Spared(
            DEAD_ENDS,
            config.dead_end_minutes * 60,
            standing,
            partial(passed, Direction.OUT, Reason.DEAD_END),
            self._log,
            left.dead_ends,
        )
        self._resting = Spared(
            RESTING,
            limits.RESTING_SECONDS if config.offers_rest else 0,
            standing,
            partial(passed, Direction.IN, Reason.CLIENT_RESTS),
            self._log,
            left.resting,
        )
        causes = Causes(self._keeper.reset_was_odd, self._log, self._memory.note_cause)
        self._hearing = Hearing(self._memory, self._dead_ends, self._resting, causes, self._alarm)

    async def _start(self, control: ControlSocket) -> None:
        """Rules before workers: a worker's queue is in the gate as soon as it serves."""
        self._seeing.begin()
        await self._keeper.first_time(self._left.rules if self._reloaded else None)
        self._signer.start()
        self._pool.start()
        await control.open()
        await self._seeing.open()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        handover.hear_signals()

    def _lasting(self, control: ControlSocket) -> list[Keeper]:
        """What goes on as long as the daemon does; ended in this order."""
        return [
            self._tell_ready,
            self._dead_ends.keep,
            self._resting.keep,
            self._keeper.keep,
            self._flush_log,
            self._seeing.keep,
            self._seeing.keep_open,
            lambda: control.keep(self._control_lost),
            self._memory.sources.keep,
            lambda: self._site.keep(self._present),
            self._inside.keep,
            self._sole.keep,
            heap.keep,
        ]

    def _control_lost(self, why: str) -> None:
        if why:
            told = f"{self._config.control_socket}: {why}: restart the daemon; mail goes on meanwhile"
            self._log.fact("control", "lost", level=Level.ERROR, detail=told)
        else:
            self._log.fact("control", "put-back", level=Level.NOTICE)

    def _failed(self, error: Exception) -> None:
        """A bug of ours in what is to last or in a callback of the loop; what else there is goes on."""
        bug = Bug.of(error)
        self._alarm(Reason.INTERNAL, bug.where, bug.detail)

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        loop.default_exception_handler(context)
        if isinstance(error, Exception):
            self._failed(error)

    def _say_started(self) -> None:
        event = "reloaded" if self._reloaded else "started"
        self._log.fact("daemon", event, version=__version__, identity=self._site.fingerprint)

    async def _tell_ready(self) -> None:
        """What is started behind us may send mail: by then it is looked at, if the rules are wanted."""
        if self._keeper.wanted is Wanted.UP:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.READY_SECONDS):
                    await self._keeper.guarded.wait()
        _tell_systemd("READY=1")

    def _told_to_stop(self) -> None:
        """Also while we are about to become the next one, who would know nothing of it."""
        overtaken, self._anew = self._anew, False
        self._stop.set()
        if overtaken:
            self._say_stopping()

    def _say_stopping(self) -> None:
        if not self._anew:
            _tell_systemd("STOPPING=1")
            self._log.fact("daemon", "stopping", reason=Reason.STOPPED)

    async def _finish(self, control: ControlSocket) -> None:
        await self._keeper.close()
        await self._pool.stop()
        await self._signer.stop()
        self._memory.sources.write()
        self._seeing.look()
        self._memory.close()
        await control.close()
        self._sole.close()
        self._log.fact("daemon", "stopped", reason=Reason.STOPPED)
        self._log.close()

    # --- Reload ------------------------------------------------------------------------------------------

    def _hung_up(self) -> None:
        self._reloading = asyncio.ensure_future(self._reload())  # kept: the loop itself would let go of it

    async def _reload(self) -> dict[str, Any]:
        """Load program and configuration anew, if they are fit; says why not, and changes nothing."""
        async with self._one_reload:
            if self._stop.is_set():
                return {"reloads": self._anew, "trouble": "" if self._anew else "the daemon stops"}
            # Without its file the next one would make itself another identity, and peers would ring.
            trouble = self._site.trouble or await preflight.trouble(self._config, self._pool.slots)
            if trouble:
                self._alarm(Reason.RELOAD_REFUSED, "reload", trouble)
            elif self._stop.is_set():  # meanwhile, by another's word
                trouble = "the daemon stops"
            else:
                self._anew = True
                self._stop.set()
            return {"reloads": not trouble, "trouble": trouble}

    async def _is_not_overtaken(self) -> bool:
        """Whether a reload goes on: who has told us to stop is heard here, and later by the next one."""
        handover.hear_no_signals()
        await handover.what_came_is_heard()
        return self._anew

    async def _become_the_next(self, control: ControlSocket) -> None:
        """The workers live on; everything else begins again. Raises EnvironmentFailureError."""
        self._keeper.leave()
        listening = await control.hand_over()
        self._seeing.look()
        workers, past, ending = self._pool.hand_over()
        self._memory.sources.write()  # what they have said by now; the next one hears the rest
        self._log.fact("daemon", "reloads", workers=len(workers))
        self._log.close()
        left = handover.Handover(
            workers=workers,
            past=past,
            began=self._left.began,
            bypassed=self._keeper.bypassed,
            alarms=self._bell.remembered(),
            rules=self._keeper.left_standing,
            signers=self._signer.pids(),
            untold=tuple(self._seeing.untold()),
            control=listening,
            sole=self._sole.hand_over(),
            ending=ending,
            dead_ends=self._dead_ends.left(),
            resting=self._resting.left(),
            newest=self._pool.newest,
        )
        handover.execute_anew(left)

    def _present(self, presented: Presented) -> None:
        """The signer first: what a worker knows, it can have signed."""
        self._signer.sign_as(self._site.seed)
        self._pool.present(presented)

    def _surround(self, networks: tuple[Network, ...]) -> None:
        self._config = replace(self._config, inside_networks=networks)
        self._pool.surround(networks)

    # --- Alarms, status ------------------------------------------------------------------------------------

    def _alarm(self, reason: Reason, subject: str, detail: str, cause: Reason | None = None) -> None:
        """Never raises: who rings has something to do next."""
        try:
            self._ring(reason, subject, detail, cause)
        except Exception as error:
            told = Bug.of(error).detail
            self._log.fact("alarm", "failed", level=Level.ERROR, reason=reason, subject=subject, detail=told)

    def _ring(self, reason: Reason, subject: str, detail: str, cause: Reason | None) -> None:
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

    def _answers(self) -> dict[str, Answer]:
        """To the questions of the control socket."""
        return {
            "status": self._tell_status,
            "reload": self._tell_reload,
            "ignored": self._tell_ignored,
            "ring": self._tell_ring,
            "hurry": self._tell_hurry,
        }

    async def _tell_ring(self, _: str) -> dict[str, Any]:
        return {"ways": await self._seeing.try_alarms()}

    async def _tell_hurry(self, _: str) -> dict[str, Any]:
        """By a `nightmail down` that was interrupted: sessions are reset that it would have waited for."""
        if self._keeper.stands:
            self._pool.ending.hurry()
        return {"hurries": self._keeper.stands}

    async def _tell_status(self, _: str) -> dict[str, Any]:
        return self._status()

    async def _tell_reload(self, _: str) -> dict[str, Any]:
        return await self._reload()

    async def _tell_ignored(self, address: str) -> dict[str, Any]:
        """Raises ValueError for what is no address."""
        client = told_address(address)
        ignored = await self._pool.offers_ignored_by(client)
        return {"ignored": ignored, "at_gate": sorted(str(one.to) for one in self._resting.at(client))}

    def _status(self) -> dict[str, Any]:
        keeper = self._keeper
        return {
            "version": __version__,
            "since": int(self._left.began),
            "identity": self._site.fingerprint,
            "rotation": self._site.as_json(),
            "placement": self._config.placement.value,
            "wanted": keeper.wanted.value,
            "wanted_until_reboot": keeper.until_reboot,
            "inside_networks": [str(network) for network in self._config.inside_networks],
            "rules": {
                "missing": keeper.missing if keeper.wanted is Wanted.UP else [],
                "queues": keeper.queues,
                "stand": keeper.stands,
                "reset": keeper.reset,
            },
            "workers": [worker.as_json() for worker in self._pool.workers],
            "signer": self._signer.as_json(),
            "counters": self._pool.counters(),
            **self._seeing.as_json(),
            "peers": self._memory.count,
            "sources": asdict(self._memory.sources.counts),
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
    hardening.forbid_dumps()
    heap.share()
    if config.log_file is not None:
        sinks.stderr_into(config.log_file)  # that is where the workers write

    async def supervised() -> None:
        await Supervisor(config).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(supervised())
    return 0


def _tell_systemd(word: str) -> None:
    """sd_notify(3): one datagram to where systemd says; without systemd, nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect("\0" + address[1:] if address.startswith("@") else address)
        notify.send(word.encode())
