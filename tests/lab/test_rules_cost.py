"""What measures the cost of our rules sends what it says, through rules as the daemon lays them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import flood, rules
from gateway.lab import network, processes

ROOT = Path(__file__).parents[2]


def said(*words: str) -> str:
    return processes.run_in(flood.router(0), words).stdout.decode()


def sent_by(interface: str) -> int:
    link = json.loads(said("ip", "-j", "-s", "link", "show", interface))[0]
    return int(link["stats64"]["tx"]["packets"])


@pytest.mark.parametrize("family", [4, 6])
def test_packets_of_sessions_to_a_dead_end_pass_the_router(family: int) -> None:
    whole = next(one for one in rules.parts() if one.name == "all")
    with flood.standing(1):
        network.inside(flood.router(0), lambda: rules.lay(whole, family))
        sender = flood.Flood(family, 1)
        before = sent_by("lan"), sent_by("wan")
        took = sender.take(0)
        sender.close()
        # One batch more than is counted warms. A router also looks for neighbours.
        sessions = (flood.BATCHES + 1) * flood.SESSIONS
        ways = [step.to_server for step in flood.session_steps()]
        assert sent_by("lan") - before[0] >= ways.count(False) * sessions
        assert sent_by("wan") - before[1] >= ways.count(True) * sessions
        assert int(said("conntrack", "-C")) >= sessions
        assert f"packets {sessions} " in said("nft", "list", "counter", "inet", "nightmail", "spared")
    assert took.session > 0


def test_the_command_tells_of_every_part() -> None:
    command = [sys.executable, "-m", "bench.rules", "--turns", "2", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    added = json.loads(done.stdout)
    assert list(added) == [one.name for one in rules.parts()]
    assert all(len(figures) == 3 for figures in added.values())
    assert not network.existing([flood.ENDS, *map(flood.router, range(len(added) + 1))])
