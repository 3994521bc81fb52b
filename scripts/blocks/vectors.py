"""The appendix of test vectors, from `tests/vectors/nightmail.json`; a test holds that file to the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.blocks.tables import listing, table

_FILE = Path(__file__).resolve().parents[2] / "tests" / "vectors" / "nightmail.json"
_KEYS = (
    ("r_identity_seed", "R's identity, Ed25519 seed"),
    ("r_static", "R's static key"),
    ("r_ephemeral", "R's e"),
    ("kem_seed_d_z", "R's e1, ML-KEM seed d | z"),
    ("s_identity_seed", "S's identity, Ed25519 seed"),
    ("s_static", "S's static key"),
    ("s_ephemeral", "S's e"),
    ("m", "m of the encapsulation"),
)
_STEPS = (
    ("prologue", "prologue"),
    ("hash_signed", "h behind s, as signed"),
    ("offer", "offer"),
    ("endorsement", "endorsement"),
    ("verb_and_answer", "verb and answer's frame"),
    ("handshake_hash", "h behind message 2"),
    ("key_r_to_s", "first key of Split, R to S"),
    ("key_s_to_r", "second key of Split, S to R"),
)


_BEFORE = (("handshake_hash", "h behind message 2 of the full handshake"),)
_RESUMED = (
    ("ticket_secret", "the ticket's secret"),
    ("ticket_name", "the ticket's name"),
    ("r_ephemeral", "R's e"),
    ("s_ephemeral", "S's e"),
    ("offer", "offer"),
    ("verb_and_answer", "verb and answer's frame"),
    ("handshake_hash", "h behind message 2"),
    ("key_r_to_s", "first key of Split, R to S"),
    ("key_s_to_r", "second key of Split, S to R"),
    ("next_ticket_secret", "the next ticket's secret"),
    ("next_ticket_name", "the next ticket's name"),
)


def _all() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(_FILE.read_text())
    return read


def _handshake(form: str) -> dict[str, Any]:
    [found] = [one for one in _all()["vectors"] if one["form"] == form]
    return dict(found)


def _fenced(lines: list[str]) -> str:
    return "\n".join(["```text", *lines, "```"])


def _hex(vector: dict[str, Any], names: tuple[tuple[str, str], ...]) -> list[str]:
    return [listing(bytes.fromhex(vector[name]), label) for name, label in names if vector[name]]


def surroundings() -> str:
    """What the handshakes have in common. `\\r\\n` stands for CRLF."""
    vector = _handshake("full")
    rows = [
        ["greeting", f"`{_visible(vector['greeting'])}`"],
        ["reply, without the offer", f"`{_visible(vector['reply'])}`"],
        ["from the sender", f"`{_visible(vector['from_sender'])}`"],
        ["today; epoch of both static keys", vector["today"]],
        ["not-after", vector["not_after"]],
        ["dialled address", f"`{vector['dialled_address']}`"],
        ["dialled port", vector["dialled_port"]],
        ["flags", "0 in both messages; where there are tickets, KEEPS_TICKET in both"],
    ]
    return table(["", "value"], rows)


def full() -> str:
    return _form("full")


def short() -> str:
    return _form("short")


def _form(form: str) -> str:
    vector = _handshake(form)
    return _fenced([*_hex(vector, _KEYS), *_hex(vector, _STEPS), *_lines_and_records(vector)])


def resumed() -> str:
    """With the ticket that the full handshake leaves where both sides keep one."""
    vector = _all()["resumed"]
    return _fenced([*_hex(vector["before"], _BEFORE), *_hex(vector, _RESUMED), *_lines_and_records(vector)])


def _lines_and_records(vector: dict[str, Any]) -> list[str]:
    lines = [f"  {line}" for line in vector["offer_lines"].split("\r\n")[:-1]]
    return ["offer lines", *lines, *(_record(entry) for entry in vector["records"])]


def _record(entry: dict[str, Any]) -> str:
    who = "R to S" if entry["from"] == "R" else "S to R"
    content = bytes.fromhex(entry["content"])
    said = _visible(content.decode()) if content.isascii() else ""
    shown = f'"{said}"' if said.isprintable() and said else entry["content"] or "none"
    return listing(
        bytes.fromhex(entry["frame"]),
        f"record {entry['number']:,} {who}, type {entry['type']}, content {shown}, {entry['zeros']} zeros",
    )


def statement() -> str:
    one = _all()["statement"]
    return _fenced(
        [
            listing(bytes.fromhex(one["old_seed"]), "old identity, Ed25519 seed"),
            f"  fingerprint {one['old_fingerprint']}",
            listing(bytes.fromhex(one["new_seed"]), "new identity, Ed25519 seed"),
            f"  fingerprint {one['new_fingerprint']}",
            f"serial {one['serial']}",
            listing(bytes.fromhex(one["content"]), "STATEMENT"),
        ]
    )


def padding() -> str:
    """Sizes of flights on the wire, before and after."""
    heads = ["n: octets when padded last", "d: octets since", "padded to"]
    return table(heads, [[f"{number:,}" for number in row] for row in _all()["padding"]])


def _visible(text: str) -> str:
    return text.replace("\r\n", "\\r\\n")
