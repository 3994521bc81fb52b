"""The site's identity in the running daemon: read at the start, looked at each second, switched when due.

Endorses the static key of the day, so that workers need no private key of the identity's.

A command changes the file; the workers are told of what it says then, and running sessions end as they began.
What cannot be read is an alarm, and the identity in use stays in use.
Counterparts: `identity_file`, `pool` (which tells the workers), `operator.identity` (the commands).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace

from gateway.config import Config
from gateway.crypto.keys import StaticKey, endorse
from gateway.crypto.primitives import X25519_OCTETS, X25519Private
from gateway.crypto.rotation import SiteIdentity, switched
from gateway.errors import EnvironmentFailureError, Reason
from gateway.observe.log import Level, Log
from gateway.policy import limits
from gateway.runtime import identity_file
from gateway.runtime.machine import this_machine
from gateway.runtime.order import Presented

Alarm = Callable[[Reason, str, str], None]


class Site:
    """Made at the start; raises EnvironmentFailureError where there is no identity to be had."""

    def __init__(
        self, config: Config, log: Log, alarm: Alarm, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = config.identity_file
        self._log = log
        self._alarm = alarm
        self._clock = clock
        opened = identity_file.load_or_make(self._path)
        self.identity: SiteIdentity = opened.site
        if opened.set_aside is not None:
            alarm(
                Reason.IDENTITY_OF_ANOTHER_MACHINE,
                "identity",
                f"set aside as {opened.set_aside}; this machine has a new one,"
                f" {opened.site.key.public.fingerprint}",
            )
        self._seen: tuple[int, int, int] | None = None
        self._presented: Presented | None = None
        self.look()

    @property
    def presented(self) -> Presented:
        """The same object as long as nothing of it changes; the static key is drawn anew each day."""
        now = int(self._clock())
        today, statements = now // limits.DAY_SECONDS, self.identity.statements(now)
        before, identity = self._presented, self.identity.key.public.octets
        if before is not None and before.identity == identity and before.epoch == today:
            if before.statements != statements:
                self._presented = replace(before, statements=statements)
        else:
            drawn = os.urandom(X25519_OCTETS)
            endorsed = endorse(self.identity.key, StaticKey(X25519Private(drawn), today), today)
            self._presented = Presented(
                identity, drawn, today, endorsed.not_after, endorsed.endorsement, statements
            )
        assert self._presented is not None
        return self._presented

    @property
    def seed(self) -> bytes:
        """The private key of the identity in use, for the signer and nobody else."""
        return self.identity.seed

    @property
    def fingerprint(self) -> str:
        return self.identity.key.public.fingerprint

    def as_json(self) -> dict[str, object]:
        """For `status`: never a key."""
        upcoming = self.identity.next
        return {
            "since": self.identity.since,
            "next": self._next_fingerprint(),
            "use_at": upcoming.use_at if upcoming is not None else None,
            "statements": len(self.presented.statements),
        }

    async def keep(self, changed: Callable[[Presented], None]) -> None:
        """For ever: tell `changed` what is presented, whenever that is something else."""
        told = self.presented
        while True:
            await asyncio.sleep(limits.IDENTITY_LOOK_SECONDS)
            self.look()
            if self.presented is not told:
                told = self.presented
                changed(told)

    def look(self) -> None:
        """Take over what a command has written; make the switch that is due."""
        before, before_next = self.fingerprint, self._next_fingerprint()
        try:
            # Before it is read: what is written from now on is another one, and read at the next look.
            found = self._file_on_disk()
            if found != self._seen:
                self.identity = self._on_disk()
            now = int(self._clock())
            if switched(self.identity, now) is not self.identity:
                self.identity = identity_file.change(self._path, lambda site: switched(site, now))
            self._seen = found
        except EnvironmentFailureError as error:
            self._alarm(Reason.IDENTITY_UNUSABLE, "identity", str(error))
        if before != self.fingerprint:
            self._log.fact("identity", "switched", level=Level.NOTICE, identity=self.fingerprint)
        elif before_next != self._next_fingerprint():
            upcoming = self._next_fingerprint() or "none"
            self._log.fact("identity", "next", level=Level.NOTICE, identity=upcoming)

    def _next_fingerprint(self) -> str | None:
        key = self.identity.next_key
        return key.public.fingerprint if key is not None else None

    @property
    def trouble(self) -> str:
        """Why a supervisor that began now would not have this identity; empty if it would."""
        try:
            self._on_disk()
        except EnvironmentFailureError as error:
            return str(error)
        return ""

    def _on_disk(self) -> SiteIdentity:
        """Raises EnvironmentFailureError."""
        kept = identity_file.load(self._path)
        if kept is None:
            raise EnvironmentFailureError(
                f"{self._path}: the identity is gone; it stays in use until the stop"
            )
        if kept.is_of_another(this_machine()):
            raise EnvironmentFailureError(f"{self._path}: made on another machine; not taken over")
        return kept.site

    def _file_on_disk(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
