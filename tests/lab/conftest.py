"""Labs for the tests: private ones, beside any other on the machine, gone when their tests are over.

The names that they take begin with nmq. A slot is kept by a lock for as long as its lab is there, so several
test runs on one machine do not meet; what a killed run left in a slot is cleared by the next that takes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.config import Placement
from gateway.errors import EnvironmentFailureError
from gateway.lab import gateways, listener, network, processes
from gateway.lab.lab import Lab
from gateway.lab.place import Place
from tests.lab import rules_ground, two_sites
from tests.lab.exchange import MailSites
from tests.lab.gateway_log import GatewayLog
from tests.lab.probes import MailServer
from tests.lab.tls_ends import TlsContexts
from tests.lab.turns import turn
from tests.lab.two_sites import Sites

SLOTS = 24
LONG = (
    "test_doctor.py",
    "test_beside.py",
    "test_errors_of_others.py",
    "test_dead_ends.py",
    "test_rules_errors.py",
    "test_command_blocks.py",
    "test_chaos.py",
    "test_frozen.py",
    "test_fail_open.py",
    "test_exceptions.py",
    "test_host_failures.py",
    "test_attackers.py",
    "test_attackers_positions.py",
    "test_overload.py",
    "test_reload.py",
    "test_causes.py",
    "test_memory.py",
    "test_plan.py",
    "test_identities.py",
    "test_hangs.py",
    "test_down.py",
    "test_bridge_operator.py",
    "test_bad_input.py",
    "test_half_rules.py",
)
"""The longest first; `scripts/test` says how long each was. The others are short, or have very many tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file is run by one of a few processes: long ones first, so that all end at about the same time."""
    tests = Counter(item.path for item in items)
    ranks = {name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: (ranks.get(item.path.name, len(LONG)), -tests[item.path], item.path))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Nothing that is tested here goes without root. To scripts/test one that is skipped has not passed."""
    item.add_marker(pytest.mark.kernel)
    if os.geteuid() != 0:
        item.add_marker(pytest.mark.skip(reason="needs root"))


@contextlib.contextmanager
def slot() -> Iterator[Lab]:
    """A lab that is not built yet, in a place that nobody else uses."""
    for number in range(SLOTS):
        lab = Lab(
            place=Place(
                prefix=f"nmq{number}-",
                folder=Path(f"/run/nmq{number}-lab"),
                lock=Path(f"/run/nmq{number}-lab.lock"),
            )
        )
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lab.locked())
            except EnvironmentFailureError:
                continue
            clear(lab)
            try:
                yield lab
            finally:
                clear(lab)
            return
    raise AssertionError(f"{SLOTS} test labs are in use on this machine")


def clear(lab: Lab) -> None:
    """All names with the prefix are ours, whatever a killed run left behind them."""
    processes.kill_all_in(lab.namespaces)
    network.remove(lab.namespaces)
    shutil.rmtree(lab.place.folder, ignore_errors=True)


def build_bare(lab: Lab, *, with_gateways: bool, with_listener: bool) -> None:
    """Cables, gateways and a listener; no Postfix, so that port 25 of the mail servers is the test's own."""
    lab.place.folder.mkdir()
    (lab.place.folder / "wire").mkdir()
    network.create(lab.namespaces)
    network.build(lab.topology, lab.namespace, bridged=lab.gateways_stand is Placement.BRIDGE)
    if with_listener:
        listener.start(lab.listener, lab.topology, lab.namespace("mta-c"))
    for one in lab.gateways:
        gateways.prepare(one)
    if with_gateways:
        lab.start_gateways()


@dataclass(frozen=True, slots=True)
class Guarded:
    """Mail servers with a gateway before two of them, and what these log."""

    sites: MailSites
    logs: dict[str, GatewayLog]


@contextlib.contextmanager
def guarded(
    tls: TlsContexts | None = None,
    *,
    with_listener: bool = False,
    placement: Placement = Placement.ROUTER,
) -> Iterator[Guarded]:
    """A bare lab with gateways that have met nobody yet."""
    with slot() as lab, contextlib.ExitStack() as stack:
        lab.placement = placement
        build_bare(lab, with_gateways=True, with_listener=with_listener)
        sites = MailSites(lab, tls)
        stack.callback(sites.close)
        logs = {letter: GatewayLog(lab.gateway(letter).log) for letter in "ab"}
        for log in logs.values():
            stack.callback(log.close)
        yield Guarded(sites, logs)


@contextlib.contextmanager
def unguarded(tls: TlsContexts | None = None, *, with_listener: bool = False) -> Iterator[MailSites]:
    """The same without gateways."""
    with slot() as lab:
        build_bare(lab, with_gateways=False, with_listener=with_listener)
        sites = MailSites(lab, tls)
        try:
            yield sites
        finally:
            sites.close()


@pytest.fixture(scope="session")
def tls_contexts(tmp_path_factory: pytest.TempPathFactory) -> TlsContexts:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=mta-b.b.test", "-addext", "subjectAltName=DNS:mta-b.b.test"]
    subprocess.run(
        ["openssl", "req", *kind, *names, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
        timeout=30,
    )
    receiver = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    receiver.load_cert_chain(certificate, key)
    # Nobody asks for tickets, so they come at any time; then no two runs have the same turns.
    receiver.num_tickets = 0
    return TlsContexts(ssl.create_default_context(cafile=str(certificate)), receiver)


@pytest.fixture(scope="session")
def guarded_sites(tls_contexts: TlsContexts) -> Iterator[Guarded]:
    with guarded(tls_contexts) as sites:
        yield sites


@pytest.fixture(scope="session")
def bare_sites(tls_contexts: TlsContexts) -> Iterator[MailSites]:
    with unguarded(tls_contexts) as sites:
        yield sites


@pytest.fixture(scope="session")
def watched_sites(tls_contexts: TlsContexts) -> Iterator[Guarded]:
    """With a listener on the wire; gateways that have met nobody before these tests."""
    with guarded(tls_contexts, with_listener=True) as sites:
        yield sites


@pytest.fixture(scope="session")
def watched_bare_sites(tls_contexts: TlsContexts) -> Iterator[MailSites]:
    with unguarded(tls_contexts, with_listener=True) as sites:
        yield sites


@pytest.fixture(scope="session")
def postfix_lab() -> Iterator[Lab]:
    """Three Postfix; its gateways are not started yet."""
    with slot() as lab:
        lab.up(with_gateways=False, temporary=True)
        yield lab


@pytest.fixture
def has_its_turn() -> Iterator[None]:
    """For a test that takes all it can get of the machine."""
    with turn():
        yield


# Two sites, of `two_sites`. A module has a `placement` of its own if its gateways stand elsewhere,
# and a `built` of its own if it needs more there.


@pytest.fixture(scope="module")
def placement(request: pytest.FixtureRequest) -> Placement:
    found: Placement = getattr(request, "param", Placement.ROUTER)
    return found


@pytest.fixture(scope="module")
def built(placement: Placement) -> Iterator[Sites]:
    """Gateways that have met nobody."""
    with two_sites.built(placement=placement) as sites:
        yield sites


@pytest.fixture(scope="module")
def acquainted_sites(placement: Placement) -> Iterator[Sites]:
    """Gateways that have met."""
    with two_sites.built(placement=placement) as sites:
        sites.acquaint()
        yield sites


@pytest.fixture
def sites(built: Sites) -> Sites:
    """Both gateways serve, whatever the test before did to them."""
    built.settle()
    return built


# The mail server of site b.


@pytest.fixture
def server(sites: Sites) -> Iterator[MailServer]:
    with MailServer(sites, "mta-b", False) as made:
        yield made


@pytest.fixture
def server4(server: MailServer) -> MailServer:
    """Where there is one by IPv6 beside it."""
    return server


@pytest.fixture
def server6(sites: Sites) -> Iterator[MailServer]:
    with MailServer(sites, "mta-b", True) as made:
        yield made


# The router of `rules_ground`, which has no daemon.


@pytest.fixture(scope="module")
def router_between_hosts() -> Iterator[None]:
    with rules_ground.standing():
        yield


@pytest.fixture
def router(router_between_hosts: None) -> None:
    """Without any rules, and without memory of earlier connections."""
    rules_ground.clear_router()
