"""Dialogues of two mail servers, and what each of them sees of one where no gateway stands between."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tests.pair import Receiver, Sender, direct
from tests.playbook import EHLO, GREETING, REPLY

Steps = list[tuple[int, bytes]]
MAIL: Steps = [
    (1, EHLO),
    (2, b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"),
    (4, b"BDAT 5 LAST\r\nhello"),
    (5, b"QUIT\r\n"),
]


@st.composite
def dialogues(draw: st.DrawFn) -> Steps:
    """EHLO, some mails, QUIT: lockstep, pipelined, or with content before any reply to MAIL."""
    steps: Steps = [(1, EHLO)]
    heard = 2
    for _ in range(draw(st.integers(0, 2))):
        content = draw(st.binary(min_size=0, max_size=40)) * draw(st.sampled_from((1, 1, 700)))
        way = draw(st.sampled_from(("lockstep", "pipelined", "bdat", "all at once")))
        envelope = [b"MAIL FROM:<a@a.example>\r\n", b"RCPT TO:<b@b.example>\r\n"]
        chunk = b"BDAT %d LAST\r\n" % len(content) + content
        if way == "lockstep":
            text = content.replace(b".", b"").replace(b"\n", b"") + b"\r\n.\r\n"
            for line in (*envelope, b"DATA\r\n", text):
                steps.append((heard, line))
                heard += 1
        elif way == "pipelined":
            steps.append((heard, b"".join(envelope) + b"DATA\r\n"))
            steps.append((heard + 3, b"text\r\n.\r\n"))
            heard += 4
        elif way == "bdat":
            steps += [(heard, b"".join(envelope)), (heard + 2, chunk)]
            heard += 3
        else:
            steps.append((heard, b"".join(envelope) + chunk))
            heard += 3
    steps.append((heard, b"QUIT\r\n"))
    return steps


def seen(sender: Sender, receivers: Sequence[Receiver]) -> tuple[object, ...]:
    receiver = receivers[-1]
    return (sender.heard, sender.heard_end, receiver.heard, receiver.heard_end, receiver.delivered)


def directly(steps: Steps, greeting: bytes = GREETING, reply: bytes = REPLY) -> tuple[object, ...]:
    sender, receiver = Sender(steps), Receiver(greeting, reply)
    direct(sender, receiver)
    return seen(sender, [receiver])
