"""The guard: no step of the lab may happen in the machine's own network namespace."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.lab import network


@pytest.fixture
def name_of_our_own(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name that leads to the namespace that this test runs in."""
    monkeypatch.setattr(network, "namespace_path", lambda name: Path("/proc/self/ns/net"))
    return "nmu-own"


def test_nothing_runs_in_the_machines_own(name_of_our_own: str) -> None:
    ran = []
    with pytest.raises(EnvironmentFailureError, match="machine's own network namespace"):
        network.inside(name_of_our_own, lambda: ran.append(1))
    assert ran == []


def test_it_is_not_removed_either(name_of_our_own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(path: Path) -> None:
        raise AssertionError(f"unmounted {path}")

    monkeypatch.setattr(network, "_unmount", never)
    network.remove([name_of_our_own])


@pytest.mark.parametrize("name", ["", "..", ".", "../net", "a/b", "/proc/self/ns/net"])
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(EnvironmentFailureError, match="no name of a network namespace"):
        network.namespace_path(name)


def test_a_missing_namespace_is_one_clear_line() -> None:
    with pytest.raises(EnvironmentFailureError, match="there is no network namespace nmu-missing"):
        network.inside("nmu-missing", lambda: None)
    assert network.existing(["nmu-missing"]) == []
    network.remove(["nmu-missing"])


def test_the_machines_own_are_process_ones_and_ours() -> None:
    assert network.identity(Path("/proc/self/ns/net")) in network.machines_own()
