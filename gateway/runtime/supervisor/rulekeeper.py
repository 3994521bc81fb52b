"""Keeps our rules in the kernel as the operator wants them, and the gate on the queues that live.

All kernel calls run in one thread, one after the other, so that the loop with the watchdog never waits for
iptables, and beside no command's. Counterparts: `intercept.kernel` (does it), `intercept.wanted` (what the
operator wants), `intercept.rules_lock` (whose hand is at the rules).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence

from gateway.config import Config
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept import kernel, rules_lock, ruleset
from gateway.intercept.wanted import Wanted, Word, read_word
from gateway.observe.log import Level, Log
from gateway.policy import limits
from gateway.runtime.supervisor.kernel_thread import kernel_thread


class RuleKeeper:
    """`live` answers the queues that live now, `not_ours` how many SYNs the workers let pass because
    they are between two outsiders or two insiders. `on_gate` is told, in the loop, where the gate sends SYNs
    after each switch. `hung` answers whether a worker does not judge what it holds. `empty` has all sessions
    end, and answers how many had to be reset. `bypassed` is what the daemon that this process was before has
    counted."""

    def __init__(
        self,
        config: Config,
        slots: tuple[ruleset.Slot, ...],
        live: Callable[[], list[int]],
        not_ours: Callable[[], int],
        log: Log,
        alarm: Callable[[Reason, str, str], None],
        on_gate: Callable[[list[int]], None],
        hung: Callable[[], bool],
        empty: Callable[[], Awaitable[int]],
        bypassed: int = 0,
    ) -> None:
        self._config = config
        self._slots = slots
        self._rules = ruleset.render(config, slots)
        self._kernel = kernel.KernelRules(config)
        self._live = live
        self._not_ours = not_ours
        self._log = log
        self._alarm = alarm
        self._on_gate = on_gate
        self._hung = hung
        self._empty = empty
        self._thread = kernel_thread("rules")
        self._dirty = False
        self._news = asyncio.Event()
        self._looked_at = self._counted_at = 0.0
        self._look_due: asyncio.TimerHandle | None = None
        self.guarded = asyncio.Event()
        """Mail has come before a worker's eyes once; from then on."""
        self.stands = False
        self._closed = False
        """The gate takes nothing, for the rules are to go as soon as no session needs them."""
        self.reset = 0
        """Sessions that were, when the rules went last."""
        self._passes = False
        """What the gate would take would get nowhere: it takes nothing."""
        self._downs = 0
        """How often `nightmail down` had been said when the rules were last as wanted."""
        self._downs_stumbled_at = 0
        self._not_ours_from = 0
        self._passed_lately = 0
        self._bypassed_before = 0
        self.wanted = Wanted.UP
        self.until_reboot = False
        """The next boot finds another word than that."""
        self.missing: list[str] = []
        self.queues: list[int] = []
        """Where the gate sends SYNs now; follows the workers' lives by some milliseconds."""
        self.bypassed = bypassed
        """SYNs that passed unprotected where we would have judged them: since the start, and while no daemon
        ran before that. The number is some seconds old."""

    def gate_changed(self) -> None:
        """The set of live queues may be another: swap the gate as soon as the thread is free."""
        self._dirty = True
        self._news.set()

    async def first_time(self, standing: dict[str, str] | None = None) -> None:
        """Put the rules in, before a worker of this process lives. Raises EnvironmentFailureError.

        `standing` is what the process before this one left (`left_standing`). Where there was one nothing is
        raised: its workers carry mail, and trouble with the rules rings and is tried again, as at any time.
        """
        try:
            await self._in_thread(self._begin, standing or {})
        except EnvironmentFailureError as error:
            if standing is None:
                raise
            self._in_trouble(error)

    async def keep(self) -> None:
        """Runs until it is cancelled. Trouble is told and tried again; mail passes meanwhile."""
        with self._told_of_changes():
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(limits.RULES_CHECK_SECONDS):
                        await self._news.wait()
                self._news.clear()
                try:
                    await self._turn()
                except EnvironmentFailureError as error:
                    self._in_trouble(error)

    def _in_trouble(self, error: EnvironmentFailureError) -> None:
        """Nobody knows whether all stands, so it does not: `status` must not say that mail is protected."""
        self.missing = [str(error)]
        if not self._is_of_a_down():
            self._alarm(Reason.RULES_MISSING, "rules", str(error))

    def _is_of_a_down(self) -> bool:
        """Where it was not waited for our hand two may have failed at each other: once for each `down`."""
        with contextlib.suppress(EnvironmentFailureError):
            downs = self._said().downs
            if downs not in (self._downs, self._downs_stumbled_at):
                self._downs_stumbled_at = downs
                return True
        return False

    async def _turn(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._dirty:
            try:
                await self._switch()
            except EnvironmentFailureError:
                # It may fail at what is gone, and the next turn would be a switch again.
                await self._in_thread(self._look)
                raise
        else:
            self._looked_at = now
            await self._in_thread(self._look)
        if self._closed:
            await self._take_down()
        if now - self._counted_at >= limits.BYPASS_COUNT_EVERY_SECONDS:
            self._counted_at = now
            await self._in_thread(self.count_bypassed)

    async def _take_down(self) -> None:
        """Sessions before the rules: without them they would stand still, and what mail servers still send in
        them would leave in clear. Nothing else is done to the rules meanwhile."""
        reset = await self._empty()
        await self._in_thread(self._take_out, reset)

    async def _switch(self) -> None:
        """Bring the gate in line with the workers' lives. Whatever it raises, it stays due."""
        self._dirty = False
        try:
            if self.stands:
                await self._in_thread(self._swap_what_stands)
        except Exception:
            # No rule has changed, so no look would find that the gate is not as it should be.
            asyncio.get_running_loop().call_later(limits.RULES_CHECK_SECONDS, self.gate_changed)
            raise
        self._on_gate(self.queues if self.stands else [])
        if self.stands and self.queues:
            self.guarded.set()

    # --- Told of changes --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _told_of_changes(self) -> Iterator[None]:
        """By the kernel, of whoever's. Where it does not tell, every look is in its turn."""
        try:
            heard = kernel.changes()
        except EnvironmentFailureError as error:
            self._log.fact("rules", "not-told", level=Level.NOTICE, detail=str(error))
            yield
            return
        loop = asyncio.get_running_loop()
        for each in heard:
            loop.add_reader(each.fileno(), self._rules_changed, each)
        try:
            yield
        finally:
            for each in heard:
                loop.remove_reader(each.fileno())
                each.close()
            if self._look_due is not None:
                self._look_due.cancel()
                self._look_due = None

    def _rules_changed(self, heard: socket.socket) -> None:
        """Ours or another's: look soon."""
        with contextlib.suppress(OSError):  # ENOBUFS: it was more than the socket holds
            while heard.recv(limits.RULES_NEWS_OCTETS):
                pass
        if self._look_due is None:
            loop = asyncio.get_running_loop()
            at = max(self._looked_at + limits.RULES_TOLD_REST_SECONDS, loop.time())
            self._look_due = loop.call_at(at, self._look_now)

    def _look_now(self) -> None:
        self._look_due = None
        self._news.set()

    async def reset_was_odd(self, server: str, client: str) -> bool | None:
        """See `kernel.reset_was_odd`; None also where the kernel cannot be asked."""
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, kernel.reset_was_odd, server, client)
        except (EnvironmentFailureError, OSError, RuntimeError, ValueError):
            return None

    def leave(self) -> None:
        """Let go of the kernel with everything as it stands: another one of us takes over at once."""
        self._thread.submit(kernel.let_go)
        self._thread.shutdown()

    async def close(self) -> None:
        """The gate lets everything pass; all other rules stay, and act on nothing."""
        if self.stands:
            try:
                await self._in_thread(self._kernel.swap_gate, [])
            except EnvironmentFailureError as error:
                self._log.fact("rules", "swap-failed", level=Level.ERROR, detail=str(error))
        self.leave()

    async def while_standing(self, work: Callable[[], None]) -> None:
        """Do this between two things that are done to the rules, if they stand then; else not."""
        await self._in_thread(lambda: work() if self.stands else None)

    async def _in_thread(self, work: Callable[..., None], *arguments: object) -> None:
        def by_our_hand() -> None:
            with rules_lock.held(self._config, limits.RULES_HAND_SECONDS):
                work(*arguments)

        await asyncio.get_running_loop().run_in_executor(self._thread, by_our_hand)

    @property
    def left_standing(self) -> dict[str, str]:
        """What stands, for the supervisor that comes next."""
        return self._kernel.standing if self.stands else {}

    # --- In the thread ----------------------------------------------------------------------------------

    def _begin(self, standing: dict[str, str]) -> None:
        self._downs = self._read_word().downs
        if self.wanted is Wanted.UP or standing:
            self._adopt(standing)
        if self.wanted is Wanted.DOWN and self.stands:
            # Before anybody new lives who could be sent SYNs.
            self._close_the_gate()

    def _adopt(self, standing: dict[str, str]) -> None:
        live = self._live()
        is_ours = bool(standing) and self._kernel.adopt(self._rules, live, standing)
        # What a `down` has not taken out yet goes as it stands.
        if not is_ours and self.wanted is Wanted.UP:
            # Workers of a version before the proofs of life give none; their successors will lead soon.
            self._apply(limits.READY_SECONDS if live else None)
            return
        self.queues = live
        self.stands = True
        # The kernel's counters run on, and with them what they said before: only what comes from now is new.
        passed = sum(kernel.passed_counts().values())
        self._bypassed_before = self.bypassed - passed
        self._not_ours_from = self._not_ours()
        self._passed_lately = passed

    def _apply(self, vouched_seconds: float | None = None) -> None:
        self._take_counts()
        live = self._live()
        self._kernel.apply(self._rules, live, vouched_seconds)
        self.queues = live
        self.stands = True
        self.missing = []

    def _swap(self) -> None:
        live = [] if self._passes or self._closed else self._live()
        self._kernel.swap_gate(live)
        self.queues = live
        if self._hung():
            # The few that the others hold just now come again with them.
            self._kernel.release_held()
        self._log.fact("rules", "gate", queues=",".join(map(str, live)) or "none")

    def _swap_what_stands(self) -> None:
        """What `nightmail down` has taken out has no gate to switch, and is not missed."""
        with contextlib.suppress(EnvironmentFailureError):
            if self._taken_down_lately():
                self._look()
        if self.stands and not self._closed:
            self._swap()

    def _look(self) -> None:
        word = self._read_word()
        self._see_to_the_rules()
        # Of the word that was obeyed: one that came meanwhile is still to be.
        self._downs = word.downs

    def _see_to_the_rules(self) -> None:
        if self.wanted is Wanted.DOWN:
            if self.stands and not self._closed:
                self._close_the_gate()
            return
        if self._closed:
            self._open_the_gate()
        if self._passes or not self.stands or not self._kernel.standing:
            self._apply_as_found()
            self._log.fact("rules", "up", level=Level.NOTICE)
            return
        try:
            mended = self._kernel.mend()
        except kernel.OtherVlansError:
            self._let_pass()
            raise
        except EnvironmentFailureError:
            if self._said().counts is Wanted.UP:
                self._put_back_whole()
            return
        self.missing = []
        if mended.gone and self._said().counts is Wanted.UP:
            if mended.counted is not None:
                self._note_passed(mended.counted)
                self._counters_begin()
            self._tell_missing(mended.gone)
            self._log.fact("rules", "put-back", level=Level.NOTICE, count=len(mended.gone))

    def _close_the_gate(self) -> None:
        self._closed = True
        try:
            # What passes from now on passes as it is wanted to.
            self._note_passed(sum(kernel.passed_counts().values()))
            self._swap()
        except EnvironmentFailureError:
            # A `nightmail down` that has waited long enough may have taken it out.
            self._closed = not kernel.gate_counts()
            if not self._closed:
                raise

    def _open_the_gate(self) -> None:
        """Meanwhile `up` was said. Rules that are not ours (`_adopt`) are put in anew at the next look."""
        self._closed = False
        if self._kernel.standing:
            self._swap()

    def _take_out(self, reset: int) -> None:
        """Unless they are wanted again."""
        if self._read_word().counts is Wanted.UP:
            self._open_the_gate()
            return
        self._counters_begin()
        try:
            self._kernel.remove()
        except EnvironmentFailureError:
            self._kernel.remove()  # `nightmail down` removes at the same time: now what it has left
        self.stands = self._passes = self._closed = False
        self.queues = []
        self.reset = reset
        self._log.fact("rules", "down", level=Level.NOTICE, reset=reset or None)

    def _read_word(self) -> Word:
        word = self._said()
        self.wanted, self.until_reboot = word.counts, word.ends_with_boot
        return word

    def _said(self) -> Word:
        return read_word(self._config.wanted_file)

    def _taken_down_lately(self) -> bool:
        """By `nightmail down`, which writes first and then removes: nothing to ring for, though an `up` has
        been said since. Asked when all is done: a `down` may not have waited for our hand."""
        return self._said().downs != self._downs

    def _put_back_whole(self) -> None:
        """What could not be mended: as at the start, all or nothing."""
        self.missing = self._kernel.missing()
        if self.missing:
            count = len(self.missing)
            self._tell_missing(self.missing)
            self._apply()
            self._log.fact("rules", "put-back", level=Level.NOTICE, count=count)

    def _let_pass(self) -> None:
        """All other rules stay: without them half of each session would cross the bridge in clear."""
        self._passes = True
        self._swap()

    def _apply_as_found(self) -> None:
        """For the bridge as it is by now. Raises as long as that cannot be had, and then changes nothing."""
        config = kernel.as_found(self._config)
        refusal = kernel.bridge_refusal(config)
        if refusal:
            if self.queues:  # the gate could not be switched before
                self._swap()
            raise EnvironmentFailureError(refusal)
        self._config, self._rules = config, ruleset.render(config, self._slots)
        self._passes = False
        self._apply()

    def _tell_missing(self, missing: Sequence[str]) -> None:
        if self._taken_down_lately():
            return
        detail = f"{len(missing)} of ours were removed, first: {missing[0]}"
        self._alarm(Reason.RULES_MISSING, "rules", detail)

    def count_bypassed(self) -> None:
        """From the kernel's own counter behind the gate, which also runs while nobody listens."""
        if not self.stands:
            return
        # What the workers tell is up to a second old: so it is taken from an older count of the kernel's, or
        # SYNs that were nobody's would be taken for unprotected ones.
        self._note_passed(self._passed_lately)
        self._passed_lately = sum(kernel.passed_counts().values())

    def _note_passed(self, passed: int) -> None:
        now = self._bypassed_before + passed - (self._not_ours() - self._not_ours_from)
        if now > self.bypassed:
            more = now - self.bypassed
            self._log.fact("gate", "bypassed", level=Level.NOTICE, reason=Reason.BYPASSED, connections=more)
            self.bypassed = now

    def _take_counts(self) -> None:
        """The kernel's counters start anew with the rules: keep what they say, also of a daemon that died."""
        self._note_passed(sum(kernel.passed_counts().values()))
        self._counters_begin()

    def _counters_begin(self) -> None:
        self._bypassed_before = self.bypassed
        self._passed_lately = 0
        self._not_ours_from = self._not_ours()
