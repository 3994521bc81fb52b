"""The mail of an alarm: what it says, whom it gets to, and that nothing in it is a peer's to shape."""

from __future__ import annotations

import email
import email.policy
import re
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Reason
from gateway.observe.counters import Alarm
from gateway.policy.decision import DECISIONS
from gateway.runtime.supervisor import alarm_text
from gateway.runtime.supervisor.alarm_text import facts
from tests.unit.runtime.supervisor.alarming import ALARM, NOW, PATIENCE, Out, rung, script


def test_the_postmaster_gets_a_mail(tmp_path: Path) -> None:
    sendmail = script(tmp_path, f'cat >{tmp_path}/mail; echo "$@" >{tmp_path}/words')
    out = Out(tmp_path, alarm_mail_to="postmaster@a.test", alarm_sendmail=Path(sendmail))
    rung(out, ALARM)
    out.close()
    assert (tmp_path / "words").read_text() == "-i postmaster@a.test\n"
    mail = email.message_from_bytes((tmp_path / "mail").read_bytes(), policy=email.policy.default)
    assert mail["To"] == "postmaster@a.test"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Subject"].endswith(": offer-missing 192.0.2.7:25")
    assert mail["Date"].datetime.timestamp() == NOW
    text = mail.get_content()
    for words in (
        "what:     offer-missing",
        "about:    192.0.2.7:25",
        "likely:   keyword-masked",
        "2 times since",
        "gateway is off, or somebody strips the offer",
        "`nightmail peers forget ADDRESS`",
        "Have inspection of SMTP turned off",
    ):
        assert words in " ".join(text.split("\n")), words
    assert not re.search(r"\]\(|\*", text), "no marks of the page's are left"
    assert max(map(len, text.splitlines())) < 100
    assert not mail.defects


def test_each_word_is_explained_in_the_mail() -> None:
    meanings = alarm_text.meanings()
    assert meanings.keys() == {reason.value for reason in Reason}
    assert not {word for word, text in meanings.items() if len(text) < 20 or not text.isascii()}
    assert "NIGHTMAIL-*" in meanings["rules-missing"]
    for reason in {decision.reason for decision in DECISIONS.values() if decision.alarm}:
        text = alarm_text.mail(Alarm(reason, "192.0.2.7:25", NOW), "postmaster@a.test", 24).decode()
        assert f"{reason.value}:\n{meanings[reason.value]}" in text


def test_a_page_that_cannot_be_read_leaves_a_mail_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_text, "_PAGE", "not-there.md")
    assert b"what:     offer-missing" in alarm_text.mail(ALARM, "postmaster@a.test", 24)


def test_the_last_mail_of_an_hour_says_so() -> None:
    first, last = (
        alarm_text.mail(ALARM, "postmaster@a.test", 24, last_of_hour=last).decode() for last in (False, True)
    )
    assert "number 30 within an hour" in last
    assert "within an hour" not in first


class MailServer:
    """Answers as many lines as it is given replies for, and keeps what it was told."""

    def __init__(self, *replies: bytes, greeting: bytes = b"220 mail.a.test ESMTP") -> None:
        """An empty reply is none: it waits for the other end to go."""
        self._greeting = greeting
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.lines: list[bytes] = []
        self._replies = replies
        self._serving = threading.Thread(target=self._serve)
        self._serving.start()

    def _serve(self) -> None:
        with self._listener.accept()[0] as session, session.makefile("rwb", buffering=0) as stream:
            stream.write(self._greeting + b"\r\n")
            for reply in self._replies:
                self.lines.append(stream.readline())
                while reply.startswith(b"250 taken") and self.lines[-1] not in (b".\r\n", b""):
                    self.lines.append(stream.readline())
                if not reply:
                    stream.read()
                    return
                stream.write(reply + b"\r\n")

    def close(self) -> None:
        self._serving.join(PATIENCE)
        self._listener.close()


def test_a_mail_server_gets_the_mail_where_one_is_named(tmp_path: Path) -> None:
    server = MailServer(b"250 mail.a.test", b"250 ok", b"250 ok", b"354 go on", b"250 taken", b"221 bye")
    out = Out(tmp_path, alarm_mail_to="postmaster@a.test", alarm_server=server.address)
    rung(out, ALARM)
    server.close()
    assert "alarms told by=mail" in out.told()
    out.close()
    assert re.match(rb"ehlo (\S+\.\S+|\[127\.0\.0\.1\])\r\n", server.lines[0]), (
        "nobody was asked for our name"
    )
    assert [line.rstrip().lower() for line in server.lines[1:4]] == [
        b"mail from:<postmaster@a.test>",
        b"rcpt to:<postmaster@a.test>",
        b"data",
    ]
    assert b"what:     offer-missing\r\n" in server.lines


def test_a_mail_server_that_refuses_is_a_failure_with_its_words(tmp_path: Path) -> None:
    server = MailServer(b"250 mail.a.test", b"250 ok", b"550 5.1.1 nobody here", b"250 ok", b"221 bye")
    out = Out(tmp_path, alarm_mail_to="postmaster@a.test", alarm_server=server.address)
    rung(out, ALARM)
    server.close()
    assert "alarms failed by=mail" in out.told()
    assert "nobody here" in out.told()
    out.close()


@pytest.mark.parametrize("farewell", [b"250 bye", b"421 too late", b"500 what?", b""])
def test_a_mail_that_was_taken_is_not_sent_again_for_an_odd_farewell(tmp_path: Path, farewell: bytes) -> None:
    server = MailServer(b"250 mail.a.test", b"250 ok", b"250 ok", b"354 go on", b"250 taken", farewell)
    out = Out(tmp_path, alarm_mail_to="postmaster@a.test", alarm_server=server.address)
    rung(out, ALARM)
    server.close()
    assert "alarms told by=mail" in out.told()
    assert "failed" not in out.told()
    out.close()


@pytest.mark.parametrize("greeting", [b"554 5.7.1 we know you not", b"421-4.3.2\r\n421 we know you not"])
def test_a_mail_server_that_does_not_greet_is_a_failure_with_its_words(
    tmp_path: Path, greeting: bytes
) -> None:
    server = MailServer(greeting=greeting)
    out = Out(tmp_path, alarm_mail_to="postmaster@a.test", alarm_server=server.address)
    rung(out, ALARM)
    server.close()
    assert "alarms failed by=mail" in out.told()
    assert "we know you not" in out.told()
    out.close()


evil_texts = st.text(max_size=400) | st.sampled_from(
    ["a\r\nBcc: everybody@b.test", "\x1b[31mred", "\0", "$(reboot)", "`reboot`", "x" * 5000, "\udcff"]
)


@given(subject=evil_texts, detail=evil_texts, likely=evil_texts)
def test_whatever_a_peer_says_is_bounded_and_breaks_out_of_nothing(
    subject: str, detail: str, likely: str
) -> None:
    alarm = Alarm(Reason.HANDSHAKE_FAILED, subject, NOW, detail, 0, likely)
    for value in facts(alarm).values():
        assert (
            isinstance(value, int)
            or (value.isascii() and value.isprintable() and len(value) <= 200)
            or not value
        )
    for name, value in alarm_text.environment(alarm).items():
        assert "\0" not in name + value
    octets = alarm_text.mail(alarm, "postmaster@a.test", 24)
    assert octets.isascii()
    mail = email.message_from_bytes(octets, policy=email.policy.default)
    assert set(mail.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
        "Content-Transfer-Encoding",
    }  # fmt: skip
    assert mail["To"] == "postmaster@a.test"
    assert max(map(len, octets.splitlines())) < 998
