"""Hands one alarm to a mail server by SMTP; a mail on its standard input, HOST PORT ADDRESS as its words.

A process of its own, for a box without a mail system, or whose service may run nothing that is set-group-ID.
The mail goes in clear, as by `sendmail`: from this machine, to the site's own server.
Counterpart: `alarms_out`.
"""

from __future__ import annotations

import contextlib
import platform
import smtplib
import sys
from typing import Final

from gateway.policy import limits

_GREETS: Final = 220


def main(host: str, port: str, address: str) -> int:
    """Exit status 1, and what went wrong in one line on standard error, if the server did not take it."""
    # Text and not octets: those would go with bare line feeds, as they stand.
    mail = sys.stdin.buffer.read().decode("ascii")
    # Its own idea of our name would be asked of DNS, which may be what is broken.
    server = smtplib.SMTP(local_hostname="localhost", timeout=limits.ALARM_SERVER_SECONDS)
    try:
        code, greeting = server.connect(host, int(port))
        if code != _GREETS:
            raise smtplib.SMTPConnectError(code, greeting)
        if server.sock is not None:
            server.local_hostname = _name(server.sock.getsockname()[0])
        server.sendmail(address, [address], mail)
    except (OSError, smtplib.SMTPException) as error:
        print(f"{host}:{port}: {error}", file=sys.stderr)
        return 1
    finally:
        _part(server)
    return 0


def _part(server: smtplib.SMTP) -> None:
    """Whatever it says to QUIT, and whether it says anything: by now the mail is its own, or is refused."""
    with contextlib.suppress(OSError, smtplib.SMTPException):
        if server.sock is not None:
            server.sock.settimeout(limits.ALARM_PART_SECONDS)
            server.quit()
    server.close()


def _name(address: str) -> str:
    """What we say in EHLO: a name with a domain, or the literal that RFC 5321 (4.1.3) has in its place."""
    name = platform.node()
    if "." in name:
        return name
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
