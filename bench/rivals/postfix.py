"""A pair of Postfix relays with opportunistic TLS between them: each stores a mail before it sends it on.

What a smart host on either side does. Postfix as it comes; what keeps it inside the bench (no DNS, next hops
by address) is the lab's way, and `smtp_tls_security_level = may` and the session cache are Debian's own. The
sender is done when the first relay has the mail on disk: a round is over, and a mail delivered, only when the
second relay has the receiver's answer (`Arrivals`).
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import time
from pathlib import Path
from typing import Final

from bench.planes import Plane
from bench.rivals import places
from bench.rivals.places import Place
from bench.rivals.stunnel import make_certificate
from gateway.lab import processes
from gateway.lab.inotify import MODIFIED, Inotify
from gateway.lab.postfix import MASTER_CF

SMTP_PORT: Final = 25
LARGEST_MAIL_OCTETS: Final = 256 * 1024 * 1024
ARRIVAL_SECONDS: Final = 60.0

MAIN_CF: Final = """\
# Written by the bench; gone with it.
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
multi_instance_enable = no
myhostname = {name}
mydestination =
inet_interfaces = all
inet_protocols = ipv4
mynetworks = {trusted}
relay_domains = b.test
relayhost = [{next_hop}]
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
biff = no
alias_maps =
alias_database =
local_recipient_maps =
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
message_size_limit = {largest}
smtp_tls_security_level = may
smtp_tls_session_cache_database = btree:{folder}/data/smtp_scache
"""
RECEIVING_TLS: Final = """\
smtpd_tls_security_level = may
smtpd_tls_cert_file = {folder}/certificate.pem
smtpd_tls_key_file = {folder}/key.pem
smtpd_tls_loglevel = 1
"""
_SENT: Final = re.compile(r" to=<([^>]*)>.* status=sent ")
_ENCRYPTED: Final = re.compile(r"TLS connection established from .*: TLSv1\.3 ")


def main_cf(folder: Path, *, name: str, trusted: str, next_hop: str, receiving: bool) -> str:
    text = MAIN_CF + (RECEIVING_TLS if receiving else "")
    return text.format(
        folder=folder, name=name, trusted=trusted, next_hop=next_hop, largest=LARGEST_MAIL_OCTETS
    )


def stand(plane: Plane) -> None:
    sending, receiving = places.sending(plane), places.receiving(plane)
    # Its processes reach their folders as a user of their own.
    plane.folder.parent.chmod(0o711)
    for place in (receiving, sending):
        place.folder.mkdir(mode=0o755)
    make_certificate(receiving, "gw-b.b.test")
    to_server = main_cf(
        receiving.folder,
        name="gw-b.b.test",
        trusted="127.0.0.0/8",
        next_hop=plane.destinations[0],
        receiving=True,
    )
    to_relay = main_cf(
        sending.folder,
        name="gw-a.a.test",
        trusted=plane.table.networks["site-a"].v4,
        next_hop=plane.table.nodes["gw-b"].addresses["wire"].v4,
        receiving=False,
    )
    _start(receiving, to_server)
    _start(sending, to_relay)
    places.apply(sending, places.relay_rules(sending.clients))


def _start(place: Place, text: str) -> None:
    config, data = place.folder / "etc", place.folder / "data"
    for folder in (config, data, place.folder / "queue"):
        folder.mkdir(mode=0o755)
    os.chown(data, pwd.getpwnam("postfix").pw_uid, -1)
    (config / "main.cf").write_text(text)
    (config / "master.cf").write_text(MASTER_CF)
    # It makes the queue's folders; `start` would put the master into the background, out of our reach.
    processes.run_in(place.namespace, ["postfix", "-c", str(config), "check"])
    daemons = subprocess.run(
        ["postconf", "-c", str(config), "-h", "daemon_directory"], capture_output=True, text=True, check=True
    ).stdout.strip()
    process = places.start(place, [f"{daemons}/master", "-c", str(config), "-d"])
    places.wait_listening(place, SMTP_PORT, process)


def sent_to(line: str) -> str | None:
    """The recipient of a mail that the next server has taken, or None for any other line of the log."""
    found = _SENT.search(line)
    return found[1] if found else None


def sealed_sessions(plane: Plane) -> int:
    """Sessions that came to the second relay by TLS 1.3."""
    return len(_ENCRYPTED.findall((places.receiving(plane).folder / "mail.log").read_text(errors="replace")))


class Arrivals:
    """What the receiver has taken from the second relay, from now on; a context manager."""

    def __init__(self, plane: Plane) -> None:
        self._path = places.receiving(plane).folder / "mail.log"
        self._file = self._path.open(encoding="utf-8", errors="replace")
        self._file.seek(0, os.SEEK_END)
        self._rest = ""
        self._watch = Inotify(self._path, MODIFIED)
        self.seen: list[tuple[float, str]] = []
        """When (monotonic clock) each was seen, and its recipient."""

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()
        self._file.close()

    def wait(self, count: int) -> None:
        """Until so many have arrived. Raises SystemExit when that takes too long."""
        if not self.come(count, ARRIVAL_SECONDS):
            raise SystemExit(f"bench: {len(self.seen)} of {count} mails came through the Postfix relays")

    def come(self, count: int, seconds: float) -> bool:
        """Whether so many have arrived within these seconds."""
        deadline = time.monotonic() + seconds
        self.look()
        while len(self.seen) < count:
            if time.monotonic() > deadline:
                return False
            self._watch.wait(deadline - time.monotonic())
            self.look()
        return True

    def look(self) -> None:
        text = self._rest + self._file.read()
        now = time.monotonic()
        *lines, self._rest = text.split("\n")
        self.seen += [(now, to) for line in lines if (to := sent_to(line)) is not None]
