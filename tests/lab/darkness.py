"""What is said in tests of what a listener learns, and how it is looked for on the wire.

Counterpart: `gateway.eyes.wire`, which puts the captured segments together again.
"""

from __future__ import annotations

import random
import re
import string

from gateway.eyes.wire import WireSession
from tests.lab.dialogues import DIALOGUES, Dialogue
from tests.lab.dialogues.words import EHLO, FLIGHT, FLIGHT_REPLY, GREETING, QUIT, REPLY, c, mail, opened, s
from tests.lab.exchange import Outcome

WINDOW = 8
"""So many octets of what was said are never on the wire in a row. By chance: once in 10^12 runs."""
VERB = b"XNIGHTMAIL\r\n"
OFFER_END = re.compile(rb"250 XNIGHTMAIL 1 (\d)/\1 [\w-]+\r\n")
FRAME_HEADER = 3


def words(seed: int, octets: int) -> bytes:
    """Lines of text in which no 8 octets come twice but by chance."""
    letters = random.Random(seed).choices(string.ascii_letters + string.digits, k=octets)
    text = "".join(letters)
    return "".join(text[start : start + 70] + "\r\n" for start in range(0, octets, 70)).encode()


BY_NAME = {dialogue.name: dialogue for dialogue in DIALOGUES}
SPOKEN = [
    Dialogue("text", (*opened(), *mail(b"Subject: moonlit heron\r\n\r\n" + words(1, 60_000)), *QUIT)),
    Dialogue(
        "pipelined",
        (
            *opened(),
            c(FLIGHT + b"DATA\r\n"),
            s(FLIGHT_REPLY + b"354 End it with a dot\r\n"),
            c(words(2, 5_000) + b".\r\nQUIT\r\n"),
            s(b"250 2.0.0 Queued as 4dX\r\n221 2.0.0 Bye\r\n"),
            *QUIT[2:],
        ),
    ),
    *(
        BY_NAME[name]
        for name in (
            "bdat",
            "bdat before the first reply",
            "octets behind the ehlo",
            "auth plain",
            "several recipients",
            "smtputf8",
            "early ehlo",
            "a whole session and its end before the greeting",
            "bdat before the first reply, in single octets",
            "sender half-closes in the data",
            "receiver resets in the data",
        )
    ),
]


def windows(octets: bytes) -> set[bytes]:
    return {octets[start : start + WINDOW] for start in range(len(octets) - WINDOW + 1)}


def content_of_frames(sealed: bytes) -> int:
    """How many octets the bodies of the frames have. Fails if there is anything that is no frame."""
    position = total = 0
    while position < len(sealed):
        assert sealed[position] in (0x81, 0x82), f"no frame at {position}"
        length = int.from_bytes(sealed[position + 1 : position + FRAME_HEADER], "big")
        total += length
        position += FRAME_HEADER + length
    assert position == len(sealed)
    return total


def secret_octets(outcome: Outcome) -> bytes:
    """All that was said behind the EHLO reply, and so behind the last word in clear."""
    assert outcome.said_by_sender.startswith(EHLO)
    assert outcome.said_by_receiver.startswith(GREETING + REPLY)
    return outcome.said_by_sender[len(EHLO) :] + b"\0" + outcome.said_by_receiver[len(GREETING + REPLY) :]


def assert_dark(seen: WireSession, outcome: Outcome) -> None:
    """Of an upgraded session: all that was said behind the EHLO reply is sealed on the wire."""
    # In clear: greeting, EHLO line and its reply, our offer and our verb, each as it should be, and no more.
    assert seen.from_client.startswith(EHLO + VERB)
    offer_end = OFFER_END.search(seen.from_server)
    assert offer_end is not None
    clear_down = seen.from_server[: offer_end.end()]
    assert clear_down.startswith(GREETING + REPLY[: REPLY.rindex(b"250 ")])
    sealed_up, sealed_down = seen.from_client[len(EHLO + VERB) :], seen.from_server[offer_end.end() :]

    # The rest is sealed, and has room for every octet that was said: nothing went another way.
    assert content_of_frames(sealed_up) >= len(outcome.receiver.octets) - len(EHLO)
    assert content_of_frames(sealed_down) >= len(outcome.sender.octets) - len(GREETING + REPLY)
    secret = windows(secret_octets(outcome))
    assert len(secret) > 20
    assert not secret & windows(sealed_up)
    assert not secret & windows(sealed_down)
    # Nor in the part in clear, but for words that greeting, EHLO, reply and offer have themselves.
    assert not (secret - windows(EHLO + GREETING + REPLY) - windows(VERB)) & windows(clear_down)
