"""How facts of a fault become its figures: gaps by pair, mails by name, doubts by the process that died."""

from __future__ import annotations

from bench.chaos.__main__ import meets_the_bar
from bench.chaos.ear import command_in
from bench.chaos.facts import Fact
from bench.chaos.faults import FAULTS
from bench.chaos.ground import died_with
from bench.chaos.judge import Posted, Seen, Window, figures, gap, judge
from gateway.eyes import capture

WINDOW = Window(10.0, 20.0)


def probe(began: float, greeted: float | None, target: str = "one") -> Fact:
    return {"kind": "probe", "target": target, "began": began, "greeted": greeted, "port": 1, "why": ""}


def mail(name: str, *doubts: int, ended: float = 12.0) -> Fact:
    fields = {"name": name, "target": "one", "began": 11.0, "ended": ended, "doubts": list(doubts)}
    return {"kind": "mail", **fields}


def taken(name: str, *, whole: bool = True) -> Fact:
    return {"kind": "taken", "name": name, "whole": whole, "at": 12.0}


def judged(*facts: Fact, died_with: frozenset[int] = frozenset(), clear_from: float = 10.0) -> Seen:
    return judge(facts, WINDOW, Posted(), died_with, clear_from)


def test_a_gap_lasts_until_somebody_who_tried_later_came_through() -> None:
    assert gap([(1.0, 1.01), (2.0, 2.01)], 9.0) < 0.02
    # The first two waited in vain; who tried at 1.5 came through at once.
    assert gap([(1.0, None), (1.2, None), (1.5, 1.6), (1.7, 1.8)], 9.0) == 1.6 - 1.0
    # One connection that waited long is no gap, where the next one was greeted at once.
    assert round(gap([(1.0, 2.1), (1.1, 1.11)], 9.0), 2) == 0.11
    assert gap([(1.0, 1.01), (2.0, None)], 9.0) == 7.0


def test_pairs_of_addresses_are_judged_one_by_one() -> None:
    seen = judged(*(probe(11 + n / 10, 11.01 + n / 10) for n in range(50)), probe(11.0, 13.0, "two"))
    assert seen.gap == 2.0
    assert seen.slowest == 2.0
    assert seen.failed == 0


def test_only_what_began_within_the_window_counts() -> None:
    seen = judged(probe(9.0, None), probe(11.0, 11.5), probe(20.0, None))
    assert (seen.gap, seen.failed) == (0.5, 0)


def test_mails_are_lost_doubled_or_altered() -> None:
    seen = judged(mail("a"), mail("b"), taken("b"), taken("b"), mail("c"), taken("c", whole=False))
    assert (seen.mails, seen.lost, seen.doubled, seen.altered, seen.in_doubt) == (3, 1, 1, 1, 0)


def test_a_copy_is_excused_by_a_process_that_died_with_the_final_reply() -> None:
    facts = (mail("a", 4001), taken("a"), taken("a"))
    assert judged(*facts).doubled == 1
    seen = judged(*facts, died_with=frozenset({4001}))
    assert (seen.doubled, seen.in_doubt) == (0, 1)
    # One doubt excuses one copy.
    assert judged(*facts, taken("a"), died_with=frozenset({4001})).doubled == 1


def test_a_session_in_clear_counts_once_and_not_if_it_was_in_clear_before() -> None:
    def clear(at: float, port: int) -> Fact:
        return {"kind": "clear", "source": "aa", "port": port, "at": at}

    facts = (clear(8.0, 1), clear(11.0, 1), clear(11.0, 2), clear(13.0, 2), clear(15.0, 3))
    assert judged(*facts).clear == 2
    assert judged(*facts, clear_from=14.0).clear == 1


def test_figures_are_what_gateways_add() -> None:
    row = figures("mtu-black-hole", Seen(gap=1.5, broken=3), Seen(gap=1.0, broken=3), alarmed=False)
    assert (row["gap_s"], row["broken"]) == (0.5, 0)
    assert meets_the_bar(row)
    for key, value in (("gap_s", 1.01), ("lost", 1), ("doubled", 1), ("altered", 1), ("broken", 1)):
        assert not meets_the_bar({**row, key: value})
    assert meets_the_bar({**row, "name": "worker-killed", "broken": 4}), "its process is gone"
    flushed = {**row, "name": "nft-flush-ruleset", "broken": 4}
    assert not meets_the_bar(flushed)
    assert meets_the_bar({**flushed, "placement": "host"}), "the far end resets what the mail server sends"


def test_every_fault_says_what_it_does_and_how_it_is_undone() -> None:
    assert len(FAULTS) >= 45
    for name, fault in FAULTS.items():
        assert name == fault.name
        assert fault.what
        assert fault.undone
        assert 0 < fault.seconds <= 30


def test_the_ear_finds_a_command_in_a_packet() -> None:
    tcp = (40000).to_bytes(2, "big") + (25).to_bytes(2, "big") + bytes(8) + b"\x50" + bytes(7)
    v4 = b"\x45" + bytes(8) + bytes([capture.TCP]) + bytes(2) + b"\x0a\x0b\x00\x0a" + bytes(4)
    assert command_in(v4 + tcp + b"NOOP\r\n", capture.ETHERTYPE_IPV4) == (
        b"\x0a\x0b\x00\x0a",
        40000,
        b"NOOP\r\n",
    )
    v6 = bytes(6) + bytes([capture.TCP]) + b"\x40" + bytes(range(16)) + bytes(16)
    assert command_in(v6 + tcp + b"NOOP\r\n", capture.ETHERTYPE_IPV6) == (
        bytes(range(16)),
        40000,
        b"NOOP\r\n",
    )
    assert command_in(v4 + tcp[2:4] + tcp[:2] + tcp[4:] + b"NOOP\r\n", capture.ETHERTYPE_IPV4) is None
    assert command_in(v4, capture.ETHERTYPE_IPV4) is None


def begun(session: str, port: int, more: str = "") -> str:
    return (
        f"… info session={session} session begun direction=out source=192.0.2.1:{port} to=192.0.2.7:25{more}"
    )


def ended(session: str) -> str:
    return f"… info session={session} session ended reason=closed"


def test_who_died_is_begun_and_not_ended_in_one_of_the_logs() -> None:
    logs = [[begun("a1", 4001), begun("a2", 4002), ended("a2")], [begun("b1", 4003), ended("b1")]]
    assert died_with(logs) == {4001}


def test_on_hosts_who_died_at_the_far_gateway_is_known_by_the_clients_port() -> None:
    near = [begun("a1", 4001, " dialled_from=50001"), begun("a2", 4002, " dialled_from=50002")]
    far = [begun("b1", 50001, " dialled_from=60001"), begun("b2", 50002, " dialled_from=60002"), ended("b2")]
    assert died_with([[*near, ended("a1"), ended("a2")], far]) == {50001, 4001}
