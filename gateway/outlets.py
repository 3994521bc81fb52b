"""Where a gateway tells what it sees: metrics, alarms, log. The values of their keys, checked. Pure.

Each check answers the value for the field of `config.Config`, or raises ValueError(what is allowed).
Counterparts: `config`, `runtime.supervisor.metrics`, `runtime.supervisor.alarms_out`, `observe.sinks`.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final

from gateway import values
from gateway.policy import limits

Listen = Path | tuple[str, int]
"""A Unix socket's path, or an address of the loopback and a port."""
CONTROL_SOCKET: Final = "control.sock"
RULES_LOCK: Final = "rules.lock"
LOG_PLACES: Final = ("stderr", "journal", "syslog")


def run_dir(value: object) -> Path:
    """The folder of the control socket, whose path the kernel takes only so long."""
    path, most = values.folder(value), limits.UNIX_SOCKET_PATH_OCTETS - len(f"/{CONTROL_SOCKET}")
    if len(str(path).encode()) > most:
        raise ValueError(f"an absolute path without .., of at most {most} octets")
    return path


def listen(value: object) -> Listen | None:
    """None: nobody listens."""
    allowed = '"unix:/run/nightmail/metrics.sock", "127.0.0.1:9425", "[::1]:9425" (the loopback alone), or ""'
    if value == "":
        return None
    if not isinstance(value, str):
        raise ValueError(allowed)
    if value.startswith("unix:"):
        return _socket_path(value.removeprefix("unix:"), allowed)
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", value)
    try:
        host = ip_address(match[1] or match[2]) if match else None
    except ValueError:
        host = None
    if match is None or host is None or not host.is_loopback or not 1 <= int(match[3]) <= 65535:
        raise ValueError(allowed)
    return str(host), int(match[3])


def _socket_path(path: str, allowed: str) -> Path:
    if not _is_absolute(path) or len(path.encode()) > limits.UNIX_SOCKET_PATH_OCTETS:
        raise ValueError(f"{allowed}; a path of at most {limits.UNIX_SOCKET_PATH_OCTETS} octets, without ..")
    return Path(path)


def command(value: object) -> tuple[str, ...]:
    """A program and its words, for no shell; empty: none."""
    allowed = 'a list of words, the first one an absolute path, such as ["/usr/local/bin/tell", "--all"]'
    if not isinstance(value, list) or not all(isinstance(word, str) and "\0" not in word for word in value):
        raise ValueError(allowed)
    if value and not _is_absolute(value[0]):
        raise ValueError(allowed)
    return tuple(value)


def mail_to(value: object) -> str:
    """One plain address; empty: none."""
    if value == "":
        return ""
    # Nothing that sendmail could take for an option, or a header for its end.
    if not isinstance(value, str) or not re.fullmatch(_ADDRESS, value) or len(value) > 254:
        raise ValueError('an address such as "postmaster@example.org", or ""')
    return value


_ADDRESS: Final = r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"


def program(value: object) -> Path:
    if not isinstance(value, str) or not _is_absolute(value):
        raise ValueError("an absolute path without ..")
    return Path(value)


def mail_server(value: object) -> tuple[str, int] | None:
    """A host name or an address, and a port (25 if none is named); None: mail goes by `sendmail`."""
    if value == "":
        return None
    match = re.fullmatch(_SERVER, value) if isinstance(value, str) else None
    port = int(match[3] or SMTP_PORT) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise ValueError('a mail server such as "mail.example.org", "192.0.2.1:2525", "[2001:db8::1]", or ""')
    if match[1] is not None:
        try:
            IPv6Address(match[1])
        except ValueError:
            raise ValueError(f"{match[1]!r} in brackets is no IPv6 address") from None
    return match[1] or match[2], port


SMTP_PORT: Final = 25
_SERVER: Final = (
    r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?))(?::([0-9]{1,5}))?"
)


def log_place(value: object) -> str:
    if value not in LOG_PLACES:
        raise ValueError(", ".join(LOG_PLACES))
    return str(value)


def _is_absolute(text: str) -> bool:
    return "\0" not in text and Path(text).is_absolute() and ".." not in Path(text).parts
