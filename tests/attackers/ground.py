"""The lab of the attackers: two real gateways, the proxy on the wire between them, scripted mail servers.

The receiving site has thousands of addresses, so each trial can have a destination, a pin and an alarm bell's
cause of its own, on one lab, at the same time; so has the sending site, where it is about tickets. What came
of a trial is taken from all places: what sender and receiver saw, what was on the wire on both sides of the
attacker, and what both gateways have logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateway.lab import gateways, processes
from gateway.lab.lab import Lab
from gateway.lab.network import inside
from tests.attackers.attack import Attack
from tests.attackers.parties import Address, Mail, Received, Receiver, Sender, Sent, mail
from tests.attackers.wire import Session, Wire
from tests.lab.probes import eventually
from tests.lab.two_sites import NO_TICKETS

Answer = TypeVar("Answer")
MANY_ADDRESSES = "10.99.0.0/16"
MANY_SOURCES = "10.98.0.0/16"
AT_ONCE = 48
PATIENCE = 45.0
"""Of the scripted sender, for one reply: longer than two handshakes that time out."""
QUIET_SECONDS = 60.0
BEHIND_SECONDS = 5.0
"""So far a log may be behind: each worker writes its own, some times a second."""
GOES = 3
MOST_PASSED = 0.5
"""Of the trials of one go."""
FIRST_PORT, LAST_PORT = 12_000, 60_000
LIMITS = "\n[limits]\nhandshakes_per_second = 100000\nhandshakes_per_source = 100000\n"
"""Of both gateways: a fast machine runs more sessions of one sender in a second than would get offers."""
_SESSION = re.compile(r"^(?:\S+ )?(\w+) session=(\w+) session ([a-z-]+)(.*)$")
_NAME = re.compile(rb"(?i)MAIL FROM:<from-(n\d+x)@")
_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


@dataclass(slots=True)
class Told:
    """One session as a gateway's log tells it: events in order, each with its fields."""

    events: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def of(self, event: str) -> list[dict[str, str]]:
        return [fields for name, fields in self.events if name == event]

    @property
    def decided(self) -> str:
        """The reason of the decision; empty while there is none."""
        return next((fields.get("reason", "") for fields in self.of("decided")), "")

    @property
    def protected(self) -> bool:
        return any(fields.get("protected") == "yes" for fields in self.of("decided"))

    @property
    def alarmed(self) -> bool:
        return any(fields["level"] == "notice" for fields in self.of("decided"))

    @property
    def over(self) -> bool:
        return bool(self.of("ended"))

    @property
    def failures(self) -> tuple[str, ...]:
        """Why handshakes failed at S, in order."""
        return tuple(fields.get("reason", "") for fields in self.of("handshake-failed"))

    @property
    def torn(self) -> str:
        """Why the channel failed; empty if it did not, or at the other end."""
        return next((fields.get("reason", "") for fields in self.of("channel-failed")), "")

    def __str__(self) -> str:
        return "; ".join(
            f"{name} " + " ".join(f"{k}={v}" for k, v in fields.items() if k in ("reason", "detail", "level"))
            for name, fields in self.events
        )


@dataclass(slots=True)
class Trial:
    """One session to be run, and what came of it."""

    attack: Callable[[], Attack]
    target: str
    mail: Mail
    patience: float = PATIENCE
    thinks: float = 0.0
    led_to: str = ""
    home: str = ""
    """The sender's address; empty: that of all."""
    source: Address = ("", 0)
    sent: Sent = field(default_factory=Sent)
    received: list[Received] = field(default_factory=list)
    wire: Session | None = None
    at_s: Told = field(default_factory=Told)
    at_r: list[Told] = field(default_factory=list)

    @property
    def mails(self) -> list[bytes]:
        return [one for connection in self.received for one in connection.mails]

    @property
    def on_the_wire(self) -> bytes:
        """All that gateways and mail servers said on both sides of the attacker."""
        assert self.wire is not None
        return b"\0".join(bytes(octets) for octets in self.wire.heard.values())

    def __str__(self) -> str:
        return (
            f"to {self.target} from port {self.source[1]}: {self.sent.fate.value} ({self.sent.why}), "
            f"{len(self.mails)} mails at the receiver;\n S: {self.at_s};\n R: "
            + "; then ".join(map(str, self.at_r))
        )


class Ground:
    """Use `ground()`. Everything asynchronous runs in one thread of its own, for as long as the lab is up."""

    def __init__(self, lab: Lab, *, scripted: bool) -> None:
        self.lab = lab
        self._scripted = scripted
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self.wire = Wire(lab.namespace("wire"))
        self.log: list[Received] = []
        self._server: asyncio.Server | None = None
        self._spare: list[socket.socket] = []
        self._ports = itertools.cycle(range(FIRST_PORT, LAST_PORT))
        self._targets = (f"10.99.{high}.{low}" for high in range(256) for low in range(1, 255))
        self._sources = (f"10.98.{high}.{low}" for high in range(256) for low in range(1, 255))
        self._home = lab.mail_server("a").node.home.v4
        self._names = itertools.count()

    # --- Up and down --------------------------------------------------------------------------------------

    def open(self) -> None:
        self._thread.start()
        if self._scripted:
            self._add_addresses()
        self.run(self._open())

    def close(self) -> None:
        self.run(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, task: Coroutine[Any, Any, Answer], seconds: float = 600.0) -> Answer:
        return asyncio.run_coroutine_threadsafe(task, self.loop).result(seconds)

    def _add_addresses(self) -> None:
        nodes = self.lab.topology.nodes
        for letter, many in (("a", MANY_SOURCES), ("b", MANY_ADDRESSES)):
            home, gateway = nodes[f"mta-{letter}"].home.v4, nodes[f"gw-{letter}"].addresses["wire"].v4
            for node, words in (
                (f"mta-{letter}", f"ip route add local {many} dev lo"),
                (f"gw-{letter}", f"ip route add {many} via {home}"),
                ("wire", f"ip route add {many} via {gateway} dev gw-{letter}"),
            ):
                processes.run_in(self.lab.namespace(node), words.split())

    async def _open(self) -> None:
        await self.wire.open()
        if not self._scripted:
            return
        made = inside(
            self.lab.namespace("mta-b"), lambda: socket.create_server(("0.0.0.0", 25), backlog=4096)
        )
        self._server = await self.loop.create_server(lambda: Receiver(self.log), sock=made)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self.wire.close()
        for spare in self._spare:
            spare.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- Trials -------------------------------------------------------------------------------------------

    def target(self) -> str:
        """A destination that nobody has written to yet."""
        return next(self._targets)

    def source(self) -> str:
        """A sender's address that nobody has met yet."""
        return next(self._sources)

    def trial(self, attack: Callable[[], Attack], target: str, **words: Any) -> Trial:
        name = f"n{next(self._names)}x"
        return Trial(attack, target, words.pop("mail", None) or mail(name), **words)

    def meet(self, targets: Iterable[str], homes: Mapping[str, str] | None = None) -> None:
        """Let the sending gateway pin these destinations by an honest mail to each.

        `homes`: from which sender's address, where it matters.
        """
        wanted = set(targets)
        homes = homes or {}
        for trial in self.attempt([self.trial(Attack, one, home=homes.get(one, "")) for one in wanted]):
            assert trial.at_s.decided in ("upgraded-new-peer", "upgraded"), str(trial)
        eventually(lambda: wanted <= self.pinned(), what="all pins")

    def pinned(self) -> set[str]:
        return {pin["address"] for pin in self.pins()}

    def pins(self) -> list[dict[str, Any]]:
        one = self.lab.gateway("a")
        words = gateways.nightmail_command("--config", str(one.configuration), "peers", "list", "--json")
        answer = json.loads(processes.run_in(one.namespace, words).stdout)
        assert isinstance(answer, list)
        return answer

    def attempt(self, trials: list[Trial], at_once: int = AT_ONCE) -> list[Trial]:
        """Run them all; returns when both gateways have told the end of each.

        A gateway lets mail pass while its workers get no core; no attack was tried on what passed by S. Such
        a trial is run once more, but never most of them: then something else is the matter.
        """
        waiting = trials
        for _ in range(GOES):
            passed = self._attempt_once(waiting, at_once)
            if not passed:
                return trials
            print(f"{len(passed)} of {len(waiting)} passed by S: {self._why_by()}")
            assert len(passed) <= max(1, len(waiting) * MOST_PASSED), f"{passed[0]}\n{self._why_by()}"
            waiting = passed
        raise AssertionError(f"passed by S again and again: {waiting[0]}\n{self._why_by()}")

    def _attempt_once(self, trials: list[Trial], at_once: int) -> list[Trial]:
        """The ones that S has not seen, as new as before."""
        offsets = {letter: self._log_size(letter) for letter in "ab"}
        first = len(self.log)
        self.run(self._attempt_all(trials, at_once))
        by_source: dict[tuple[int, str], Trial] = {(t.source[1], t.target): t for t in trials}
        told = self._wait_told("a", offsets["a"], by_source)
        for key in told.keys() & by_source.keys():
            by_source[key].at_s = told[key][-1]
        self._wait_begun_at_r(offsets["b"], self.log[first:])
        told = self._wait_told("b", offsets["b"], {})
        by_port = {trial.source[1]: trial for trial in trials}
        for (port, _), sessions in told.items():
            if port in by_port:
                by_port[port].at_r += sessions
        by_name = {trial.mail.name: trial for trial in trials}
        for received in self.log[first:]:
            # A redial may come from another port: then only what is said tells whose connection it is.
            found = _NAME.search(bytes(received.heard))
            trial = by_name.get(found[1].decode()) if found else None
            trial = trial or by_source.get((received.source[1], received.destination[0]))
            if trial is not None:
                trial.received.append(received)
        for trial in trials:
            trial.wire = self.wire.sessions.pop(trial.source, None)
            self.wire.attacks.pop(trial.source, None)
            self.wire.led_to.pop(trial.source, None)
        passed = [trial for trial in trials if not trial.at_s.events]
        for trial in passed:
            trial.sent, trial.received, trial.wire, trial.at_r = Sent(), [], None, []
        return passed

    def _why_by(self) -> str:
        """What S itself says of SYNs that it let by."""
        told = [line for line in self.log_lines("a") if " session=" not in line]
        return "\n".join([json.dumps(self.status("a")), *told[-20:]])

    async def _attempt_all(self, trials: list[Trial], at_once: int) -> None:
        free = asyncio.Semaphore(at_once)

        async def one(trial: Trial) -> None:
            async with free:
                trial.source = (trial.home or self._home, next(self._ports))
                self.wire.attacks[trial.source] = trial.attack
                self.wire.sessions.pop(trial.source, None)
                if trial.led_to:
                    self.wire.led_to[trial.source] = trial.led_to
                made = self._socket()
                made.bind(trial.source)
                sender = Sender(made, trial.patience, thinks=trial.thinks)
                trial.sent = await sender.run((trial.target, 25), trial.mail)

        await asyncio.gather(*map(one, trials))

    def _socket(self) -> socket.socket:
        if not self._spare:
            namespace = self.lab.namespace("mta-a")
            self._spare = inside(namespace, lambda: [_sender_socket() for _ in range(256)])
        return self._spare.pop()

    # --- What the gateways tell ---------------------------------------------------------------------------

    def status(self, letter: str) -> dict[str, Any]:
        answer = gateways.ask(self.lab.gateway(letter))
        assert answer is not None, f"gateway {letter} does not answer"
        return answer

    def _log_size(self, letter: str) -> int:
        return self.lab.gateway(letter).log.stat().st_size

    def log_lines(self, letter: str, offset: int = 0) -> list[str]:
        with self.lab.gateway(letter).log.open("rb") as log:
            log.seek(offset)
            octets = log.read()
        return octets[: octets.rfind(b"\n") + 1].decode(errors="replace").splitlines()

    def _wait_told(
        self, letter: str, offset: int, wanted: dict[tuple[int, str], Trial]
    ) -> dict[tuple[int, str], list[Told]]:
        """All sessions since `offset` by source port and destination, once all are over.

        `wanted`: and those of these trials are there; what is not soon has passed by this gateway.
        """
        began = time.monotonic()
        while True:
            told = self._told(letter, offset)
            going_on = [ends for ends, sessions in told.items() if not all(one.over for one in sessions)]
            missing = [ends for ends in wanted if ends not in told]
            passed = time.monotonic() - began
            if not going_on and (not missing or passed > BEHIND_SECONDS):
                return told
            assert passed < QUIET_SECONDS, f"gateway {letter}: {len(going_on)} sessions go on: {going_on[:3]}"
            time.sleep(0.1)

    def _wait_begun_at_r(self, offset: int, received: list[Received]) -> None:
        """Until R has told of all that reached the receiver. One that its gate let by is in no log of its:
        what became of such a trial is the verdict's matter."""
        wanted = {(one.source[1], one.destination[0]) for one in received}
        with contextlib.suppress(AssertionError):
            eventually(lambda: wanted <= self._told("b", offset).keys(), BEHIND_SECONDS)

    def _told(self, letter: str, offset: int) -> dict[tuple[int, str], list[Told]]:
        by_id: dict[str, Told] = {}
        by_ends: dict[tuple[int, str], list[Told]] = {}
        for line in self.log_lines(letter, offset):
            assert "reason=internal" not in line, line
            found = _SESSION.match(line)
            if not found:
                continue
            level, session, event, rest = found.groups()
            fields = {key: value.strip('"') for key, value in _FIELD.findall(rest)} | {"level": level}
            told = by_id.setdefault(session, Told())
            told.events.append((event, fields))
            if event == "begun":
                ends = int(fields["source"].rpartition(":")[2]), fields["to"].rpartition(":")[0]
                by_ends.setdefault(ends, []).append(told)
        return by_ends


def _sender_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


@contextlib.contextmanager
def opened(lab: Lab, *, scripted: bool = True, tickets: bool = False) -> Iterator[Ground]:
    """The ground on a lab that is built, and whose gateways do not run yet.

    `scripted`: with mail servers of its own; else the lab has real ones. `tickets`: sessions leave some; else
    each has a whole handshake, whatever was before it.
    """
    for one in lab.gateways:
        more = LIMITS if tickets else NO_TICKETS + LIMITS
        one.configuration.write_text(one.configuration.read_text() + more)
    made = Ground(lab, scripted=scripted)
    made.open()
    try:
        # The addresses first: what lies behind its inside interface a gateway learns when it starts.
        lab.start_gateways()
        yield made
    finally:
        made.close()
