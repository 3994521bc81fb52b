"""What holds wherever the gateway stands, for the tests of the placements beside the router's."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from gateway.config import Placement
from gateway.errors import Reason
from gateway.eyes.wire import WireSession, found_words
from gateway.lab import gateways, processes
from gateway.lab.lab import Lab
from gateway.lab.mail import without_traces
from gateway.lab.topology import Family
from tests.lab import harms, probes
from tests.lab.conftest import Guarded, guarded, slot
from tests.lab.dialogues import FIRST_CONTACT
from tests.lab.harms import kill_everything
from tests.lab.probes import Load, MailServer, mail_at_once, wait_gone
from tests.lab.tls_ends import TlsContexts
from tests.lab.two_sites import TOOLS, Sites

DELIVERY_SECONDS = 60.0
WAYS = [
    ("a", "b", False),
    ("b", "a", False),
    ("a", "b", True),
    ("a", "c", False),
    ("c", "b", False),
    ("c", "b", True),
]
"""From site to site, and whether by IPv6; c has no gateway."""


@contextlib.contextmanager
def post_offices(placement: Placement) -> Iterator[Lab]:
    """Three Postfix, two of them behind a gateway's place; the daemons there are not started yet."""
    with slot() as lab:
        lab.placement = placement
        lab.up(with_gateways=False, temporary=True)
        yield lab


@contextlib.contextmanager
def acquainted(tls: TlsContexts, placement: Placement) -> Iterator[Guarded]:
    """Gateways that have met, and a listener between them."""
    with guarded(tls, with_listener=True, placement=placement) as made:
        meet(made)
        yield made


def meet(made: Guarded) -> None:
    """The first sessions to mta-b, by both families, are upgraded and remembered."""
    for family in Family:
        outcome = made.sites.run(FIRST_CONTACT.steps, "a", "b", family)
        session = made.logs["a"].ended(outcome.source, outcome.destination)
        assert session.decided in (Reason.UPGRADED_NEW_PEER, Reason.UPGRADED), session


def assert_real_mail_is_the_same_and_dark_between_gateways_alone(post: Lab) -> None:
    """What lies in the mailboxes without gateways is compared with what does with them, all ways in one."""
    mails = {way: post.compose(way[0], way[1], size=100_000, six=way[2]) for way in WAYS}
    spoken = {
        f"{kind} of {one.name}": word
        for sent in mails.values()
        for one in sent
        for kind, word in one.words.items()
    }

    def stored() -> dict[str, bytes]:
        found = [post.deliver(*way[:2], sent, DELIVERY_SECONDS) for way, sent in mails.items()]
        return {
            one.mail.name: without_traces(one.delivery.path.read_bytes()) for each in found for one in each
        }

    def sites_of(session: WireSession) -> tuple[str, str]:
        return post.site_of(session.client.address), post.site_of(session.server.address)

    before = stored()
    crossed = [session for session in post.wire_sessions() if session.has_data]
    assert {sites_of(session) for session in crossed} == {way[:2] for way in WAYS}
    assert all(found_words(session, spoken) for session in crossed)
    post.start_gateways()
    began = time.time()
    assert stored() == before
    crossed = post.wire_sessions(began)
    assert {sites_of(session) for session in crossed} == {way[:2] for way in WAYS}
    for session in crossed:
        assert session.complete
        assert bool(found_words(session, spoken)) == ("c" in sites_of(session)), sites_of(session)


def assert_a_kill_under_load_leaves_nobody_hanging(
    sites: Sites, server: MailServer, event: Callable[[Sites, str], None], letter: str
) -> None:
    targets = harms.targets(sites)
    pids = [sites.supervisor(letter), *sites.workers(letter)]
    with Load(sites, "mta-a", targets) as load:
        load.wait(40)
        moment = time.monotonic()
        event(sites, letter)
        load.wait(40, since=moment + 1.0)
    print(load.judge(moment))
    if event is kill_everything:
        wait_gone(*pids)
        assert sites.bound_queues(letter) == []
    mail_at_once(sites, "mta-a", server, targets[0], b"after all that")


def assert_the_first_connection_behind_a_kill_passes_at_once(
    sites: Sites, servers: Sequence[MailServer], letter: str
) -> None:
    """`servers`: by IPv4 and by IPv6."""
    kill(sites, letter)
    for one, target in zip(servers, harms.targets(sites), strict=True):
        for _ in range(3):
            mail_at_once(sites, "mta-a", one, target, b"direct")


def assert_a_session_is_reset_when_its_gateway_dies(sites: Sites) -> None:
    """Both mail servers learn of it at once: neither waits for its own timer."""
    for letter in "ab":
        with probes.Dialogue(sites.connect("mta-a", harms.targets(sites)[0])) as dialogue:
            dialogue.begin()
            dialogue.say(b"NOOP")  # from here on there is no way back
            kill(sites, letter)
            began = time.monotonic()
            with pytest.raises(OSError):
                for _ in range(3):
                    dialogue.say(b"NOOP")
            assert time.monotonic() - began < probes.PATIENCE / 2
        sites.start(letter)


def assert_a_reload_under_load_breaks_nothing(sites: Sites, letter: str) -> None:
    target = harms.targets(sites)[0]
    one = sites.gateway(letter)
    with (
        probes.Dialogue(sites.connect("mta-a", target)) as lasting,
        Load(sites, "mta-a", (target,), clients=3) as load,
    ):
        lasting.begin()
        load.wait(20)
        command = gateways.nightmail_command("--config", str(one.configuration), "reload")
        done = subprocess.run(
            processes.command_in(one.namespace, command), capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        load.wait(20)
        lasting.send_mail(b"through a reload")
    failed = [attempt for attempt in load.attempts if attempt.failure]
    assert not failed, probes.shown(failed, 0.0)


def reached_the_gate(sites: Sites, letter: str) -> int:
    """SYNs of both families, as the kernel has counted them."""
    saved = sites.sh(sites.home(letter), *(f"{tool}-save -c -t raw" for tool in TOOLS)).splitlines()
    return sum(int(line[1:].split(":")[0]) for line in saved if line.endswith("-j NIGHTMAIL-GATE"))


def kill(sites: Sites, letter: str) -> None:
    """All processes of a gateway at once; they are gone behind it."""
    pids = [sites.supervisor(letter), *sites.workers(letter)]
    probes.kill(*pids)
    wait_gone(*pids)
