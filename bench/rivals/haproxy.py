"""HAProxy as a transparent TCP proxy: what a site would put in front of its mail servers, in clear.

One on the sending side, as `clear` has one gateway. The server sees the client's address; the port is another
(`usesrc clientip`), which spares conntrack. Debian's defaults but for the timeouts, which mail needs longer,
and the log, which goes to a file as ours does: one line for each session.
"""

from __future__ import annotations

from typing import Final

from bench.planes import Plane
from bench.rivals import places
from bench.rivals.places import PROXY_PORT, Place

PROGRAM: Final = "/usr/sbin/haproxy"
MAIL_SECONDS: Final = 700
"""Mail servers wait up to 600 s for an answer (RFC 5321, 4.5.3.2)."""


def configuration() -> str:
    return f"""\
# Written by the bench; gone with it.
global
    log stdout format raw local0

defaults
    log global
    mode tcp
    option tcplog
    timeout connect {MAIL_SECONDS}s
    timeout client {MAIL_SECONDS}s
    timeout server {MAIL_SECONDS}s

listen smtp
    bind :{PROXY_PORT} transparent
    source 0.0.0.0 usesrc clientip
    server wherever-it-was-going *
"""


def stand(plane: Plane) -> None:
    place: Place = places.sending(plane)
    place.folder.mkdir()
    file = place.folder / "haproxy.cfg"
    file.write_text(configuration())
    places.keep_returning(place)
    places.apply(place, places.tproxy_rules(place.clients, place.servers))
    process = places.start(place, [PROGRAM, "-db", "-f", str(file)])
    places.wait_listening(place, PROXY_PORT, process)
