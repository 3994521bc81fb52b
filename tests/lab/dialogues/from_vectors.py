"""Dialogues from tests/vectors: false ends of data, and the openings of mail servers in the wild."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.lab.dialogues.words import (
    BOTH_END,
    CONTENT,
    EHLO,
    GREETING,
    QUIT,
    RECEIVER,
    REPLY,
    Dialogue,
    asked,
    c,
    mail,
    opened,
    s,
)
from tests.lab.steps import Say

VECTORS = Path(__file__).parents[2] / "vectors"


def smuggling() -> list[Dialogue]:
    vectors = json.loads((VECTORS / "smtp_fake_eod.json").read_text())["sequences"]
    inner = b"MAIL FROM:<forged@a.test>\r\nRCPT TO:<bob@b.test>\r\nDATA\r\nSubject: inner\r\n\r\nx\r\n"
    return [
        Dialogue(
            f"false end {vector['name']}",
            (*opened(), *mail(CONTENT + bytes.fromhex(vector["hex"]) + inner), *QUIT),
        )
        for vector in vectors
    ]


def real_openings() -> list[Dialogue]:
    """Greetings and EHLO replies of mail servers in the wild; their decisions: see the observer's tests."""
    entries = json.loads((VECTORS / "ehlo_replies.json").read_text())["entries"]
    dialogues = []
    for entry in entries:
        greeting = bytes.fromhex(entry["greeting_hex"] or "") or GREETING
        reply = bytes.fromhex(entry["ehlo_hex"] or "") or REPLY
        complete = re.search(rb"(?m)^\d{3}(?: [^\n]*)?\r?\n\Z", reply) is not None
        steps = (s(greeting), c(EHLO), Say(RECEIVER, reply, heard=complete))
        ending = (*asked(b"NOOP", b"250 Ok"), *QUIT) if complete else BOTH_END
        dialogues.append(Dialogue(f"{entry['id']} {entry['mta']}", (*steps, *ending)))
    return dialogues
