"""The gateway as a bridge without an address: mail is the same, and dark on the wire; frames stay frames.

For a router the same is in `test_real_mail`, `test_equality` and `test_darkness`. What is of a bridge
alone is looked at on the cables, by sockets that see every frame.
"""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.l2 import ARP, Ether

from gateway.config import Placement
from gateway.intercept.placements.bridge import LIFT_MAC
from gateway.lab import processes
from gateway.lab.lab import Lab
from gateway.lab.topology import INSIDE, OUTSIDE, Family
from tests.lab import equality, in_any_placement
from tests.lab.bridges import Cable, is_mail, mac_of
from tests.lab.conftest import Guarded
from tests.lab.darkness import SPOKEN, assert_dark
from tests.lab.dialogues import DIALOGUES, FIRST_CONTACT, Dialogue
from tests.lab.equality import BOTH, ROUTES
from tests.lab.exchange import MailSites
from tests.lab.probes import eventually
from tests.lab.tls_ends import TlsContexts

# --- Real mail ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def post() -> Iterator[Lab]:
    """Three Postfix, two of them behind a bridge; the daemons on these are not started yet."""
    with in_any_placement.post_offices(Placement.BRIDGE) as lab:
        yield lab


def test_real_mail_is_the_same_and_dark_between_gateways_alone(post: Lab) -> None:
    in_any_placement.assert_real_mail_is_the_same_and_dark_between_gateways_alone(post)


# --- Dialogues ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bridged(tls_contexts: TlsContexts) -> Iterator[Guarded]:
    """Gateways that have met."""
    with in_any_placement.acquainted(tls_contexts, Placement.BRIDGE) as made:
        yield made


SELECTED = [
    one for number, one in enumerate(DIALOGUES) if number % 4 == 1 and not (one.long or one.takes_its_time)
]


def named(dialogues: list[Dialogue]) -> list[object]:
    return [pytest.param(one, id=one.name.replace(" ", "-")) for one in dialogues]


@pytest.mark.parametrize("dialogue", named(SELECTED))
def test_dialogue(dialogue: Dialogue, bridged: Guarded, bare_sites: MailSites) -> None:
    """Octets, ends, and the client's address and port."""
    equality.compare(dialogue, bridged, bare_sites, ROUTES, Family.V4)


@pytest.mark.parametrize("dialogue", named(SELECTED[::4]))
def test_dialogue_by_ipv6(dialogue: Dialogue, bridged: Guarded, bare_sites: MailSites) -> None:
    equality.compare(dialogue, bridged, bare_sites, ROUTES, Family.V6)


@pytest.mark.parametrize("dialogue", named(SPOKEN[:4]))
def test_between_gateways_nothing_is_readable(dialogue: Dialogue, bridged: Guarded) -> None:
    outcome = bridged.sites.run(dialogue.steps, BOTH.sender, BOTH.receiver, Family.V4)
    assert_dark(bridged.sites.on_the_wire(outcome), outcome)


# --- Frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", Family)
def test_frames_have_the_macs_of_those_in_whose_name_they_are(bridged: Guarded, family: Family) -> None:
    lab = bridged.sites.lab
    router = {letter: mac_of(lab.namespace("wire"), f"gw-{letter}") for letter in "ab"}
    station = {letter: mac_of(lab.namespace(f"mta-{letter}"), "eth0") for letter in "ab"}
    with contextlib.ExitStack() as stack:
        near, far = (
            {
                letter: stack.enter_context(
                    Cable(lab.namespace(node.format(letter)), interface.format(letter))
                )
                for letter in "ab"
            }
            for node, interface in (("mta-{}", "eth0"), ("wire", "gw-{}"))
        )
        bridged.sites.run(FIRST_CONTACT.steps, "a", "b", family)
        for letter in "ab":
            seen = {(frame[6:12], frame[:6]) for frame in near[letter].arrived() if is_mail(frame)}
            assert seen == {(router[letter], station[letter])}
            seen = {(frame[6:12], frame[:6]) for frame in far[letter].arrived() if is_mail(frame)}
            assert seen == {(station[letter], router[letter])}


SECRETS = (b"moonlit", b"heron", b"saltmarsh")


class Session:
    """A session from a to b that is upgraded, and can be led on step by step."""

    def __init__(self, guarded: Guarded, family: Family) -> None:
        self.made, self.accepted = guarded.sites.connect("a", "b", family)
        self.lines = self.made.makefile("rb")

    def __enter__(self) -> Session:
        self.reply(b"220 mx.test ESMTP\r\n")
        self.say(b"EHLO client.test\r\n")
        self.reply(b"250 mx.test\r\n")
        self.say(b"NOOP\r\n")
        self.reply(b"250 ok\r\n")
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()
        self.made.close()
        self.accepted.close()

    def say(self, line: bytes) -> None:
        self.made.sendall(line)
        assert self.accepted.recv(1000) == line

    def reply(self, line: bytes) -> None:
        self.accepted.sendall(line)
        assert self.lines.readline() == line


def forget_stations(lab: Lab) -> None:
    for letter in "ab":
        for port in (INSIDE, OUTSIDE):
            words = ["ip", "link", "set", port, "type", "bridge_slave", "fdb_flush"]
            processes.run_in(lab.gateway(letter).namespace, words)


def forget_the_gateways(lab: Lab) -> None:
    """The daemons tell the bridges again, within half a second."""
    for letter in "ab":
        words = ["bridge", "fdb", "del", LIFT_MAC, "dev", "nm0", "master"]
        processes.run_in(lab.gateway(letter).namespace, words)


def say_with_forgetful_bridges(
    lab: Lab, session: Session, forget: Callable[[Lab], None] = forget_stations
) -> bytes:
    """Both ways in clear on the cables to the mail servers; all that was on the wire meanwhile."""
    with Cable(lab.namespace("wire"), "gw-a") as a, Cable(lab.namespace("wire"), "gw-b") as b:
        for word in SECRETS:
            forget(lab)
            session.say(b"MAIL FROM:<" + word + b"@a.test>\r\n")
            forget(lab)
            session.reply(b"250 " + word + b"\r\n")
        return b"".join(a.arrived() + b.arrived())


@pytest.mark.parametrize("family", Family)
def test_a_bridge_that_has_forgotten_its_stations_floods_nothing_in_clear(
    bridged: Guarded, family: Family
) -> None:
    lab = bridged.sites.lab
    with Session(bridged, family) as session:
        on_the_wire = say_with_forgetful_bridges(lab, session)
    assert on_the_wire
    for word in SECRETS:
        assert word not in on_the_wire


@pytest.mark.parametrize("family", Family)
def test_a_bridge_that_has_forgotten_the_way_to_the_gateway_floods_nothing_in_clear(
    bridged: Guarded, family: Family
) -> None:
    """As one does that has it in another VLAN since."""
    with Session(bridged, family) as session:
        on_the_wire = say_with_forgetful_bridges(bridged.sites.lab, session, forget_the_gateways)
    assert on_the_wire
    for word in SECRETS:
        assert word not in on_the_wire


def horizon(lab: Lab, letter: str) -> str:
    words = ["nft", "list", "chain", "bridge", "nightmail", "horizon"]
    return processes.run_in(lab.gateway(letter).namespace, words).stdout.decode()


@contextlib.contextmanager
def nobody_mends(lab: Lab) -> Iterator[None]:
    """Each daemon's first process, which puts back what is gone of the rules, stands still; mail goes on."""
    daemons = [process for letter in "ab" if (process := lab.gateway(letter).process) is not None]
    assert len(daemons) == 2
    for process in daemons:
        process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in daemons:
            process.signal(signal.SIGCONT)


def test_it_is_the_split_horizon_that_keeps_it_from_the_wire(bridged: Guarded) -> None:
    """Without those rules every word is found."""
    lab = bridged.sites.lab
    with Session(bridged, Family.V4) as session, nobody_mends(lab):
        for letter in "ab":
            words = ["nft", "flush", "chain", "bridge", "nightmail", "horizon"]
            processes.run_in(lab.gateway(letter).namespace, words)

        def seen() -> bool:
            on_the_wire = say_with_forgetful_bridges(lab, session)
            return all(word in on_the_wire for word in SECRETS)

        # Not at the first time where a late frame has told a bridge where its station is.
        eventually(seen, 30.0, "words in clear on the wire")
    for letter in "ab":
        eventually(lambda letter=letter: "drop" in horizon(lab, letter), what="rules put back")
    with Session(bridged, Family.V4) as session:
        on_the_wire = say_with_forgetful_bridges(lab, session)
    for word in SECRETS:
        assert word not in on_the_wire


def test_while_its_router_seems_to_be_inside_a_session_stands_still_and_gets_nowhere_in_clear(
    bridged: Guarded,
) -> None:
    """By one frame in the router's name; what is between stations of one side is not for us. It goes on when
    the router is heard again."""
    lab, line = bridged.sites.lab, b"MAIL FROM:<moonlit@a.test>\r\n"
    router = mac_of(lab.namespace("wire"), "gw-a").hex(":")
    word = ARP(op="is-at", hwsrc=router, psrc="192.0.2.1", pdst="192.0.2.1")
    claim = bytes(Ether(src=router, dst="ff:ff:ff:ff:ff:ff") / word)
    with (
        Session(bridged, Family.V4) as session,
        Cable(lab.namespace("mta-a"), "eth0") as inside,
        Cable(lab.namespace("wire"), "gw-a") as wire,
    ):
        kept = kept_from_the_wire(lab)
        inside.send(claim)
        forget_stations(lab)
        session.made.sendall(line)
        eventually(lambda: kept_from_the_wire(lab) > kept, what="a frame that would have been on the wire")
        wire.send(claim)
        assert session.accepted.recv(1000) == line
        assert b"moonlit" not in b"".join(wire.arrived())


def kept_from_the_wire(lab: Lab) -> int:
    """Frames of sessions that came from inside and were to leave as they are."""
    found = re.search(rf'iifname "{INSIDE}" oifname "{OUTSIDE}" .* packets (\d+)', horizon(lab, "a"))
    assert found is not None
    return int(found[1])
