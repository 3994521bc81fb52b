"""A pair of stunnels with STARTTLS between them: the usual way to put TLS around mail servers that have none.

The sending one (`client = yes`, `protocol = smtp`) connects, copies the greeting, says EHLO and STARTTLS
itself; the receiving one answers both and hands on the rest. Both are transparent in both directions:
destination by SO_ORIGINAL_DST, source (and port) the client's. TLS 1.3 and nothing older; peers are not
verified, as with opportunistic TLS. With `transparent` the sending one does not find its session cache, so
every handshake is a whole one, as ours is; it says so in three lines of error for each session, which the
bench spares it (`debug = crit`: it logs nothing). The receiving one logs as it comes.

The receiving side of `protocol = smtp` waits up to 200 ms whether the client begins with TLS at once, before
it greets: each session takes that long, and 20 at a time make no more than 100 a second.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from bench.planes import Plane
from bench.rivals import places
from bench.rivals.places import PROXY_PORT, Place
from gateway.lab import processes

PROGRAM: Final = "/usr/bin/stunnel"

COMMON: Final = """\
; Written by the bench; gone with it.
foreground = quiet
pid =
syslog = no
output = {log}
debug = {level}

[smtp]
accept = {port}
transparent = both
protocol = smtp
sslVersionMin = TLSv1.3
"""
_SEALED: Final = re.compile(r" [1-9]\d* byte\(s\) sent to TLS")


def sending_configuration(log: Path) -> str:
    return COMMON.format(log=log, level="crit", port=PROXY_PORT) + "client = yes\n"


def receiving_configuration(log: Path, certificate: Path, key: Path) -> str:
    common = COMMON.format(log=log, level="notice", port=PROXY_PORT)
    return common + f"cert = {certificate}\nkey = {key}\n"


def stand(plane: Plane) -> None:
    sending, receiving = places.sending(plane), places.receiving(plane)
    receiving.folder.mkdir()
    certificate, key = make_certificate(receiving, "gw-b.b.test")
    _start(receiving, receiving_configuration(receiving.folder / "stunnel.log", certificate, key))
    sending.folder.mkdir()
    _start(sending, sending_configuration(sending.folder / "stunnel.log"))


def make_certificate(place: Place, name: str) -> tuple[Path, Path]:
    """A self-signed one for P-256, as for every opportunistic TLS; certificate and key."""
    certificate, key = place.folder / "certificate.pem", place.folder / "key.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    processes.run_in(place.namespace, ["openssl", "req", "-x509", *curve, "-subj", f"/CN={name}", *files])
    key.chmod(0o600)
    return certificate, key


def _start(place: Place, configuration: str) -> None:
    file = place.folder / "stunnel.conf"
    file.write_text(configuration)
    places.keep_returning(place)
    places.apply(place, places.redirect_rules(place.clients, place.servers))
    places.wait_listening(place, PROXY_PORT, places.start(place, [PROGRAM, str(file)]))


def sealed_sessions(plane: Plane) -> int:
    """Sessions of which the receiving stunnel says that octets went into TLS."""
    text = (places.receiving(plane).folder / "stunnel.log").read_text(errors="replace")
    return len(_SEALED.findall(text))
