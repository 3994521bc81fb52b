"""How a soak draws its faults, accounts for mail, and tells what grows from what does not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import median

import pytest

from bench.chaos.faults import FAULTS
from bench.soak import __main__ as command
from bench.soak.account import Account
from bench.soak.plan import ENDERS, REST_SECONDS, Plan, ends_processes, lets_live
from bench.soak.verdict import (
    LEAST_PAIRS,
    SLACK,
    Verdict,
    harm,
    line,
    line_by_age,
    lines,
    lives,
    result,
    slopes,
)
from tests.unit.bench.soak_record import MB, RUN_SECONDS, account, record

NAMES = list(FAULTS)


def drawn(seed: int, count: int, at: float = 0.0, every: float = 0.0) -> list[tuple[str, float]]:
    plan = Plan(NAMES, seed, RUN_SECONDS)
    strikes = [plan.next(at + number * every) for number in range(count)]
    return [(strike.name, strike.rest) for strike in strikes]


# --- Which fault comes when ----------------------------------------------------------------------------


def test_a_seed_says_it_all() -> None:
    assert drawn(7, 120, every=60.0) == drawn(7, 120, every=60.0)
    assert drawn(7, 120, every=60.0) != drawn(8, 120, every=60.0)


def test_every_fault_comes_once_before_any_of_them_comes_again() -> None:
    names = [name for name, _ in drawn(3, 2 * len(NAMES))]
    assert sorted(names[: len(NAMES)]) == sorted(names[len(NAMES) :]) == sorted(NAMES)
    assert names[: len(NAMES)] != names[len(NAMES) :]


def test_the_rest_between_two_faults_is_within_its_bounds() -> None:
    rests = [rest for _, rest in drawn(11, 200)]
    assert min(rests) >= REST_SECONDS[0]
    assert max(rests) <= REST_SECONDS[1]
    assert max(rests) - min(rests) > 20


def test_every_other_stretch_spares_the_processes() -> None:
    assert [lets_live(at, RUN_SECONDS) for at in (0, 1799, 1800, 3599, 3600, 5399, 5400, 7199)] == [
        False, False, True, True, False, False, True, True,
    ]  # fmt: skip
    sparing = {name for name, _ in drawn(5, 60, at=1900.0)}
    assert sparing == {name for name in NAMES if not ends_processes(name)}
    assert {"workers-killed", "upgrade", "power-loss"}.isdisjoint(sparing)


def test_of_faults_that_all_end_processes_some_come_in_every_stretch() -> None:
    plan = Plan(["upgrade"], 5, RUN_SECONDS)
    assert [plan.next(at).name for at in (0.0, 1900.0)] == ["upgrade", "upgrade"]


def test_each_word_for_what_ends_processes_is_in_a_name() -> None:
    assert all(any(word in name for name in NAMES) for word in ENDERS)
    assert all(ends_processes(name) for name, one in FAULTS.items() if one.breaks_tcp)


# --- The account of mail -------------------------------------------------------------------------------

BOB, USER = ("b", "bob"), ("b", "user")


def cleanup(queue_id: str, name: str) -> str:
    return f"Nov 27 04:12:30 mta-a postfix/cleanup[12]: {queue_id}: message-id=<{name}@lab.test>"


def doubtful(queue_id: str, to: str) -> str:
    return (
        f"Nov 27 04:12:31 mta-a postfix/smtp[13]: {queue_id}: to=<{to}>, relay=10.12.0.10[10.12.0.10]:25, "
        "delay=0.2, delays=0/0/0/0.2, dsn=4.4.2, status=deferred (lost connection with "
        "10.12.0.10[10.12.0.10] while sending end of data -- message may be sent more than once)"
    )


def test_each_mailbox_of_a_mail_is_one_delivery() -> None:
    account = Account()
    account.sent("one", [BOB, USER])
    account.came("one", BOB, whole=True)
    assert account.result()["lost"] == 1
    assert account.missing == [("one", USER)]
    account.came("one", USER, whole=False)
    assert account.result() == {
        "deliveries": 2, "lost": 0, "doubled": 0, "altered": 1, "in_doubt": 0, "strangers": 0,
    }  # fmt: skip


def test_what_nobody_sent_to_a_mailbox_is_a_stranger() -> None:
    account = Account()
    account.sent("one", [BOB])
    account.came("one", USER, whole=True)
    account.came("", BOB, whole=True)
    assert account.result()["strangers"] == 2
    assert account.result()["lost"] == 1


def test_a_second_copy_is_excused_by_a_doubt_of_that_mail_and_recipient_alone() -> None:
    account = Account()
    for name in ("one", "two"):
        account.sent(name, [BOB, USER])
        for place in (BOB, USER, BOB, USER):
            account.came(name, place, whole=True)
    assert account.result()["doubled"] == 4
    # The queue id of the first mail is used again for the second one: the doubt is the second one's.
    account.read_log("a", [cleanup("4AB", "one"), cleanup("4AB", "two"), doubtful("4AB", "bob@six.b.test")])
    assert (account.result()["doubled"], account.result()["in_doubt"]) == (3, 1)
    account.read_log("a", [cleanup("5CD", "one"), doubtful("5CD", "user@b.test")])
    assert (account.result()["doubled"], account.result()["in_doubt"]) == (2, 2)
    # Another server's queue ids are its own.
    account.read_log("c", [doubtful("4AB", "user@b.test")])
    assert account.result()["doubled"] == 2


def test_an_ordinary_deferral_excuses_nothing() -> None:
    account = Account()
    account.sent("one", [BOB])
    account.came("one", BOB, whole=True)
    account.came("one", BOB, whole=True)
    log = [
        cleanup("4AB", "one"),
        doubtful("4AB", "bob@b.test").replace("end of data", "RCPT TO").split(" --")[0],
    ]
    account.read_log("a", log)
    assert account.result()["doubled"] == 1


# --- What grows ----------------------------------------------------------------------------------------


def noisy(per_hour: float, count: int = 100, noise: float = 0.5 * MB) -> list[tuple[float, float]]:
    chance = random.Random(1)
    step = RUN_SECONDS / count
    return [
        (n * step, 80 * MB + per_hour * n * step / 3600 + chance.uniform(-noise, noise)) for n in range(count)
    ]


def test_a_few_odd_samples_do_not_move_the_slope() -> None:
    points = noisy(6 * MB)
    assert median(slopes([points])) * 3600 == pytest.approx(6 * MB, rel=0.1)
    odd = [(at, value + (500 * MB if number % 10 == 0 else 0)) for number, (at, value) in enumerate(points)]
    assert median(slopes([odd])) * 3600 == pytest.approx(6 * MB, rel=0.15)


def test_the_slope_is_of_pairs_within_one_life() -> None:
    lives_of_two = [[(300.0, 20.0), (400.0, 21.0)], [(300.0, 90.0), (400.0, 91.0)]]
    assert slopes(lives_of_two) == pytest.approx([0.01, 0.01])
    assert slopes([[(300.0, 20.0)], [(400.0, 90.0)]]) == []


def test_a_leak_is_told_from_noise() -> None:
    assert line("a", "pss_own", noisy(0.0), RUN_SECONDS).verdict is Verdict.FLAT
    assert line("a", "pss_own", noisy(-30 * MB), RUN_SECONDS).verdict is Verdict.FLAT
    grown = line("a", "pss_own", noisy(6 * MB), RUN_SECONDS)
    assert grown.verdict is Verdict.GROWS
    assert grown.growth == pytest.approx(12 * MB, rel=0.1)
    assert (grown.first < grown.median < grown.last) and grown.per_hour == pytest.approx(6 * MB, rel=0.1)


@pytest.mark.parametrize("measure", SLACK)
def test_each_measure_has_its_slack_and_no_more(measure: str) -> None:
    slack = SLACK[measure]
    just = [(RUN_SECONDS * n / 101, slack * n / 100) for n in range(101)]
    assert line("a", measure, just, RUN_SECONDS).verdict is Verdict.FLAT
    assert line("a", measure, [(at, 1.2 * value) for at, value in just], RUN_SECONDS).verdict is Verdict.GROWS


def test_like_is_compared_with_like() -> None:
    """What is higher in one stretch than in the other, in both rounds, does not grow."""
    points = [(at, 90.0 * MB if lets_live(at, RUN_SECONDS) else 70.0 * MB) for at, _ in noisy(0.0)]
    assert median(slopes([points])) >= 0 and max(slopes([points])) > 0, (
        "a slope of all pairs would see a rise"
    )
    found = line("a", "pss_own", points, RUN_SECONDS)
    assert (found.verdict, found.growth) == (Verdict.FLAT, 0.0)
    grown = line("a", "pss_own", [(at, value + 6 * MB * at / 3600) for at, value in points], RUN_SECONDS)
    assert grown.verdict is Verdict.GROWS
    assert grown.per_hour == pytest.approx(6 * MB, rel=0.01)


def test_half_a_run_says_nothing_of_what_grows_between_its_rounds() -> None:
    half = [point for point in noisy(6 * MB) if point[0] < RUN_SECONDS / 2]
    assert line("a", "pss_own", half, RUN_SECONDS).verdict is Verdict.TOO_FEW


def test_a_process_that_grows_by_its_age_is_seen_though_each_dies_early() -> None:
    def life(start: float, per_hour: float) -> list[tuple[float, float]]:
        return [(age, start + per_hour * age / 3600) for age in range(900, 1500, 60)]

    flat = [life(20 * MB + n * MB, 0.0) for n in range(4)]
    grows = [life(20 * MB + n * MB, 4 * MB) for n in range(4)]
    assert line_by_age("a", "worker", flat).verdict is Verdict.FLAT
    found = line_by_age("a", "worker", grows)
    assert found.verdict is Verdict.GROWS
    assert found.per_hour == pytest.approx(4 * MB)


def test_of_too_few_samples_nothing_is_said() -> None:
    lives_of_two = [[(300.0, 20.0 * MB), (400.0, 20.0 * MB)] for _ in range(LEAST_PAIRS)]
    assert line_by_age("a", "worker", lives_of_two).verdict is Verdict.FLAT
    assert line_by_age("a", "worker", lives_of_two[1:]).verdict is Verdict.TOO_FEW
    assert line("a", "threads", [], RUN_SECONDS).verdict is Verdict.TOO_FEW


# --- The record of a run -------------------------------------------------------------------------------


def test_a_run_that_holds() -> None:
    found = result(record())
    assert found["holds"] and found["flat"] and found["finished"]
    assert found["faults"] == {"upgrade": 2}
    assert found["cpu_share"] == 0.1
    assert {each["verdict"] for each in found["slopes"]} == {"flat"}
    assert {(each["gateway"], each["measure"]) for each in found["slopes"]} >= {
        ("a", "conntrack"), ("b", "worker_by_age"), ("b", "signer_by_age"),
    }  # fmt: skip


def test_a_run_that_leaks() -> None:
    found = result(record(leak_per_hour=40 * MB))
    assert not found["holds"]
    grown = {(each["gateway"], each["measure"]) for each in found["slopes"] if each["verdict"] == "grows"}
    assert {("b", "pss_own"), ("b", "supervisor_by_age"), ("b", "worker_by_age")} <= grown
    assert all(gateway == "b" for gateway, _ in grown)


def test_a_run_that_was_killed_is_judged_and_does_not_hold() -> None:
    found = result(record()[:100])
    assert not found["holds"] and not found["finished"]
    assert found["minutes"] == 49.5
    assert found["cpu_share"] is None
    assert found["harm"] == ["no account of the mail"]


def test_a_fault_that_could_not_be_undone_is_held_against_the_run() -> None:
    failed = {"kind": "fault", "at": 60.0, "name": "disk-full", "error": "OSError: full", "broken": 0}
    found = result([*record(), failed])
    assert found["faults_failed"] == ["disk-full: OSError: full"]
    assert not found["holds"]


def test_what_is_over_or_not_calm_or_young_does_not_count() -> None:
    samples = [one for one in record() if one["kind"] == "sample"]

    def pairs() -> int:
        found = lines(samples, RUN_SECONDS)
        return next(one.pairs for one in found if (one.gateway, one.measure) == ("a", "threads"))

    # 101 samples of the first round are behind the first ten minutes, each with those 12 of the second round
    # that are of the same tenth of it.
    assert pairs() == 101 * 12
    for one in samples:
        one["calm"] = 1800 <= one["at"] < 2160 or 5400 <= one["at"] < 5640
    assert pairs() == 12 * 8
    assert min(age for life in lives(samples, "a", "worker") for age, _ in life) == 1770.0
    for one in samples:
        one["calm"] = True
    assert min(age for life in lives(samples, "a", "worker") for age, _ in life) == 900.0


def test_a_supervisor_that_loads_the_program_anew_is_another() -> None:
    samples = [one for one in record() if one["kind"] == "sample"]
    assert len(lives(samples, "a", "supervisor")) == len(lives(samples, "a", "worker")) // 2 == 1
    for one in samples[100:]:
        one["gateways"]["a"]["processes"].append(
            {"role": "signer", "pid": 9, "started": 77, "pss_own": 10 * MB}
        )
    first, second = lives(samples, "a", "supervisor")
    assert first[-1][0] == 99 * 30.0
    assert second[0][0] == 900.0
    assert len(lives(samples, "b", "supervisor")) == 1


@pytest.mark.parametrize("what", ["lost", "doubled", "altered"])
def test_harm_to_mail(what: str) -> None:
    assert harm(account()) == []
    assert harm(account(**{what: 1})) == [f"raw: 1 {what}"]


def test_what_is_under_way_is_not_lost_yet() -> None:
    under_way = account(lost=1)
    del under_way["queued"]
    assert harm(under_way) == []


def test_a_load_that_carried_nothing_shows_nothing() -> None:
    assert harm(account(mails=0)) == ["raw: no mail"]
    assert harm(account() | {"dark": 0}) == ["no session was encrypted"]


def test_a_record_is_printed_and_gives_the_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record.jsonl"
    # The last line of a run that was killed may be cut.
    path.write_text("".join(json.dumps(one) + "\n" for one in record()) + '{"kind": "acc')
    assert command.show(path, as_json=False) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "holds"
    path.write_text("".join(json.dumps(one) + "\n" for one in record(leak_per_hour=40 * MB)))
    assert command.show(path, as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["flat"] is False
