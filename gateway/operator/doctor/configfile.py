"""One key of the configuration file -> the line for a shell that sets it."""

from __future__ import annotations

from gateway.config_text import line_of
from gateway.operator.doctor.snapshot import Snapshot
from gateway.operator.doctor.trouble import shell


def setting(seen: Snapshot, key: str, value: str) -> str:
    """`key` as in docs/configuration.md, `value` as it is written there. A running daemon loads it."""
    section, _, name = key.partition(".")
    path, text = seen.config_path, seen.config_text
    at, head = line_of(text, key), line_of(text, section)
    if at is not None and _is_whole(text.split("\n")[at - 1]):
        change = shell("sed", "-i", f"{at}c\\{name} = {value}", path)
    elif at is not None:
        # A list over several lines: no tool of one line knows where it ends.
        change = f"${{EDITOR:-vi}} +{at} {shell(path)}"
    elif head is not None:
        change = shell("sed", "-i", f"{head}a\\{name} = {value}", path)
    else:
        make = "" if text else f"mkdir -p {shell(path.parent)} && "
        lines = [*([] if text else ["version = 1"]), "", f"[{section}]", *f"{name} = {value}".split("\n")]
        change = f"{make}printf '%s\\n' {shell(*lines)} >> {shell(path)}"
    return f"{change} && {shell(*seen.ours('reload'))}" if seen.runs else change


def _is_whole(line: str) -> bool:
    return line.count("[") == line.count("]")
