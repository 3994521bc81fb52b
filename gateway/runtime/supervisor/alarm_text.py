"""What people and programs are told of an alarm: the facts, and for people what they mean and what to do.

Reads the page that ships with the package, and nothing else. Every value is escaped and bounded, for what a
peer says may stand in it. Counterparts: `alarms_out`, docs/messages.md.
"""

from __future__ import annotations

import os
import platform
import re
import textwrap
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import gateway
from gateway import __version__
from gateway.errors import Reason
from gateway.observe.counters import Alarm
from gateway.observe.log import printable
from gateway.policy import limits

_KEPT_VARIABLES: Final = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ")
_PAGE: Final = "messages.md"
_COLUMNS: Final = 76
_TRIED: Final = "The mail gateway tries whether its alarms arrive. Nothing is wrong."
_EMPHASIS: Final = re.compile(r"\*(\w[^*\n]*)\*")
_LINK: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def facts(alarm: Alarm) -> dict[str, str | int]:
    """For a program; all texts are printable ASCII of a bounded length."""
    return {
        "reason": alarm.reason.value,
        "subject": printable(alarm.subject),
        "detail": printable(alarm.detail),
        "likely": printable(alarm.likely),
        "at": alarm.at,
        "unheard": alarm.unheard,
        "gateway": printable(platform.node()),
        "version": __version__,
    }


def environment(alarm: Alarm) -> dict[str, str]:
    """Little of ours, and the alarm."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return kept | {f"NIGHTMAIL_{name.upper()}": str(value) for name, value in facts(alarm).items()}


def mail(alarm: Alarm, to: str, again_hours: int, *, last_of_hour: bool = False) -> bytes:
    """To the postmaster, as any other mail of this machine. It tells of servers, never of people."""
    told = facts(alarm)
    message = EmailMessage()
    message["From"] = f"Nightmail <{to}>"
    message["To"] = to
    message["Subject"] = f"Nightmail on {told['gateway']}: {told['reason']} {told['subject']}"
    message["Date"] = format_datetime(datetime.fromtimestamp(alarm.at, UTC))
    message["Message-ID"] = make_msgid(domain=to.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    rows = {
        "what": told["reason"],
        "about": told["subject"],
        "when": datetime.fromtimestamp(alarm.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "likely": told["likely"],
        "detail": told["detail"],
        "gateway": f"{told['gateway']}, nightmail {__version__}",
    }
    trial = alarm.reason is Reason.TRIAL
    lines = [_TRIED if trial else "The mail gateway has rung an alarm. No mail waits for it.", ""]
    lines += [f"{name + ':':9} {value}" for name, value in rows.items() if value]
    if alarm.unheard:
        times = "once" if alarm.unheard == 1 else f"{alarm.unheard} times"
        lines.append(f"{'and:':9} {times} since the last time that it was told")
    lines += [*_explained(alarm), *_closing(0 if trial else again_hours, last_of_hour)]
    message.set_content("\n".join(lines) + "\n", cte="7bit")
    return message.as_bytes()


def _explained(alarm: Alarm) -> list[str]:
    """Of the reason, and of the likely cause beside it: what it means, and what to do."""
    lines: list[str] = []
    for word in (alarm.reason.value, alarm.likely):
        meaning = meanings().get(word, "")
        if meaning:
            lines += ["", f"{word}:", *meaning.splitlines()]
    return lines


def _closing(again_hours: int, last_of_hour: bool) -> list[str]:
    """`again_hours`: 0 for what is told whenever somebody asks."""
    lines = [
        "",
        "`nightmail status` on the gateway says how it is now. More is in docs/messages.md",
        "(on the gateway: /usr/share/doc/nightmail/docs/messages.md).",
    ]
    if again_hours:
        lines.append(
            f"The same alarm about the same is told again after {again_hours} hours at the earliest."
        )
    if last_of_hour:
        most = limits.ALARMS_OUT_PER_HOUR
        lines.append(
            f"It is number {most} within an hour; what follows in this hour stands in the log alone."
        )
    return lines


def meanings() -> dict[str, str]:
    """Each word that the page explains, as text of short ASCII lines. Empty where the page cannot be read."""
    try:
        parts = re.split(r"^#+ (.*)\n", _page(), flags=re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return {}
    known = {f"`{reason.value}`": reason.value for reason in Reason}
    return {
        known[head]: _plain(text)
        for head, text in zip(parts[1::2], parts[2::2], strict=True)
        if head in known
    }


def _page() -> str:
    """From the package or from a source tree. Raises OSError."""
    packaged: Traversable = files("gateway.runtime.supervisor") / _PAGE
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(gateway.__file__).parents[1] / "docs" / _PAGE).read_text(encoding="utf-8")


def _plain(markdown: str) -> str:
    """Without links and marks of emphasis, nor the bare word that it rings, which the reader knows by now."""
    text = _LINK.sub(r"\1", markdown.replace("*Rings.* ", ""))
    text = _EMPHASIS.sub(r"\1", text)
    paragraphs = [textwrap.fill(" ".join(each.split()), _COLUMNS) for each in text.strip().split("\n\n")]
    return "\n\n".join(paragraphs).encode("ascii", "replace").decode("ascii")
