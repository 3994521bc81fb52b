"""The lab of `bench.chaos`, the side with gateways alone, under a load that can last for hours.

Mail from Postfix to Postfix goes in all directions, small and large, by both families, to one recipient or
to several; raw sessions last beside it. What has arrived is compared and taken out of the mailbox, so that
the lab does not grow with the time. The gateways learn dead ends, as they do where nobody says otherwise.
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from math import inf
from typing import Any, Final

from bench.chaos.facts import Fact
from bench.chaos.ground import SINK_PORT, World
from bench.chaos.judge import Posted, Window, judge
from bench.chaos.service import Service
from bench.rivals.variants import replaced
from bench.soak.account import Account, Place
from gateway.errors import EnvironmentFailureError
from gateway.lab import postfix, processes
from gateway.lab.mail import Mail, name_of

LASTING_PAIRS: Final = 2
"""Of the eight pairs of addresses: sessions of a quarter of an hour."""
MAIL_EVERY_SECONDS: Final = (1.5, 3.5)
ROUTES: Final = (("a", "b", 5), ("a", "c", 2), ("c", "b", 2), ("b", "a", 1), ("b", "c", 1))
SIZES: Final = ((0, 60), (30_000, 30), (300_000, 8), (3_000_000, 2))
SEVERAL: Final = 0.2
"""So many mails have three recipients, and of these a third one at yet another site."""
FLUSH_SECONDS: Final = 5.0
KEPT: Final = ("mail", "taken")


class Field(World):
    """One lab, its load, and the account of all mail."""

    def __init__(self, seed: int, name: str) -> None:
        super().__init__(guarded=True, name=name)
        self.account = Account()
        self.counts: dict[str, int] = {"probes": 0, "probes_failed": 0, "dark": 0, "clear": 0}
        self.broken: list[float] = []
        """When a raw session ended otherwise than by its client; monotonic."""
        self._random = random.Random(seed)
        self._mails: dict[str, Mail] = {}
        self._guard = threading.Lock()
        self._logs_read = dict.fromkeys("abc", 0)
        self._seen: set[tuple[str, str, int]] = set()
        self._refused = 0

    def up(self) -> None:
        super().up()
        for service in self.services.values():
            service.wait_ready()

    def _service(self, letter: str) -> Service:
        service = super()._service(letter)
        configuration = service.gateway.configuration
        configuration.write_text(replaced(configuration.read_text(), "minutes = 0", "minutes = 30"))
        return service

    def _start_load(self) -> None:
        steady, lasting = self.targets[LASTING_PAIRS:], self.targets[:LASTING_PAIRS]
        self._start_process("server", "mta-b", "bench.chaos.server", str(SINK_PORT))
        self._start_process("ear", "wire", "bench.chaos.ear")
        self._start_process("clients", "mta-a", "bench.soak.load", "steady", *steady)
        self._start_process("lasting", "mta-a", "bench.soak.load", "lasting", *lasting)

    # --- Mail ------------------------------------------------------------------------------------------

    def _post(self) -> None:
        while not self._posting.wait(self._random.uniform(*MAIL_EVERY_SECONDS)):
            sender, mail, places = self._compose()
            with self._guard:
                self._mails[mail.name] = mail
                self.account.sent(mail.name, places)
            try:
                self.lab.send(sender, [mail])
            except (EnvironmentFailureError, OSError):
                # Its own mail server did not take it: then nobody has promised anything.
                with self._guard:
                    self.account.expected -= {(mail.name, place) for place in places}
                    self._refused += 1

    def _compose(self) -> tuple[str, Mail, list[Place]]:
        ((source, target, _),) = self._random.choices(ROUTES, [weight for *_, weight in ROUTES])
        ((size, _),) = self._random.choices(SIZES, [weight for _, weight in SIZES])
        six = self._random.random() < 0.5
        (mail,) = self.lab.compose(source, target, size=size, six=six)
        node = self.lab.mail_server(target).node
        places = [(target, node.user)]
        if self._random.random() < SEVERAL:
            places += [(target, user) for user in postfix.COMMON_USERS]
            (third,) = {"a", "b", "c"} - {source, target}
            if self._random.random() < 1 / 3:
                places.append((third, "user"))
        label = "six." if six else ""
        others = tuple(f"{user}@{label}{letter}.test" for letter, user in places[1:])
        return source, Mail(mail.name, mail.sender, mail.recipient, size, others), places

    def take_in(self) -> None:
        """What has arrived, what the load has written down, and what the mail servers say."""
        self.read()
        for fact in self.facts:
            self._count(fact)
        self.facts = [fact for fact in self.facts if fact["kind"] in KEPT]
        with self._guard:
            for letter in "abc":
                self._take_in_from(letter)

    def _take_in_from(self, letter: str) -> None:
        server = self.lab.mail_server(letter)
        text = server.log.read_bytes()[self._logs_read[letter] :]
        whole = text[: text.rfind(b"\n") + 1]
        self._logs_read[letter] += len(whole)
        self.account.read_log(letter, whole.decode(errors="replace").splitlines())
        for user in server.users:
            for path in (server.mailbox(user) / "new").iterdir():
                mail = self._mails.get(name_of(path))
                expected = mail.octets().replace(b"\r\n", b"\n") if mail is not None else b""
                whole_mail = path.read_bytes().endswith(expected)
                self.account.came(mail.name if mail else "", (letter, user), whole=whole_mail)
                path.unlink()

    def _count(self, fact: Fact) -> None:
        kind = fact["kind"]
        if kind == "probe":
            self.counts["probes"] += 1
            self.counts["probes_failed"] += fact["greeted"] is None
        elif kind == "broken":
            self.broken.append(fact["at"])
        elif kind in ("dark", "clear"):
            one = (kind, fact["source"], fact["port"])
            self.counts[kind] += one not in self._seen
            self._seen.add(one)

    # --- The end ---------------------------------------------------------------------------------------

    def stop_load(self) -> None:
        """Nothing new begins; sessions that last are ended."""
        self._posting.set()
        for name in ("clients", "lasting"):
            process = processes.read_pid_file(self.lab.place.folder / f"{name}.pid")
            if process is not None:
                process.signal(signal.SIGTERM)
                process.wait_gone(FLUSH_SECONDS)

    def drain(self, seconds: float) -> int:
        """Until every queue is empty and every mail is there, or so long; how many mails are still queued."""
        deadline = time.monotonic() + seconds
        while True:
            self.take_in()
            queued = sum(len(postfix.queued(server)) for server in self.lab.mail_servers)
            if time.monotonic() > deadline or (not queued and not self.account.missing):
                return queued
            for server in self.lab.mail_servers:
                with contextlib.suppress(EnvironmentFailureError):
                    postfix.flush(server)
            time.sleep(FLUSH_SECONDS)

    def result(self) -> dict[str, Any]:
        """All mail so far: by Postfix, and by the raw sessions."""
        seen = judge(self.facts, Window(0.0, inf), Posted(), self.died_with(), inf)
        raw = {name: getattr(seen, name) for name in ("mails", "lost", "doubled", "altered", "in_doubt")}
        posted = {"mails": len(self._mails), "refused": self._refused, **self.account.result()}
        missing = [f"{name} to {'@'.join(reversed(place))}" for name, place in self.account.missing[:20]]
        return {"postfix": posted, "raw": raw, "missing": missing, "broken": len(self.broken), **self.counts}
