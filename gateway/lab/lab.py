"""The lab: two sites with gateways and one without, on this machine, with real mail servers.

It must leave nothing behind: `down` ends every process that lives in its namespaces, whoever started it,
and removes namespaces, folder and lock, also after any part of it was killed at any moment. It must never
touch the machine's own network namespace, Postfix or files. The state file is written before anything
is made, so that what a killed `up` left is known as ours.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway.config import Placement
from gateway.errors import EnvironmentFailureError
from gateway.lab import gateways, listener, network, postfix, processes, wan
from gateway.lab.gateways import Gateway
from gateway.lab.listener import Listener
from gateway.lab.mail import Delivery, Mail, MailboxWatch, inject
from gateway.lab.place import Place, boot_id, take_lock
from gateway.lab.postfix import Instance
from gateway.lab.topology import SMTP_PORT, Family, Role, Topology, load
from gateway.lab.wan import Line, Wan

if TYPE_CHECKING:
    from gateway.eyes import wire

Item = TypeVar("Item")

DELIVERY_SECONDS: Final = 120.0
CONNECT_SECONDS: Final = 20.0
PROGRAMS: Final = {
    "nsenter": "util-linux",
    "nft": "nftables",
    "iptables": "iptables",
    "openssl": "openssl",
}
"""What the lab runs, and the Debian package it comes in. (Postfix has a check of its own.)"""


@dataclass(frozen=True, slots=True)
class Delivered:
    """One mail that has come in."""

    mail: Mail
    delivery: Delivery
    seconds: float
    """From the moment before the sender's own mail server was given it (and those sent along with it)."""


@dataclass(slots=True)
class Lab:
    """One lab. Every method but `up` and `down` needs it to be up."""

    place: Place = field(default_factory=Place)
    topology: Topology = field(default_factory=load)
    placement: Placement | None = None
    """Where the gateways stand, for `up` and what is built by hand; None: as in the lab that is up."""
    _lock: int = -1

    # --- Names and places ----------------------------------------------------------------------------

    def namespace(self, node: str) -> str:
        """The namespace of a node, by its short name; raises EnvironmentFailureError for unknown ones."""
        prefix = self.place.prefix or self.topology.prefix
        name = node.removeprefix(prefix)
        if name not in self.topology.nodes:
            raise EnvironmentFailureError(f"no node {node}; there are: {', '.join(self.topology.nodes)}")
        return prefix + name

    @property
    def namespaces(self) -> list[str]:
        return [self.namespace(node) for node in self.topology.nodes]

    def mail_server(self, letter: str) -> Instance:
        """The Postfix of site a, b or c."""
        try:
            node = self.topology.mail_server(letter)
        except KeyError:
            raise EnvironmentFailureError(f"no site {letter}; there are: a, b, c") from None
        return Instance(node, self.namespace(node.name), self.place.folder / node.name)

    @property
    def mail_servers(self) -> list[Instance]:
        return [self.mail_server(node.letter) for node in self.topology.with_role(Role.MAIL)]

    def gateway(self, letter: str) -> Gateway:
        """The gateway of site a or b."""
        for node in self.topology.with_role(Role.GATEWAY):
            if node.letter == letter:
                placement = self.gateways_stand
                home = self.topology.mail_server(letter) if placement is Placement.HOST else node
                namespace, folder = self.namespace(home.name), self.place.folder / node.name
                return Gateway(node, namespace, folder, placement=placement)
        raise EnvironmentFailureError(f"no gateway {letter}; there are: a, b")

    def words_on(self, node: str, words: tuple[str, ...]) -> list[str]:
        """What is run for `words` on a node: `nightmail` is this one, asked of the gateway there."""
        if words[0] != "nightmail":
            return list(words)
        here = [one for one in self.gateways if one.namespace == self.namespace(node)]
        which = ["--config", str(here[0].configuration)] if here else []
        return gateways.nightmail_command(*which, *words[1:])

    @property
    def gateways_stand(self) -> Placement:
        """On the routers before the mail servers, if nothing else was asked for."""
        if self.placement is not None:
            return self.placement
        return Placement((self.place.state() or {}).get("placement", Placement.ROUTER.value))

    @property
    def gateways(self) -> list[Gateway]:
        return [self.gateway(node.letter) for node in self.topology.with_role(Role.GATEWAY)]

    @property
    def listener(self) -> Listener:
        folder = self.place.folder / "wire"
        return Listener(
            self.namespace("wire"), folder / "wire.pcap", folder / "listener.pid", folder / "listener.log"
        )

    @property
    def line(self) -> Line:
        return Line(self.namespace("wire"), self.place.folder / "wire")

    # --- Up and down ---------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether there is a lab that was built since the machine booted, or parts of one."""
        state = self.place.state()
        return (
            state is not None and state.get("boot") == boot_id() and bool(network.existing(self.namespaces))
        )

    def up(
        self,
        *,
        with_gateways: bool = True,
        offer_starttls: bool = False,
        temporary: bool = False,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Build it all and wait until it works. On any failure everything is taken away again.

        A `temporary` lab lives as long as the process that holds the lock: if that was killed, the next `up`
        clears what it left.
        """
        _require_root()
        _require_programs()
        with self.locked():
            state = self.place.state()
            if self.is_up and not (state is not None and state.get("temporary")):
                raise EnvironmentFailureError("a lab is up already; `nightmail lab down` takes it down")
            self._refuse_foreign_namespaces()
            self._clear()
            try:
                self._write_first_state(temporary)
                self._build(with_gateways, offer_starttls, progress)
            except BaseException:
                self._clear()
                raise

    def down(self) -> bool:
        """Take everything away; False if there was nothing."""
        _require_root()
        with self.locked():
            there = self.place.folder.exists()
            if not there:
                self._refuse_foreign_namespaces()
            self._clear()
            return there

    def keep(self) -> None:
        """Let a temporary lab outlive this process."""
        self.place.write_state({**(self.place.state() or {}), "temporary": False})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other lab command that changes something out. May be nested; dies with the process."""
        if self._lock >= 0:
            yield
            return
        self._lock = take_lock(self.place.lock)
        try:
            yield
        finally:
            self.place.lock.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def require_up(self) -> None:
        """Raise EnvironmentFailureError in one line if there is no lab, or no right to use it."""
        _require_root()
        if not self.is_up:
            raise EnvironmentFailureError("no lab is up; `nightmail lab up` builds one")

    def _build(self, with_gateways: bool, offer_starttls: bool, progress: Callable[[str], None]) -> None:
        progress("namespaces, cables, addresses")
        network.create(self.namespaces)
        network.build(self.topology, self.namespace, bridged=self.gateways_stand is Placement.BRIDGE)
        (self.place.folder / "wire").mkdir()
        progress("a listener on the wire")
        listener.start(self.listener, self.topology, self.namespace("mta-c"))
        progress("three mail servers")
        for instance in self.mail_servers:
            starttls = offer_starttls and instance.node.letter == "b"
            postfix.prepare(instance, self.topology, offer_starttls=starttls)
        _at_once(postfix.start, self.mail_servers)
        for gateway in self.gateways:
            gateways.prepare(gateway)
        if with_gateways:
            progress("two gateways")
            self.start_gateways()

    def _clear(self) -> None:
        """What `down` does, for whatever part of a lab there is. Namespaces of no state file are not ours."""
        state = self.place.state()
        if state is not None and state.get("boot") == boot_id():
            processes.kill_all_in(self.namespaces)
            network.remove(self.namespaces)
            if not state.get("netns_mount", True):
                network.remove_netns_mount()
        if self.place.folder.exists():
            shutil.rmtree(self.place.folder)

    def _refuse_foreign_namespaces(self) -> None:
        state = self.place.state()
        found = network.existing(self.namespaces)
        if found and (state is None or state.get("boot") != boot_id()):
            raise EnvironmentFailureError(
                f"there is a network namespace {found[0]}, and no lab of ours made it: remove it first"
            )

    def _write_first_state(self, temporary: bool) -> None:
        self.place.folder.mkdir(parents=True, mode=0o755)
        mounted = network.has_netns_mount()
        self.place.write_state(
            {
                "boot": boot_id(),
                "began": time.time(),
                "netns_mount": mounted,
                "temporary": temporary,
                "placement": self.gateways_stand.value,
            }
        )

    # --- Gateways ------------------------------------------------------------------------------------

    def start_gateways(self) -> None:
        """Start both and wait until they serve."""
        for gateway in self.gateways:
            gateways.start(gateway)
        _at_once(gateways.wait_ready, self.gateways)

    def start_gateway(self, letter: str) -> dict[str, Any]:
        """Start one and wait until it serves; its status."""
        gateways.start(self.gateway(letter))
        return gateways.wait_ready(self.gateway(letter))

    def stop_gateway(self, letter: str, *, take_rules_down: bool = False) -> None:
        """End one by SIGTERM."""
        gateways.stop(self.gateway(letter), take_rules_down=take_rules_down)

    def kill_gateway(self, letter: str) -> int:
        """SIGKILL everything of one gateway; how many processes there were."""
        return gateways.kill(self.gateway(letter))

    # --- Mail ----------------------------------------------------------------------------------------

    def compose(
        self, sender: str, recipient: str, *, count: int = 1, size: int = 0, six: bool = False
    ) -> list[Mail]:
        """Mails from one site's user to another's, each with a name of its own. `six`: over IPv6."""
        source, target = self.mail_server(sender).node, self.mail_server(recipient).node
        batch = f"{sender}{recipient}-{secrets.token_hex(4)}"
        domain = target.six_domain if six else target.domain
        return [
            Mail(f"{batch}-{n}", f"{source.user}@{source.domain}", f"{target.user}@{domain}", size)
            for n in range(1, count + 1)
        ]

    def watch(self, letter: str) -> MailboxWatch:
        """Watch the mailbox that `compose` writes to. Begin before sending."""
        instance = self.mail_server(letter)
        return MailboxWatch(instance.mailbox(instance.node.user))

    def send(self, sender: str, mails: list[Mail]) -> None:
        """Give mails to the site's own mail server, and wait for nothing more."""
        inject(self.mail_server(sender), mails)

    def deliver(
        self, sender: str, recipient: str, mails: list[Mail], seconds: float = DELIVERY_SECONDS
    ) -> list[Delivered]:
        """Send, and wait until all are in the mailbox. Raises EnvironmentFailureError naming the missing."""
        with self.watch(recipient) as watch:
            began = time.time()
            self.send(sender, mails)
            found = watch.wait([mail.name for mail in mails], seconds)
        return [Delivered(mail, found[mail.name], found[mail.name].at - began) for mail in mails]

    def flush(self, letter: str, seconds: float = DELIVERY_SECONDS) -> bool:
        """Once a mail server has deferred what failed, make it try again now instead of in some minutes;
        whether anything had failed."""
        postfix.wait_deferred(self.mail_server(letter), seconds)
        failed = bool(postfix.queued(self.mail_server(letter)))
        postfix.flush(self.mail_server(letter))
        return failed

    # --- The wire ------------------------------------------------------------------------------------

    def set_wan(self, wanted: Wan) -> None:
        """A long or bad line, or with Wan() a short and good one again."""
        wan.set_to(self.line, wanted)

    def wire_sessions(self, since: float = 0.0) -> list[wire.WireSession]:
        """All that the listener has seen up to this moment, by session."""
        from gateway.eyes import wire  # and with it scapy, which loads for long

        listener.catch_up(self.listener, self.topology, self.namespace("mta-c"))
        return wire.sessions(self.listener.pcap, since)

    def site_of(self, address: str) -> str:
        """The letter of the site whose mail server has this address; empty for any other."""
        node = self.topology.node_at(address)
        return node.letter if node is not None and node.role is Role.MAIL else ""

    def fresh_greeting(self, sender: str, recipient: str, family: Family = Family.V4) -> bytes:
        """Connect from one mail server's namespace to the other mail server; the first line that it says."""
        kind = socket.AF_INET if family is Family.V4 else socket.AF_INET6
        target = self.mail_server(recipient).node.home.of(family)
        with network.socket_in(self.mail_server(sender).namespace, kind, socket.SOCK_STREAM) as connection:
            connection.settimeout(CONNECT_SECONDS)
            try:
                connection.connect((target, SMTP_PORT))
                with connection.makefile("rb") as lines:
                    return lines.readline()
            except OSError as error:
                raise EnvironmentFailureError(
                    f"no greeting from mta-{recipient} ({target}): {error}"
                ) from None


def _require_root() -> None:
    if os.geteuid() != 0:
        raise EnvironmentFailureError("the lab makes network namespaces, and that needs root: try sudo")


def _require_programs() -> None:
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        raise EnvironmentFailureError(f"the lab needs: apt-get install {' '.join(sorted(missing))}")
    postfix.require_postfix()


def _at_once(action: Callable[[Item], object], items: list[Item]) -> None:
    """Run for all items at the same time; the first failure is raised once all have ended."""
    with ThreadPoolExecutor(max_workers=len(items)) as pool:
        for outcome in [pool.submit(action, item) for item in items]:
            outcome.result()
