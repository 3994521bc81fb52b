"""What the tests of `up` and `down` share: a configuration of their own, and a kernel that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import Config
from gateway.intercept import kernel
from gateway.operator import orphans
from gateway.runtime.supervisor import sole
from tests.unit.operator.fake_kernel import FakeKernel


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(inside=("eth1",), outside=("eth0",), state_dir=tmp_path / "state", run_dir=tmp_path / "run")


@pytest.fixture
def fake(config: Config, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    made = FakeKernel(config)
    monkeypatch.setattr(kernel, "KernelRules", made.rules)
    monkeypatch.setattr(kernel, "gate_counts", lambda: made.counts)
    monkeypatch.setattr(kernel, "table_refusal", lambda config: made.refusal)
    monkeypatch.setattr(sole, "another", lambda control: made.other)
    monkeypatch.setattr(orphans, "end", lambda pause, *, hurried: made.ends.append(hurried))
    return made
