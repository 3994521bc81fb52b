"""`scripts/soak` as a command, broken off after its first fault: the result so far, and nothing left behind.

Namespaces nmc-soaktest-. The two hours are the command's; what they showed stands in docs/faults.md.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.lab import network

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
]
ROOT = Path(__file__).parents[2]
LAB = "soaktest"
END_SECONDS = 120.0


def test_a_signal_ends_a_soak_with_the_result_so_far(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    words = ["--seed", "7", "--minutes", "60", "--lab", LAB, "--record", str(record), "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "bench.soak", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as soak:
        assert soak.stderr is not None
        said = [soak.stderr.readline()]
        while said[-1] and "broken" not in said[-1]:
            said.append(soak.stderr.readline())
        soak.send_signal(signal.SIGTERM)
        out, rest = soak.communicate(timeout=END_SECONDS)
    assert soak.returncode == 1, rest
    found = json.loads(out)
    assert found["seed"] == 7 and "seed 7," in said[0]
    assert not found["finished"] and not found["holds"]
    assert len(found["faults"]) == 1 and not found["faults_failed"]
    assert found["harm"] == []
    assert found["mails"]["postfix"]["deliveries"] > 0 and found["mails"]["raw"]["mails"] > 0
    assert found["samples"][0]["gateways"]["a"]["conntrack"] > 0
    assert [json.loads(line)["kind"] for line in record.read_text().splitlines()][-1] == "end"
    assert not network.existing([f"nmc-{LAB}-mta-a", f"nmc-{LAB}-gw-a"])
    assert not Path(f"/var/tmp/nightmail-chaos-{LAB}").exists()
