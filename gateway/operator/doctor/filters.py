"""Reads the packet filters of this machine into a snapshot, for `machine` and for who asks of them alone.

Changes nothing. What cannot be read stays empty.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel
from gateway.operator.doctor import network
from gateway.operator.doctor.snapshot import Snapshot
from gateway.operator.doctor.table import checks_for
from gateway.operator.doctor.trouble import Trouble
from gateway.policy import limits

_OF_FILTERS: Final = (
    "untracked", "drops", "bypasses", "drops-of-dials", "redirections", "marks", "nftables", "closed",
    "passing",
)  # fmt: skip
"""Checks that look at rules of others, and at the way of mail past them."""


def hindrances(config: Config) -> Iterator[Trouble]:
    """What rules of others do to mail once the gateway carries it. Takes a resolved configuration."""
    seen = seen_with(Snapshot(config=config, config_path=Path()))
    with contextlib.suppress(EnvironmentFailureError):
        seen = kernel.with_routes(lambda ip: network.seen_with(seen, ip))
    checks = checks_for(config.placement)
    for name in _OF_FILTERS:
        if name in checks:
            yield from checks[name](seen)


def seen_with(seen: Snapshot) -> Snapshot:
    """`seen`, and what iptables of both kinds and nft list."""
    return replace(
        seen,
        dumps=dumps(),
        legacy={family: _dump(family, "-legacy") for family in kernel.families() if _old_tables(family)},
        nft=_nft(),
    )


def dumps() -> dict[int, str]:
    """iptables-save with its counters, by family."""
    return {family: _dump(family, "") for family in kernel.families()}


def _dump(family: int, variant: str) -> str:
    tool = "iptables" if family == 4 else "ip6tables"
    return _output([f"{tool}{variant}-save", "-c"])


def _old_tables(family: int) -> bool:
    name = "ip_tables_names" if family == 4 else "ip6_tables_names"
    try:
        return bool(Path("/proc/thread-self/net", name).read_text().strip())
    except OSError:
        return False


def _nft() -> tuple[Mapping[str, Any], ...]:
    try:
        return tuple(json.loads(_output(["nft", "-j", "list", "ruleset"]) or "{}").get("nftables", ()))
    except ValueError:
        return ()


def _output(command: list[str]) -> str:
    """What it prints; nothing where it fails or is not there."""
    try:
        # A comment in a rule may be in any encoding.
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=limits.TOOL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""
