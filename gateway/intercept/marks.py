"""The eight bits of the packet mark that are ours, and what each value of them says.

Pure. `mask` names eight neighbouring bits; all other bits are the site's and are neither matched nor
changed. Counterparts: the templates in `iptables/`, which match these values, `nfqueue` and `tproxy`,
which set them.

    0x80        a socket that we dialled with
    0x20        a socket that we accepted (set on the listener, inherited)
    0x40 | i    a packet for us; i is the slot (0 to 31) whose listener takes it
    0x40 | 0x80 an ICMP error of this very box, turned back to the dialled socket that it is about
    1 to 4      a SYN that is to be answered as refused, unreachable, or prohibited
    5           a SYN to a dead end, which passes without being judged
    6           a SYN that the gate is to get, for all of ours stands and its workers live; taken off again
                behind the gate, which takes no SYN without it
    7           a frame's SYN, on a bridge, that we could answer for: becomes 6, or nothing
    0x40 | i    on a datagram that never leaves this box: the worker in slot i lives
    0x1f        a frame on a bridge that is to pass as it is
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from gateway.errors import IdentityHashed, LocalMisuseError

_DIALLED: Final = 0x80
_TAKEN: Final = 0x40
_ACCEPTED: Final = 0x20
_SPARED: Final = 5
_VOUCHED: Final = 6
_KNOWN: Final = 7
_UNTOUCHED: Final = 0x1F
SLOTS: Final = 32
"""Five bits of slot number: workers of the running generation and of the one that drains."""
_ALL_MARK_BITS: Final = 0xFFFFFFFF


class Verdict(IdentityHashed):
    """What becomes of a held SYN. The numbers of the answers are the values of the mark's low bits."""

    REFUSE = 1
    HOST_UNREACHABLE = 2
    NET_UNREACHABLE = 3
    ADMIN_PROHIBITED = 4
    TAKE = "take"
    PASS = "pass"  # noqa: S105 - the word for letting a packet by, no secret
    DROP = "drop"


ANSWERS: Final = (
    Verdict.REFUSE,
    Verdict.HOST_UNREACHABLE,
    Verdict.NET_UNREACHABLE,
    Verdict.ADMIN_PROHIBITED,
)


@dataclass(frozen=True)
class MarkBits:
    """The layout above, moved under `mask`. Raises LocalMisuseError for a mask of another shape."""

    mask: int

    def __post_init__(self) -> None:
        if not 0 < self.mask <= _ALL_MARK_BITS or self.mask // (self.mask & -self.mask) != 0xFF:
            raise LocalMisuseError(f"mark mask {self.mask:#x} is not eight neighbouring bits")

    @property
    def unit(self) -> int:
        """The lowest bit of the mask."""
        return self.mask & -self.mask

    @cached_property
    def dialled(self) -> int:
        """SO_MARK of the sockets that we dial with."""
        return _DIALLED * self.unit

    @property
    def accepted(self) -> int:
        """SO_MARK of the listeners; what they accept inherits it."""
        return _ACCEPTED * self.unit

    @property
    def taken(self) -> int:
        """The bit that the routing rule looks at: deliver here."""
        return _TAKEN * self.unit

    @property
    def turned(self) -> int:
        """An ICMP error that starts here, about a dialled socket, and is to be delivered here."""
        return self.taken | self.dialled

    @property
    def untouched(self) -> int:
        """A frame that passes a bridge without coming to the gate."""
        return _UNTOUCHED * self.unit

    @property
    def spared(self) -> int:
        """A SYN that the gate does not see."""
        return _SPARED * self.unit

    @property
    def vouched(self) -> int:
        """A SYN for the gate: without the table that gives this mark, nobody would carry what is taken."""
        return _VOUCHED * self.unit

    @property
    def known(self) -> int:
        """A SYN on a bridge whose two addresses have MACs that we know: what we send for them will arrive."""
        return _KNOWN * self.unit

    @property
    def kinds(self) -> int:
        """Those bits that tell a slot's mark, which has `taken` alone of them, from a socket's."""
        return (_DIALLED | _TAKEN | _ACCEPTED) * self.unit

    @property
    def rest(self) -> int:
        """All bits that are not ours."""
        return _ALL_MARK_BITS ^ self.mask

    def take(self, slot: int) -> int:
        """The mark of a SYN that the listener of `slot` is to take."""
        if not 0 <= slot < SLOTS:
            raise LocalMisuseError(f"no slot {slot}")
        return (_TAKEN | slot) * self.unit

    def answer(self, verdict: Verdict) -> int:
        """The mark that a REJECT rule answers."""
        if verdict not in ANSWERS:
            raise LocalMisuseError(f"{verdict} is no answer")
        return int(verdict.value) * self.unit

    def of_verdict(self, verdict: Verdict, slot: int) -> int | None:
        """Mark for a verdict; None where the packet goes on (or ends) without one."""
        if verdict is Verdict.TAKE:
            return self.take(slot)
        return self.answer(verdict) if verdict in ANSWERS else None

    def merged(self, site_mark: int, ours: int) -> int:
        """`ours` under the mask, the site's bits as they were."""
        return (site_mark & ~self.mask) | ours
