"""The order of things: what gives marks comes last and goes first; what has not changed is not looked at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import pytest

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel, ruleset
from gateway.intercept.kernel import iptables, nft, spared
from gateway.intercept.kernel.commands import start
from gateway.intercept.marks import MarkBits
from gateway.intercept.objects import IptablesRules, KernelObject, NftTable, Sysctl
from gateway.policy import limits

CONFIG = Config(inside=("lan",), outside=("wan",))
WANTED = ruleset.render(CONFIG, ruleset.slots_of(CONFIG))


class FakeKind:
    """Writes down what is asked of it; stands for a kernel that holds nothing of ours."""

    def __init__(self, told: list[str], of: type[KernelObject], *, numbered: bool = False) -> None:
        self.of: tuple[type[KernelObject], ...] = (of,)
        self.numbered = numbered
        self.name = of.__name__
        self.fails = False
        self.gone: list[str] = []
        self._told = told

    def missing(self, wanted: Sequence[Any]) -> list[str]:
        self._told.append(f"look {self.name}")
        assert all(isinstance(each, self.of) for each in wanted)
        return self.gone

    def surplus(self, wanted: Sequence[Any]) -> list[str]:
        return [f"old {self.name}"]

    def put(self, wanted: Sequence[Any]) -> None:
        self._told.append(f"put {len(wanted)} {self.name}")
        if self.fails:
            raise EnvironmentFailureError("not taken")

    def mend(self, wanted: Sequence[Any]) -> list[str]:
        gone, self.gone = self.missing(wanted), []
        if gone:
            self.put(wanted)
        return gone

    def take_away(self) -> None:
        self._told.append(f"take {self.name}")
        if self.fails:
            raise EnvironmentFailureError("not given")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def kinds(told: list[str]) -> list[FakeKind]:
    return [
        FakeKind(told, Sysctl),
        FakeKind(told, NftTable, numbered=True),
        FakeKind(told, IptablesRules, numbered=True),
    ]


@pytest.fixture
def rules(kinds: list[FakeKind], monkeypatch: pytest.MonkeyPatch) -> kernel.KernelRules:
    monkeypatch.setattr(nft, "generation", lambda: 7)
    made = kernel.KernelRules(CONFIG)
    made._kinds = kinds
    return made


def test_the_gate_comes_last_and_goes_first(rules: kernel.KernelRules, told: list[str]) -> None:
    rules.apply(WANTED, [2500])
    assert told == ["put 1 Sysctl", "put 1 NftTable", "put 2 IptablesRules"]
    told.clear()
    rules.remove()
    assert told == ["take IptablesRules", "take NftTable", "take Sysctl"]


def test_what_fails_half_way_is_undone_as_far_as_it_goes(
    rules: kernel.KernelRules, kinds: list[FakeKind], told: list[str]
) -> None:
    kinds[1].fails = True
    with pytest.raises(EnvironmentFailureError, match="not taken"):
        rules.apply(WANTED, [2500])
    assert told == ["put 1 Sysctl", "put 1 NftTable", "take IptablesRules", "take NftTable", "take Sysctl"]
    kinds[1].gone = ["nft table inet nightmail"]
    assert rules.missing() == ["nft table inet nightmail"], "so whoever keeps the rules tries again"


def test_numbered_kinds_are_looked_at_again_only_when_the_number_has_changed(
    rules: kernel.KernelRules, kinds: list[FakeKind], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules.apply(WANTED, [2500])
    every = ["look Sysctl", "look NftTable", "look IptablesRules"]
    for expected in (every, every[:1], every[:1]):
        told.clear()
        assert rules.missing() == []
        assert told == expected
    for number in (8, None):
        monkeypatch.setattr(nft, "generation", lambda number=number: number)
        told.clear()
        rules.missing()
        assert told == every, "a new number, or none"
    kinds[2].gone = ["iptables raw -A X"]
    for _ in range(2):
        assert rules.missing() == ["iptables raw -A X"], "as long as something is gone"


def test_a_plan_names_what_would_go_and_what_would_come(
    rules: kernel.KernelRules, kinds: list[FakeKind]
) -> None:
    kinds[0].gone = ["sysctl x=0"]
    assert rules.differences(WANTED, [2500]) == [
        "remove  old IptablesRules",
        "remove  old NftTable",
        "remove  old Sysctl",
        "add     sysctl x=0",
    ]


def test_nothing_is_missing_where_nothing_is_wanted(rules: kernel.KernelRules, told: list[str]) -> None:
    assert rules.missing() == []
    assert told == []


def test_notes_in_a_listing_are_read_and_not_taken_for_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = (
        "table inet nightmail {\n\tchain leaving {\n\t\taccept\n\t}\n\n"
        "\tchain former/net/ipv4/tcp_early_demux/1 {\n\t}\n\n\tchain former/a.b/c-d/x {\n\t}\n}\n"
    )
    monkeypatch.setattr(nft, "_raw_listing", lambda family: listing)
    assert nft.notes() == {"net/ipv4/tcp_early_demux": "1", "a.b/c-d": "x"}
    assert nft._listing("inet") == "table inet nightmail {\n\tchain leaving {\n\t\taccept\n\t}\n}\n"


def test_whoever_is_vouched_for_at_the_start_has_to_prove_that_it_lives_after_it(
    rules: kernel.KernelRules,
) -> None:
    texts: list[str] = []

    def put(wanted: Sequence[object]) -> None:
        texts.append(rules._nft._vouching_text)

    wanted = ruleset.render(CONFIG, ruleset.all_slots(CONFIG))
    rules._kinds[1].put = put  # type: ignore[method-assign]
    rules.apply(wanted, [CONFIG.first_queue], 60.0)
    rules.apply(wanted, [CONFIG.first_queue])
    assert [text.splitlines()[-1].split("alive")[1] for text in texts] == [
        f" {{ {MarkBits(CONFIG.marks.mask).take(0):#x}{until} }}" for until in (" timeout 60s", "")
    ]


def test_what_is_gone_comes_back_alone_and_at_once(
    rules: kernel.KernelRules, kinds: list[FakeKind], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind before the next one is looked at; what stands remembers connections, and is not touched."""
    assert rules.mend() == kernel.Mended(), "nothing is wanted"
    rules.apply(WANTED, [2500])
    told.clear()
    kinds[0].gone, kinds[2].gone = ["sysctl x=0"], ["iptables raw -A X", "iptables raw -A Y"]
    assert rules.mend().gone == ("sysctl x=0", "iptables raw -A X", "iptables raw -A Y")
    assert told == [
        "look Sysctl",
        "put 1 Sysctl",
        "look NftTable",
        "look IptablesRules",
        "put 2 IptablesRules",
    ]
    every = ["look Sysctl", "look NftTable", "look IptablesRules"]
    for expected in (every, every[:1]):
        told.clear()
        assert rules.mend().gone == ()
        assert told == expected, (
            "the number of the kernel's rules has changed with what was put, or not at all"
        )
    monkeypatch.setattr(nft, "generation", lambda: 8)
    kinds[2].gone, kinds[2].fails = ["iptables raw -A X"], True
    with pytest.raises(EnvironmentFailureError, match="not taken"):
        rules.mend()


class Tools:
    """In the place of nft and iptables: what they were given, and what they print."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[tuple[list[str], str]] = []
        self.tables: dict[str, str | None] = {}
        self.saved = ""
        monkeypatch.setattr(nft, "run", lambda command, text="": self.given.append((command, text)) or "")
        monkeypatch.setattr(nft, "_listed", lambda families: {one: self.tables[one] for one in families})
        monkeypatch.setattr(iptables, "run_together", self._run_together)
        monkeypatch.setattr(iptables, "families", lambda: (4, 6))

    def _run_together(self, commands: Sequence[tuple[list[str], str]]) -> list[str]:
        self.given += commands
        return [self.saved for _ in commands]

    @property
    def restored(self) -> list[str]:
        return [text for command, text in self.given if "restore" in command[0]]


def test_a_table_that_stands_keeps_its_sets_when_the_other_one_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tools = Tools(monkeypatch)
    inet, frames = (
        NftTable(
            f"table {family} nightmail\ndelete table {family} nightmail\ntable {family} nightmail {{\n}}\n",
            family,
        )
        for family in ("inet", "bridge")
    )
    noted = "\n\tchain former/net/x/1 {\n\t}\n"
    tools.tables = {
        "inet": f"table inet nightmail {{\n{noted}}}\n",
        "bridge": "table bridge nightmail {\n}\n",
    }
    tables = nft.NftTables()
    tables.vouching = {}
    tables.learn([inet, frames])
    assert tables.mend([inet, frames]) == []
    assert not tools.given
    tools.tables["bridge"] = None
    tables.mend([inet, frames])
    assert [text for _, text in tools.given] == [frames.text]
    tools.tables["bridge"] = "table bridge nightmail {\n}\n"
    tools.tables["inet"] = f"table inet nightmail {{\n\tchain strange {{\n\t}}\n{noted}}}\n"
    tools.given.clear()
    assert tables.mend([inet, frames]) == ["nft table inet nightmail: its rules differ from ours"]
    ((_, text),) = tools.given
    assert text.startswith(inet.text)
    assert frames.text not in text
    assert "add chain inet nightmail former/net/x/1" in text, "notes of what was before us stay"


def test_both_families_of_iptables_come_back_with_what_their_counters_had_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tools = Tools(monkeypatch)
    rules = iptables.Iptables()
    wanted = WANTED.of(IptablesRules)
    passed = "[7:420] -A NIGHTMAIL-PREROUTING -i lan -p tcp -j NIGHTMAIL-PASSED"
    tools.saved = f"*mangle\n:NIGHTMAIL-PREROUTING - [0:0]\n{passed}\nCOMMIT\n"
    assert rules.mend(wanted)
    assert rules.counted == 14
    assert len(tools.restored) == 2
    assert all("-F NIGHTMAIL-PREROUTING" in text for text in tools.restored)
    both = [line.split(" ", 1) for rules_of in wanted for line in rules._expected(rules_of)]
    tools.given.clear()
    tools.saved = "\n".join(f"*{table}\n[0:0] {line}\nCOMMIT" for table, line in both)
    assert rules.mend(wanted) == []
    assert (rules.counted, tools.restored) == (None, [])


def test_rules_that_go_while_they_are_put_back_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each table of each family is flushed by a command of its own, and the first one is told of."""
    tools = Tools(monkeypatch)
    rules = iptables.Iptables()
    wanted = WANTED.of(IptablesRules)
    counters = (30, 2, *[0] * limits.RULES_MEND_TRIES)
    looks = iter(
        f"*mangle\n[{count}:9] -A NIGHTMAIL-PREROUTING -i lan -p tcp -j NIGHTMAIL-PASSED\nCOMMIT\n"
        for count in counters
    )
    failures = [EnvironmentFailureError("line 9 failed"), None]

    def together(commands: Sequence[tuple[list[str], str]]) -> list[str]:
        if "restore" not in commands[0][0][0]:
            tools.saved = next(looks)
        elif (failure := failures.pop(0)) is not None:
            raise failure
        return tools._run_together(commands)

    monkeypatch.setattr(iptables, "run_together", together)
    gone = rules.mend(wanted)
    assert len(gone) == len(set(gone)) > 0
    assert rules.counted == 60, "what the first look saw; what is back since counts from nothing"
    assert not failures
    failures += [EnvironmentFailureError("no such table")] * limits.RULES_MEND_TRIES
    with pytest.raises(EnvironmentFailureError, match="no such table"):
        rules.mend(wanted)
    assert not failures


def vouching(*ports: int) -> str:
    jumps = "".join(f"\t\tjump vouched_{port}\n" for port in ports)
    return (
        f"table inet nightmail {{\n\tchain vouching {{\n{jumps}\t}}\n\n\tchain x {{\n\t\taccept\n\t}}\n}}\n"
    )


def test_who_must_live_for_the_gate_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every switch of the gate; what others make of it is missing, and comes back with the table."""
    told: list[str] = []
    stands = [vouching()]
    monkeypatch.setattr(nft, "run", lambda command, text="": told.append(text) or "")
    monkeypatch.setattr(nft, "_listed", lambda families: dict.fromkeys(families, stands[0]))
    table = NftTable("table inet nightmail {}\n")
    tables = nft.NftTables()
    tables.vouching = {12525: 0x40}
    tables.put([table])
    assert told[-1].endswith(
        "flush chain inet nightmail vouching\n"
        "add rule inet nightmail vouching jump vouched_12525\n"
        "add element inet nightmail alive { 0x40 }\n"
    )
    stands[0] = vouching(12525)
    assert tables.missing([table]) == []
    tables.swap_vouching({12526: 0x41})
    assert told[-1] == (
        "flush chain inet nightmail vouching\nadd rule inet nightmail vouching jump vouched_12526\n"
    ), "whoever comes new has to prove that it lives"
    assert tables.missing([table]) == ["nft chain inet nightmail vouching: its rules differ from ours"]
    stands[0] = vouching(12526)
    assert tables.missing([table]) == []


def test_the_gate_needs_those_workers_alone_that_it_sends_syns_to(
    rules: kernel.KernelRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ruleset.render(CONFIG, ruleset.all_slots(CONFIG))
    first = CONFIG.first_queue
    rules.apply(wanted, [first, first + 1, first + 3])
    bits = MarkBits(CONFIG.marks.mask)
    port = CONFIG.first_listen_port
    assert rules._nft.vouching == {port: bits.take(0), port + 1: bits.take(1)}


@pytest.mark.parametrize(
    ("count", "fits"), [(limits.INSIDE_NETWORKS, True), (limits.INSIDE_NETWORKS + 1, False)]
)
def test_more_networks_than_a_worker_can_be_told_are_refused(
    monkeypatch: pytest.MonkeyPatch, count: int, fits: bool
) -> None:
    """Where the inside has a routing table of its own: named networks say it shorter."""
    found = tuple(ip_network(f"2001:db8:{number:x}::/48") for number in range(count))
    monkeypatch.setattr(kernel.routing, "networks_behind", lambda interfaces, others: found)
    if fits:
        assert kernel.inside_networks(CONFIG) == found
        told = json.dumps({"inside": [str(network) for network in found]})
        assert len(told) <= limits.LINK_MESSAGE_OCTETS
    else:
        with pytest.raises(EnvironmentFailureError, match="inside_networks"):
            kernel.inside_networks(CONFIG)


def test_a_bug_leaves_no_half_of_a_rule_set(
    rules: kernel.KernelRules, kinds: list[FakeKind], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise IndexError("an interface that has just gone")

    monkeypatch.setattr(kinds[1], "put", fails)
    with pytest.raises(IndexError):
        rules.apply(WANTED, [2500])
    assert told == ["put 1 Sysctl", "take IptablesRules", "take NftTable", "take Sysctl"]


def test_a_table_that_is_not_shown_is_not_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """nft was killed, say: put in anew, the table would remember no connection."""
    monkeypatch.setattr(nft, "start", lambda command: start(["sh", "-c", "echo it ended >&2; exit 1"]))
    with pytest.raises(EnvironmentFailureError, match=r"^nft: it ended$"):
        nft.notes()


def test_our_table_is_found_among_others() -> None:
    ours = "table inet nightmail {\n\tchain leaving {\n\t\taccept\n\t}\n}\n"
    before, behind = "table inet nightmail2 {\n\tset a {\n\t}\n}\n", "table inet filter {\n}\n"
    assert nft.ours_in(before + ours + behind, "inet") == ours
    assert nft.ours_in(ours, "bridge") is None
    assert nft.ours_in(before + behind, "inet") is None


def test_what_is_not_counted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = "table inet others {\n\tcounter spared {\n\t\tpackets 7 bytes 420\n\t}\n}\n"
    ours = counter.replace("others", "nightmail").replace("\tc", "\tset a {\n\t}\n\n\tc").replace("7", "9")
    for listing, expected in ((counter + ours, 9), (counter, None)):
        monkeypatch.setattr(spared, "run", lambda command, listing=listing: listing)
        if expected is not None:
            assert kernel.DEAD_ENDS.count() == expected
            continue
        with pytest.raises(EnvironmentFailureError, match="nothing is counted"):
            kernel.DEAD_ENDS.count()


def test_what_was_taken_away_half_way_is_missed_when_it_is_wanted_after_all(
    rules: kernel.KernelRules, kinds: list[FakeKind], told: list[str]
) -> None:
    """A `down` that failed, and then `up`: all was said to stand, and the gate was gone."""
    rules.apply(WANTED, [2500])
    kinds[1].fails = True
    with pytest.raises(EnvironmentFailureError, match="not given"):
        rules.remove()
    assert told[-2:] == ["take IptablesRules", "take NftTable"]
    kinds[1].fails, kinds[2].gone = False, ["iptables raw -A X"]
    assert rules.missing() == ["iptables raw -A X"]
    assert rules.mend().gone == ("iptables raw -A X",)
    rules.remove()
    assert rules.missing() == []
