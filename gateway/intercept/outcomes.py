"""How a dial ended, and what its client is told of it: the same as without us. Pure.

Counterparts: `tproxy`, which dials; `gate`, which gives the verdict.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import IdentityHashed
from gateway.intercept.marks import Verdict


class DialOutcome(IdentityHashed):
    """How a dial ended, in the words that decide what its client is told."""

    CONNECTED = "connected"
    REFUSED = "refused"
    HOST_UNREACHABLE = "host-unreachable"
    NET_UNREACHABLE = "net-unreachable"
    ADMIN_PROHIBITED = "admin-prohibited"
    SILENT = "silent"
    SWALLOWED = "swallowed"
    """Our own kernel sends nothing there (a blackhole route), and does with the SYN what it always did."""
    PORTS_BUSY = "ports-busy"
    """No port from which to reach this server is free; the client will try again."""
    NO_DESCRIPTOR = "no-descriptor"
    """Nor memory for a socket: as if we were not here."""
    LOCAL_TROUBLE = "local-trouble"
    """This machine keeps us from dialling, or says nothing of the server: as if we were not here."""


VERDICT_OF: Final = {
    DialOutcome.CONNECTED: Verdict.TAKE,
    DialOutcome.REFUSED: Verdict.REFUSE,
    DialOutcome.HOST_UNREACHABLE: Verdict.HOST_UNREACHABLE,
    DialOutcome.NET_UNREACHABLE: Verdict.NET_UNREACHABLE,
    DialOutcome.ADMIN_PROHIBITED: Verdict.ADMIN_PROHIBITED,
    DialOutcome.SILENT: Verdict.DROP,
    DialOutcome.SWALLOWED: Verdict.PASS,
    DialOutcome.PORTS_BUSY: Verdict.DROP,
    DialOutcome.NO_DESCRIPTOR: Verdict.PASS,
    DialOutcome.LOCAL_TROUBLE: Verdict.PASS,
}
"""Total."""
