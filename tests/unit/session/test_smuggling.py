"""Every fake end of data, and whole smuggled messages, through a channel: the same octets on the other side.

Between two gateways nothing reads content, so nothing can be made of it; where it is sent before the gateway
over there has proven itself, it waits (`test_firstflight`).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.session.commands import SendOctets
from gateway.session.events import Side
from tests.fuzz.target import pieces
from tests.playbook import EHLO, GREETING, FarReceivingGateway, Playbook, sending

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "smtp_fake_eod.json").read_text())
CONTENTS = {
    **{
        one["name"]: b"Subject: x\r\n\r\nhello" + bytes.fromhex(one["hex"]) + b"MAIL FROM:<a@b>\r\nDATA\r\n"
        for one in VECTORS["sequences"]
    },
    **{
        name: bytes.fromhex(value)
        for name, value in VECTORS["data_phase_example"].items()
        if name.endswith("_hex")
    },
}


def test_they_are_all_there() -> None:
    assert len(VECTORS["sequences"]) == 26
    assert len(CONTENTS) == 29


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("name", CONTENTS)
def test_content_is_octets(name: str, size: int) -> None:
    content = CONTENTS[name]
    far = FarReceivingGateway()
    book = Playbook(sending())
    book.far(far.greeting)
    book.near(EHLO)
    book.far(far.reply)
    book.near(b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n")
    far.take(book.to_far)
    book.far(far.params() + far.says(b"250 Ok\r\n250 Ok\r\n354 go on\r\n"))
    before = far.take(book.to_far).data
    for piece in pieces(content, size):
        book.near(piece)
    while book.machine.deadline is not None:  # what was held of a large flight, to be padded with its end
        book.deadline()
    assert far.take(book.to_far).data == before + content
    assert book.to_near.startswith(GREETING)
    # And the way back: what a receiver says of it is passed on as it stands.
    heard = len(book.to_near)
    (said,) = (
        one for one in book.far(far.says(content)) if isinstance(one, SendOctets) and one.side is Side.NEAR
    )
    assert said.octets == book.to_near[heard:] == content
