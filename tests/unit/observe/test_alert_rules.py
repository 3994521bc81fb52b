"""The alerts that the package brings for Prometheus: each asks for what there is, and is explained."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.observe.exposition import exposition
from tests.unit.operator.fake_daemon import STATUS

ROOT = Path(__file__).parents[3]
RULES = (ROOT / "packaging/prometheus-alerts.yml").read_text()
SEEING = (ROOT / "docs/seeing.md").read_text()


def series() -> set[str]:
    status = copy.deepcopy(STATUS)
    families = text_string_to_metric_families(exposition(status).decode())
    return {sample.name for family in families for sample in family.samples}


@pytest.mark.parametrize("expression", re.findall(r"^ +expr: (.*)$", RULES, re.MULTILINE))
def test_each_asks_for_series_that_a_gateway_has(expression: str) -> None:
    asked = set(re.findall(r"nightmail_\w+", expression))
    assert asked
    assert asked <= series()


def test_the_page_has_all_of_them_and_no_other() -> None:
    names = re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE)
    assert names == re.findall(r"^\| `(Nightmail\w+)` \|", SEEING, re.MULTILINE)
    assert len(names) == RULES.count("expr:") == RULES.count("severity:") == RULES.count("summary:")
