"""Two gateways of either kind without mail servers, and the line between them. For tests only."""

from __future__ import annotations

from collections.abc import Callable

from gateway.policy import limits
from gateway.session.events import ResetReceived, Side
from tests.playbook import EHLO, GREETING, REPLY
from tests.second.dressed import Alone, Machine


class Line:
    """S and R, each alone, and what is on the wire between them; nothing is cut.

    `changed` is what becomes of R's reply on its way; S's clock shows so much more.
    """

    def __init__(
        self,
        s: Machine,
        r: Machine,
        reply: bytes = REPLY,
        *,
        now: float = 1000.0,
        later: float = 0.0,
        changed: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self.s, self.r = Alone(s), Alone(r)
        self.s.now, self.r.now = now + later, now
        self.replied = b""
        """R's reply, as it left R last."""
        self._confirms = False
        self.r.from_near(GREETING)
        self.back()
        self.s.from_near(EHLO)
        self.forth()
        self._replies(reply, changed)

    def _replies(self, reply: bytes, changed: Callable[[bytes], bytes]) -> None:
        self.r.from_near(reply)
        self.replied = self.r.far
        self.r.far = changed(self.r.far)
        self.back()

    def dialled_again(
        self,
        r: Machine,
        reply: bytes = REPLY,
        changed: Callable[[bytes], bytes] = bytes,
        *,
        reset_is_lost: bool = False,
    ) -> Line:
        """S has reset its connection and made another, which leads to this R."""
        if not reset_is_lost:
            self.r.happens(ResetReceived(Side.FAR))
        now, self.r = self.r.now, Alone(r)
        self.r.now = now
        self._confirms = False
        self.s.far = b""
        self.s.redialled()
        self.r.from_near(GREETING)
        self.back()
        self.forth()
        self._replies(reply, changed)
        return self

    def forth(self) -> bytes:
        """What S has sent; R gets it. The receiver takes its time: R's first record goes alone."""
        said = self._carry(self.s, self.r)
        if not self._confirms and not self.r.far:
            deadline = self.r.machine.deadline
            if deadline is not None and deadline <= self.r.now + limits.FIRST_RECORD_SECONDS:
                self.r.time_passes()
        self._confirms = bool(self._confirms or self.r.far)
        return said

    def back(self) -> bytes:
        return self._carry(self.r, self.s)

    def opened(self, first: bytes = b"MAIL\r\n") -> Line:
        """Both have confirmed each other."""
        self.s.from_near(first)
        self.forth()
        self.back()
        return self

    def closed(self) -> Line:
        """The sender ends, then the receiver."""
        self.s.near_ends()
        self.forth()
        self.r.near_ends()
        self.back()
        return self

    @staticmethod
    def _carry(a: Alone, b: Alone) -> bytes:
        said, a.far = a.far, b""
        dials = b.dials
        if said:
            b.from_far(said)
        if Side.FAR in a.ended:
            a.ended.discard(Side.FAR)
            if b.dials == dials:  # else it is of a connection that b has given up
                b.far_ends()
        return said


def frames(octets: bytes) -> list[int]:
    """The lengths of the frames, headers included."""
    lengths, at = [], 0
    while at < len(octets):
        lengths.append(3 + int.from_bytes(octets[at + 1 : at + 3], "big"))
        at += lengths[-1]
    return lengths
