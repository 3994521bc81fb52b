"""Mail of the lab: words that can be found again, a way in, and a watch on the mailboxes.

Counterpart: `postfix`, whose instances carry it. What a mailbox holds is compared in `without_traces`,
which takes out only what differs between any two deliveries of one mail (queue ids and times).
"""

from __future__ import annotations

import base64
import re
import smtplib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.lab.inotify import CREATED, MOVED_TO, Inotify
from gateway.lab.network import socket_in
from gateway.lab.postfix import Instance
from gateway.lab.topology import SMTP_PORT

SUBJECT_WORDS: Final = "moonlit-heron"
BODY_WORDS: Final = "saltmarsh-lantern"
ATTACHMENT_WORDS: Final = "winter-orchard"
IDENTITY_FIELD: Final = "X-Lab-Mail"
BASE64_LINE_OCTETS: Final = 57
"""76 characters, as every mail program folds base64."""
HEADER_OCTETS: Final = 16 * 1024
"""A mail's own header fields, trace fields included, are within so much of its beginning."""
SESSION_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail: the same name and size make the same octets, whenever it is written."""

    name: str
    sender: str
    recipient: str
    attachment_octets: int = 0
    others: tuple[str, ...] = ()
    """Further recipients, of the envelope alone."""

    @property
    def words(self) -> dict[str, bytes]:
        """What a listener would look for, by kind."""
        words = {
            "envelope": f"<{self.recipient}>".encode(),
            "subject": SUBJECT_WORDS.encode(),
            "body": BODY_WORDS.encode(),
        }
        if self.attachment_octets:
            words["attachment"] = base64.b64encode(_attachment_line(self.name, 0))
        return words

    def octets(self) -> bytes:
        """The mail with CRLF line ends, as it goes to a mail server."""
        boundary = f"=_{self.name}"
        kind = f'multipart/mixed; boundary="{boundary}"' if self.attachment_octets else "text/plain"
        head = (
            f"From: <{self.sender}>\r\nTo: <{self.recipient}>\r\n"
            f"Subject: {SUBJECT_WORDS} {self.name}\r\n"
            f"Date: Thu, 01 Jan 2026 12:00:00 +0000\r\nMessage-ID: <{self.name}@lab.test>\r\n"
            f"{IDENTITY_FIELD}: {self.name}\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\n\r\n"
        )
        text = f"The word is {BODY_WORDS}.\r\n.A line that begins with a dot.\r\n"
        if not self.attachment_octets:
            return (head + text).encode()
        opening = f"--{boundary}\r\nContent-Type: text/plain\r\n\r\n{text}\r\n--{boundary}\r\n"
        fields = "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        closing = f"--{boundary}--\r\n"
        return b"".join(
            [head.encode(), opening.encode(), fields.encode(), self._attachment(), closing.encode()]
        )

    def _attachment(self) -> bytes:
        count = -(-self.attachment_octets // BASE64_LINE_OCTETS)
        return b"".join(base64.b64encode(_attachment_line(self.name, i)) + b"\r\n" for i in range(count))


def _attachment_line(name: str, number: int) -> bytes:
    line = f"{ATTACHMENT_WORDS} {name} {number:08d}".encode()
    return line.ljust(BASE64_LINE_OCTETS, b".")[:BASE64_LINE_OCTETS]


class _Session(smtplib.SMTP):
    """smtplib's client, on a socket of a namespace of the lab."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        super().__init__("127.0.0.1", SMTP_PORT, local_hostname="localhost", timeout=SESSION_SECONDS)

    def _get_socket(self, host: str, port: int, timeout: float | None) -> socket.socket:
        connection = socket_in(self._namespace, socket.AF_INET, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect((host, port))
        except BaseException:
            connection.close()
            raise
        return connection


def inject(instance: Instance, mails: list[Mail]) -> None:
    """Give the mails to the namespace's own mail server, over its loopback, in one session."""
    try:
        with _Session(instance.namespace) as session:
            for mail in mails:
                session.sendmail(mail.sender, [mail.recipient, *mail.others], mail.octets())
    except (OSError, smtplib.SMTPException) as error:
        raise EnvironmentFailureError(f"{instance.node.name} did not take the mail: {error}") from None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One mail as it lies in a mailbox."""

    name: str
    path: Path
    at: float
    """time.time() when it was seen there."""


class MailboxWatch:
    """Sees mail arrive in one Maildir. Begin before the mail is sent; end with `close`."""

    def __init__(self, mailbox: Path) -> None:
        self._mailbox = mailbox
        self._folder = mailbox / "new"
        self._inotify = Inotify(self._folder, MOVED_TO | CREATED)
        self._files = {entry.name for entry in self._folder.iterdir()}
        self._seen: dict[str, list[Delivery]] = {}

    def __enter__(self) -> MailboxWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._inotify.close()

    def wait(
        self, names: list[str], seconds: float, progress: Callable[[Delivery], None] | None = None
    ) -> dict[str, Delivery]:
        """Wait for all of these mails. Raises EnvironmentFailureError naming what has not come in time."""
        deadline = time.monotonic() + seconds
        missing = set(names) - set(self._seen)
        while missing:
            if not self._inotify.wait(deadline - time.monotonic()):
                raise EnvironmentFailureError(
                    f"{len(missing)} of {len(names)} mails did not reach {self._mailbox} "
                    f"within {seconds:.0f} s: {', '.join(sorted(missing)[:3])}"
                )
            for delivery in self._look():
                missing.discard(delivery.name)
                if progress is not None:
                    progress(delivery)
        return {name: self._seen[name][0] for name in names}

    def copies(self, name: str) -> int:
        """How often this mail has been delivered since the watch began."""
        return len(self.paths(name))

    def paths(self, name: str) -> list[Path]:
        """All copies of this mail that have been delivered since the watch began."""
        self._look()
        return [delivery.path for delivery in self._seen.get(name, [])]

    def _look(self) -> list[Delivery]:
        now = time.time()
        fresh = []
        for entry in sorted(self._folder.iterdir()):
            if entry.name not in self._files:
                self._files.add(entry.name)
                delivery = Delivery(name_of(entry), entry, now)
                self._seen.setdefault(delivery.name, []).append(delivery)
                fresh.append(delivery)
        return fresh


def name_of(path: Path) -> str:
    """The mail's own name from its header; empty for a mail that is not the lab's (a bounce)."""
    with path.open("rb") as stored:
        head = stored.read(HEADER_OCTETS)
    found = re.search(rb"^" + IDENTITY_FIELD.encode() + rb": (\S+)\r?$", head, re.MULTILINE)
    return found[1].decode() if found else ""


_QUEUE_ID = re.compile(rb"(\bid )[0-9A-Za-z]+")
_TIME = re.compile(
    rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [ 0-3]?\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}( \([A-Z]+\))?"
)


def without_traces(stored: bytes) -> bytes:
    """A delivered mail with the queue ids and times of its Received fields replaced; all else as it is."""
    head, gap, body = stored.partition(b"\n\n")
    fields = re.split(rb"\n(?![ \t])", head)
    for number, text in enumerate(fields):
        if text.startswith(b"Received:"):
            fields[number] = _TIME.sub(b"TIME", _QUEUE_ID.sub(rb"\1ID", text))
    return b"\n".join(fields) + gap + body
