"""What nft is told, one line for each thing."""

from __future__ import annotations

import re

from gateway.config import Config
from gateway.intercept import ruleset
from gateway.intercept.objects import NftTable
from gateway.intercept.statements import statements
from tests.unit.intercept.configs import EVERY_CONFIG

OPENS = re.compile(r"^(chain|set|map|counter) (\S+)(?= \{)")
TEXT = """\
table inet t
delete table inet t
table inet t {
    # What it is for.
    set kept {
        type ipv4_addr
        timeout 1h
    }
    counter passed {
    }
    chain at_hook {
        type filter hook output priority 0; policy accept;
        # Why.
        tcp dport { 25 } jump short
        drop
    }
    chain plain {
        accept
    }
    chain empty {
    }
    chain short { counter; goto plain; }
}
"""


def test_each_thing_says_what_and_where() -> None:
    assert list(statements(NftTable(TEXT, name="t"))) == [
        "table inet t",
        "set inet t kept { type ipv4_addr; timeout 1h }",
        "counter inet t passed",
        "chain inet t at_hook { type filter hook output priority 0; policy accept; }",
        "rule inet t at_hook tcp dport { 25 } jump short",
        "rule inet t at_hook drop",
        "chain inet t plain",
        "rule inet t plain accept",
        "chain inet t empty",
        "chain inet t short { counter; goto plain; }",
    ]


@EVERY_CONFIG
def test_nothing_of_ours_is_left_out(config: Config) -> None:
    """Of every placement: no brace stands alone, and each line of the text is in one that is told."""
    for table in ruleset.render(config, ruleset.slots_of(config)).of(NftTable):
        told = list(statements(table))
        heads = [line.split()[:3] for line in told]
        assert all(at == [table.family, table.name] for _, *at in heads)
        assert {word for word, *_ in heads} <= {"table", "set", "map", "counter", "chain", "rule"}
        assert all(line.count("{") == line.count("}") for line in told)
        whole = "\n".join(told)
        for line in map(str.strip, table.text.splitlines()[3:]):
            if line and line != "}" and not line.startswith("#"):
                named = re.sub(OPENS, rf"\1 {table.family} {table.name} \2", line)
                assert named.removesuffix(" {") in whole, line
