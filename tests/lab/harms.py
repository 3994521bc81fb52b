"""What is done to a gateway between two sites, and what is looked at before and after."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.lab.probes import kill
from tests.lab.two_sites import MASQUERADED, PLAIN, Sites

SITES = pytest.mark.parametrize("site", [PLAIN, MASQUERADED])
GATEWAYS_AND_SITES = pytest.mark.parametrize(
    ("letter", "site"),
    [
        ("a", PLAIN),
        ("a", MASQUERADED),
        ("b", MASQUERADED),
        pytest.param("b", PLAIN, marks=pytest.mark.long),
    ],
)


def targets(sites: Sites) -> tuple[str, str]:
    return sites.address("mta-b", False), sites.address("mta-b", True)


def kill_one_worker(sites: Sites, letter: str) -> None:
    kill(sites.workers(letter)[0])


def kill_all_workers(sites: Sites, letter: str) -> None:
    kill(*sites.workers(letter))


def kill_supervisor(sites: Sites, letter: str) -> None:
    kill(sites.supervisor(letter))


def kill_everything(sites: Sites, letter: str) -> None:
    kill(sites.supervisor(letter), *sites.workers(letter))


def protected(sites: Sites, letter: str) -> int:
    """Sessions that this gateway has upgraded as the sending one."""
    return sum(sites.status(letter)["counters"]["decided"]["out"]["upgraded"].values())


def ours(state: list[str]) -> list[str]:
    """What is ours of a kernel's state."""
    names = ("NIGHTMAIL", "2525", "NFQUEUE")
    return sorted(line for line in state if any(name in line for name in names))


@contextlib.contextmanager
def undisturbed(sites: Sites) -> Iterator[Sites]:
    """Two gateways that serve, at sites without rules of their own, whatever the test before has done."""
    sites.surround(PLAIN)
    sites.settle()
    yield sites
    sites.surround(PLAIN)
