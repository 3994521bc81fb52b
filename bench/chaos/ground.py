"""Two labs that stand side by side, one with gateways and one without, and the same load in both.

Counterparts: `gateway.lab.lab` builds them, `clients`, `server` and `ear` run in them.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from bench.chaos.facts import Fact, Reader, moment_of
from bench.chaos.judge import Posted
from bench.chaos.service import Service
from gateway.config import Placement
from gateway.errors import EnvironmentFailureError
from gateway.lab import gateways, network, postfix, processes
from gateway.lab.lab import Lab
from gateway.lab.mail import Mail, MailboxWatch
from gateway.lab.place import Place

ROOT: Final = Path(gateways.__file__).parents[2]
STRANGERS: Final = 40
"""Further addresses of the raw mail server, each met at most once: then the memory of peers has to be
written."""
PAIRS: Final = 4
"""Of each family: the kernel balances queues by addresses, so one target's connections are one worker's."""
FIRST_EXTRA: Final = 101
SINK_PORT: Final = 2525
READY_SECONDS: Final = 20.0
POST_EVERY_SECONDS: Final = 0.5
CAME_SECONDS: Final = 90.0
"""So long a mail may take before it counts as lost."""
IN_DOUBT: Final = "message may be sent more than once"
"""Postfix's own words where the connection ended behind the final dot (RFC 1047)."""


class World:
    """One lab with its load."""

    def __init__(self, *, guarded: bool, name: str = "", placement: Placement = Placement.ROUTER) -> None:
        """`name` keeps its lab apart from others; it is part of the namespaces' names.

        Without gateways, `placement` says what stands where they would: a router, or a plain bridge.
        """
        self.guarded = guarded
        self.placement = placement
        name = name or ("with" if guarded else "without")
        self.lab = Lab(
            place=Place(
                prefix=f"nmc-{name}-",
                folder=Path(f"/var/tmp/nightmail-chaos-{name}"),
                lock=Path(f"/run/nightmail-chaos-{name}.lock"),
            ),
            placement=placement,
        )
        self.services: dict[str, Service] = {}
        self.facts: list[Fact] = []
        self.clear_from = 0.0
        self.notes: dict[str, float] = {}
        """What a fault measured itself."""
        self._readers: list[Reader] = []
        self._met = 0
        self._posting = threading.Event()
        self._posted: list[tuple[float, Mail]] = []
        self._watch: MailboxWatch | None = None

    # --- Up and down -----------------------------------------------------------------------------------

    def up(self) -> None:
        self.lab.up(with_gateways=False, temporary=True)
        listener = self.lab.listener.process
        if listener is not None:  # it would keep every octet
            listener.signal(signal.SIGTERM)
        for node in {self.home(letter) for letter in "ab"} | {"gw-a", "gw-b"}:
            self.sh(node, "sysctl -qw net.ipv6.conf.all.keep_addr_on_down=1 net.ipv4.icmp_ratelimit=0")
        self._give_addresses()
        if self.guarded:
            self.services = {letter: self._service(letter) for letter in "ab"}
            with ThreadPoolExecutor() as pool:
                list(pool.map(Service.start, self.services.values()))
        self._start_load()
        self._watch = self.lab.watch("b")
        threading.Thread(target=self._post, daemon=True).start()

    def _service(self, letter: str) -> Service:
        return Service(self.lab.gateway(letter))

    def down(self) -> None:
        self._posting.set()
        for service in self.services.values():
            service.close()
        if self._watch is not None:
            self._watch.close()
        with contextlib.suppress(EnvironmentFailureError):
            self.lab.down()

    def home(self, letter: str) -> str:
        """The node that a gateway is on, or would be."""
        return f"mta-{letter}" if self.placement is Placement.HOST else f"gw-{letter}"

    @property
    def targets(self) -> list[str]:
        numbers = range(FIRST_EXTRA, FIRST_EXTRA + PAIRS)
        return [f"10.12.0.{n}" for n in numbers] + [f"2001:db8:12::{n}" for n in numbers]

    @property
    def _strangers(self) -> list[str]:
        return [f"10.12.0.{FIRST_EXTRA + PAIRS + n}" for n in range(STRANGERS)]

    def meet_a_stranger(self) -> None:
        """One session with a destination that no gateway has met."""
        target = self._strangers[self._met % STRANGERS]
        self._met += 1
        with network.socket_in(self.lab.namespace("mta-a"), socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(READY_SECONDS)
            client.connect((target, 25))
            with client.makefile("rb") as lines:
                for words in (b"", b"EHLO stranger.a.test\r\n", b"NOOP\r\n", b"QUIT\r\n"):
                    client.sendall(words)
                    while lines.readline()[3:4] == b"-":
                        pass

    def _give_addresses(self) -> None:
        """The raw mail server has addresses of its own, beside Postfix, which has port 25 of all of them.

        So they lead to another port; or, where a gateway on the same machine would not take that, Postfix
        lets go of them.
        """
        lines = [
            f"addr add {each}/{'64' if ':' in each else '24'} dev eth0"
            for each in self.targets + self._strangers
        ]
        processes.run_in(
            self.lab.namespace("mta-b"), ["ip", "-batch", "-"], stdin="\n".join([*lines, ""]).encode()
        )
        if self.placement is Placement.HOST:
            self._narrow_postfix()
            return
        for each in self.targets + self._strangers:
            tool = "ip6tables" if ":" in each else "iptables"
            to = f"-p tcp -d {each} --dport 25 -j REDIRECT --to-ports {SINK_PORT}"
            self.sh("mta-b", f"{tool} -w -t nat -A PREROUTING {to}")

    def _narrow_postfix(self) -> None:
        """It listens on its own addresses alone."""
        server = self.lab.mail_server("b")
        home = server.node.home
        with (server.config / "main.cf").open("a") as main:
            main.write(f"inet_interfaces = {home.v4}, {home.v6}\n")
        for word in ("stop", "start"):
            processes.run_in(server.namespace, ["postfix", "-c", str(server.config), word])

    def _start_load(self) -> None:
        where = [str(SINK_PORT)]
        if self.placement is Placement.HOST:
            where = ["25", *self.targets, *self._strangers]
        self._start_process("server", "mta-b", "bench.chaos.server", *where)
        self._start_process("ear", "wire", "bench.chaos.ear")
        self._start_process("clients", "mta-a", "bench.chaos.clients", *self.targets)

    def _start_process(self, name: str, node: str, module: str, *words: str) -> None:
        """One process of the load, and wait for its first fact."""
        folder = self.lab.place.folder
        facts, log = folder / f"{name}.facts", folder / f"{name}.log"
        self._readers.append(Reader(facts))
        python = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", module]
        processes.start_in(
            self.lab.namespace(node),
            [*python, str(facts), *words],
            log=log,
            pid_file=folder / f"{name}.pid",
        )
        deadline = time.monotonic() + READY_SECONDS
        while not facts.exists() or not facts.stat().st_size:
            if time.monotonic() > deadline:
                raise EnvironmentFailureError(f"{name} does not start: {log.read_text()}")
            time.sleep(0.02)

    # --- The load --------------------------------------------------------------------------------------

    def read(self) -> None:
        """Take in what the load has written down."""
        for reader in self._readers:
            self.facts += reader.fresh()

    def forget_before(self, moment: float) -> None:
        """Of what is over, only the fate of mails is still asked for: a copy may come late."""
        self.facts = [fact for fact in self.facts if fact["kind"] == "taken" or moment_of(fact) >= moment]

    def wait_ended(self, moment: float, seconds: float) -> None:
        """Until everything of the raw load that began before this moment has ended."""
        deadline = time.monotonic() + seconds
        while True:
            self.read()
            oldest = max(
                (fact["began"] for fact in self.facts[-400:] if fact["kind"] == "oldest"), default=0.0
            )
            if oldest >= moment:
                return
            if time.monotonic() > deadline:
                raise EnvironmentFailureError(f"the load has not come to an end after {seconds:.0f} s")
            time.sleep(0.1)

    def _post(self) -> None:
        """Mail from Postfix to Postfix, in turn by IPv4 and IPv6."""
        six = False
        while not self._posting.wait(POST_EVERY_SECONDS):
            (mail,) = self.lab.compose("a", "b", size=0 if six else 30_000, six=six)
            began = time.monotonic()
            try:
                self.lab.send("a", [mail])
            except (EnvironmentFailureError, OSError):
                if not self._posting.is_set():
                    raise
                return
            self._posted.append((began, mail))
            six = not six

    def posted(self, begin: float, end: float) -> Posted:
        """Waits for the mails of this time, and says how they came."""
        assert self._watch is not None
        mails = [mail for began, mail in self._posted if begin <= began < end]
        found = Posted(sent=len(mails))
        server = self.lab.mail_server("a")
        deadline = time.monotonic() + CAME_SECONDS
        missing = {mail.name for mail in mails}
        while missing and time.monotonic() < deadline:
            missing = {name for name in missing if not self._watch.copies(name)}
            if missing:
                postfix.flush(server)
                time.sleep(0.2)
        found.lost = len(missing)
        doubts = server.log.read_text(errors="replace").count(IN_DOUBT)
        for mail in mails:
            copies = self._watch.paths(mail.name)
            more = max(0, len(copies) - 1)
            excused = min(more, doubts)
            found.in_doubt += excused
            found.doubled += more - excused
            whole = mail.octets().replace(b"\r\n", b"\n")
            found.altered += sum(not path.read_bytes().endswith(whole) for path in copies)
        return found

    def renew(self) -> None:
        """Let every lasting session be one that is made now."""
        clients = processes.read_pid_file(self.lab.place.folder / "clients.pid")
        if clients is None:
            words = (self.lab.place.folder / "clients.log").read_text().strip()
            raise EnvironmentFailureError(f"the load has ended: {words[-400:]}")
        clients.signal(signal.SIGUSR1)

    # --- What faults need ------------------------------------------------------------------------------

    def sh(self, node: str, command: str) -> str:
        """Run a command line (no shell) in a node's namespace; what it says."""
        return processes.run_in(self.lab.namespace(node), command.split()).stdout.decode()

    def feed(self, node: str, command: str, text: str) -> None:
        processes.run_in(self.lab.namespace(node), command.split(), stdin=text.encode())

    def inside(self, node: str, action: Any) -> Any:
        return network.inside(self.lab.namespace(node), action)

    def died_with(self) -> frozenset[int]:
        """Source ports of sessions that a gateway has begun and not ended: their process died with them."""
        return died_with(
            service.gateway.log.read_text(errors="replace").splitlines() for service in self.services.values()
        )


def died_with(logs: Iterable[list[str]]) -> frozenset[int]:
    """As the client has them: where a gateway dials from another port, the next one has that for a source."""
    died, clients = set[int](), dict[int, int]()
    for lines in logs:
        open_now: dict[str, int] = {}
        for line in lines:
            found = _SESSION.search(line)
            if found is None:
                continue
            if found[2] == "begun":
                source, from_port = _SOURCE.search(line), _DIALLED_FROM.search(line)
                open_now[found[1]] = int(source[1]) if source else 0
                if source and from_port:
                    clients[int(from_port[1])] = int(source[1])
            else:
                open_now.pop(found[1], None)
        died |= set(open_now.values())
    return frozenset(died | {clients[port] for port in died if port in clients})


_SESSION: Final = re.compile(r" session=(\w+) session (begun|ended)\b")
_SOURCE: Final = re.compile(r" source=\S+:(\d+)\b")
_DIALLED_FROM: Final = re.compile(r" dialled_from=(\d+)\b")


@contextlib.contextmanager
def standing(placement: Placement = Placement.ROUTER) -> Iterator[tuple[World, World]]:
    """With gateways, without; taken down again whatever happens."""
    worlds = World(guarded=True, placement=placement), World(guarded=False, placement=placement)
    with contextlib.ExitStack() as stack:
        for world in worlds:
            stack.enter_context(world.lab.locked())
            stack.callback(world.down)
        with ThreadPoolExecutor() as pool:
            list(pool.map(World.up, worlds))
        yield worlds
