"""Workers or signer that do not come up, at a reload or for want of room: mail goes on. In namespaces nmf0-

As after an upgrade to a program that is damaged: the new ones are stopped here as soon as they are begun. Who
leads goes on, and another reload mends it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from gateway.lab import gateways
from gateway.policy import limits
from tests.lab.probes import MailServer, eventually, mail
from tests.lab.two_sites import Sites


@pytest.fixture(scope="module")
def built(acquainted_sites: Sites) -> Sites:
    return acquainted_sites


@contextlib.contextmanager
def held_back(sites: Sites, letter: str) -> Iterator[list[int]]:
    """The workers of a reload, of whom none serves within."""
    before = newest(sites, letter)

    def begun() -> list[int]:
        answer = gateways.ask(sites.gateway(letter)) or {"workers": []}
        return [one["pid"] for one in answer["workers"] if one["generation"] > before]

    os.kill(sites.supervisor(letter), signal.SIGHUP)
    late = eventually(begun, what="new workers")
    for pid in late:
        os.kill(pid, signal.SIGSTOP)
    states = {one["state"] for one in sites.status(letter)["workers"] if one["pid"] in late}
    assert states == {"starting"}
    try:
        yield late
    finally:
        for pid in late:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def newest(sites: Sites, letter: str) -> int:
    return max(worker["generation"] for worker in sites.status(letter)["workers"])


def decided(sites: Sites) -> list[str]:
    return [line for line in sites.log("b").splitlines() if " session decided " in line]


def sent(sites: Sites, server: MailServer, body: bytes) -> str:
    """How gateway b has decided of one mail."""
    before = len(decided(sites))
    mail(sites, "mta-a", server, sites.address("mta-b", False), body)
    eventually(lambda: len(decided(sites)) == before + 1, what="the session at gateway b")
    return decided(sites)[-1]


def test_the_next_reload_is_seen_through(sites: Sites, server: MailServer) -> None:
    """Its workers had the number of those that had not come up, and the command waited for a later one."""
    before = newest(sites, "b")
    with held_back(sites, "b") as late:
        assert sites.command("b", "reload").startswith("reloaded: ")
        assert newest(sites, "b") == before + 2
        assert not set(late) & set(sites.workers("b"))
    assert "protected=yes" in sent(sites, server, b"by their successors")


def test_who_leads_meanwhile_goes_on_as_who_it_was(sites: Sites, server: MailServer) -> None:
    """Its signer is that of the program before, whom nobody tells of another identity."""
    rung = sites.alarms("b", "signer-silent")
    with held_back(sites, "b"):
        was = sites.status("b")["identity"]
        sites.command("b", "identity", "rotate", "--now")
        eventually(lambda: sites.status("b")["identity"] != was, what="the new identity")
        for _ in range(4):
            assert "protected=yes" in sent(sites, server, b"while they are waited for")
    eventually(lambda: sites.serving("b") == len(sites.workers("b")), limits.START_SECONDS, "the new workers")
    sites.wait_ready("b")
    assert "protected=yes" in sent(sites, server, b"under the new identity")
    assert sites.alarms("b", "signer-silent") == rung


@pytest.mark.long
def test_without_its_signer_a_new_generation_takes_nothing_over(sites: Sites, server: MailServer) -> None:
    """What came in would have no channel: who leads has a signer, and goes on until there is another."""
    before, was = newest(sites, "b"), sites.status("b")["signer"]["pid"]

    def begun() -> int | None:
        signer: dict[str, int] = (gateways.ask(sites.gateway("b")) or {}).get("signer", {})
        return signer["pid"] if signer.get("pid", was) != was else None

    rung = len(sites.alarms("b", "signer-silent"))
    os.kill(sites.supervisor("b"), signal.SIGHUP)
    late = eventually(begun, what="a new signer")
    os.kill(late, signal.SIGSTOP)
    try:
        assert not sites.status("b")["signer"]["serves"], "it was too quick"
        eventually(
            lambda: len(sites.alarms("b", "signer-silent")) > rung,
            2 * limits.SIGNER_START_SECONDS,
            "an alarm",
        )
        assert "the workers of before go on" in sites.alarms("b", "signer-silent")[0]["detail"]
        assert "protected=yes" in sent(sites, server, b"by those of before")
        assert sites.command("b", "status").startswith("YES")
    finally:
        os.kill(late, signal.SIGCONT)
    leads = f" generation-leads generation={before + 1}"
    eventually(lambda: leads in sites.log("b"), what="the new generation")
    assert "protected=yes" in sent(sites, server, b"by the new ones")


def test_a_daemon_with_room_for_one_worker_starts_with_it(sites: Sites, server: MailServer) -> None:
    """As beside the workers of daemons that were killed, which finish their sessions: it did not start."""
    sites.kill("b")
    with contextlib.ExitStack() as held:
        for port in (*range(12525, 12530), *range(12531, 12557)):
            other = held.enter_context(sites.socket("gw-b", False))
            other.bind(("127.0.0.1", port))
            other.listen()
        one = sites.gateway("b")
        one.log.write_text("")
        gateways.start(one)
        gateways.wait_ready(one)
        eventually(lambda: any("--queue-num 2505" in rule for rule in sites.gate("b")), what="its queue")
        assert [one["slot"] for one in sites.status("b")["workers"]] == [5]
        assert "pool fewer-workers workers=1" in sites.log("b")
        assert "protected=yes" in sent(sites, server, b"by the only one")
    sites.kill("b")
