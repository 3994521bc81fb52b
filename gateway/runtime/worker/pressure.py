"""Octets that wait in a worker, for slow sockets and for decisions: in total, and for each source.

Each session may hold `WRITE_BUFFER_OCTETS` for either side, and `FIRST_FLIGHT_OCTETS` and a read of a sender
until it is decided, which many slow ones together could make a machine's whole memory. Over a limit a
session's sockets are read only while nothing of theirs waits, in small pieces: TCP's own windows then hold
the sender back, as they do without us.
Counterparts: `endpoint` counts, `connection` asks.
"""

from __future__ import annotations

from gateway.policy import limits


class Account:
    """One source's. Shared by its sessions."""

    __slots__ = ("bank", "held", "is_over", "sessions")

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.held = 0
        self.is_over = False
        """Whether its own are too many; of all the bank says it. Plain, as each read asks for both."""
        self.sessions = 0

    def add(self, octets: int) -> None:
        """So many more wait (or fewer)."""
        bank = self.bank
        self.held += octets
        bank.held += octets
        self.is_over = self.held >= bank.most_per_source
        bank.is_over = bank.held >= bank.most

    @property
    def allowance(self) -> int:
        """Octets that may wait for one socket before the other one is no longer read."""
        return 0 if self.is_over or self.bank.is_over else limits.WRITE_BUFFER_OCTETS


class Bank:
    """All accounts of one worker."""

    def __init__(
        self, most: int = limits.HELD_OCTETS, most_per_source: int = limits.HELD_OCTETS_PER_SOURCE
    ) -> None:
        self.most, self.most_per_source = most, most_per_source
        self.held = 0
        self.is_over = False
        self._accounts: dict[str, Account] = {}

    def opened(self, source: str) -> Account:
        """A session of this source begins."""
        account = self._accounts.get(source)
        if account is None:
            account = self._accounts[source] = Account(self)
        account.sessions += 1
        return account

    def closed(self, source: str) -> None:
        """One has ended."""
        account = self._accounts[source]
        account.sessions -= 1
        if not account.sessions:
            del self._accounts[source]
