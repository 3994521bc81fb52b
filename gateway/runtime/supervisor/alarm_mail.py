"""Hands one alarm to a mail server by SMTP; a mail on its standard input, HOST PORT ADDRESS as its words.

A process of its own, for a box without a mail system, or whose service may run nothing that is set-group-ID.
The mail goes in clear, as by `sendmail`: from this machine, to the site's own server.
Counterpart: `alarms_out`.
"""

from __future__ import annotations

import platform
import smtplib
import sys

from gateway.policy import limits


def main(host: str, port: str, address: str) -> int:
    """Exit status 1, and what went wrong in one line on standard error, if the server did not take it."""
    # Text and not octets: those would go with bare line feeds, as they stand.
    mail = sys.stdin.buffer.read().decode("ascii")
    try:
        # Its own idea of our name would be asked of DNS, which may be what is broken.
        with smtplib.SMTP(local_hostname="localhost", timeout=limits.ALARM_COMMAND_SECONDS) as server:
            server.connect(host, int(port))
            if server.sock is not None:
                server.local_hostname = _name(server.sock.getsockname()[0])
            server.sendmail(address, [address], mail)
    except (OSError, smtplib.SMTPException) as error:
        print(f"{host}:{port}: {error}", file=sys.stderr)
        return 1
    return 0


def _name(address: str) -> str:
    """What we say in EHLO: a name with a domain, or the literal that RFC 5321 (4.1.3) has in its place."""
    name = platform.node()
    if "." in name:
        return name
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
