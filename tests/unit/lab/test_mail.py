"""The lab's mails, the watch on a mailbox, and what may differ between two deliveries."""

from __future__ import annotations

import email
import threading
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.lab.mail import ATTACHMENT_WORDS, Mail, MailboxWatch, name_of, without_traces

STORED = b"""Return-Path: <alice@a.test>
Delivered-To: bob@b.test
Received: from mta-a.a.test (unknown [10.11.0.10])
\tby mta-b.b.test (Postfix) with ESMTP id B79DB1621D2
\tfor <bob@b.test>; Tue, 24 Nov 2026 17:46:07 +0000 (UTC)
Received: from localhost (unknown [127.0.0.1])
\tby mta-a.a.test (Postfix) with ESMTP id 92A541621CE
\tfor <bob@b.test>; Tue,  3 Nov 2026 07:46:07 +0000 (UTC)
Subject: id 12345
X-Lab-Mail: ab-1

Received: by id 77777; Tue, 24 Nov 2026 17:46:07 +0000
"""


def maildir(folder: Path) -> Path:
    for name in ("new", "tmp", "cur"):
        (folder / name).mkdir(parents=True)
    return folder


def deliver(folder: Path, file: str, name: str) -> None:
    (folder / "tmp" / file).write_text(f"X-Lab-Mail: {name}\n\ntext\n")
    (folder / "tmp" / file).rename(folder / "new" / file)


@pytest.mark.parametrize("size", [0, 1, 57, 58, 200_000])
def test_a_mail_is_whole_and_always_the_same(size: int) -> None:
    mail = Mail("ab-1", "alice@a.test", "bob@b.test", size)
    assert mail.octets() == mail.octets()
    parsed = email.message_from_bytes(mail.octets())
    assert parsed["X-Lab-Mail"] == "ab-1"
    if size:
        *_, attachment = parsed.walk()
        attached = attachment.get_payload(decode=True)
        assert isinstance(attached, bytes)
        assert len(attached) == -(-size // 57) * 57
        assert ATTACHMENT_WORDS.encode() in attached
    assert all(len(line) < 1000 for line in mail.octets().split(b"\r\n"))
    assert b"\n" not in mail.octets().replace(b"\r\n", b"")


def test_every_word_is_in_what_goes_over_the_wire() -> None:
    mail = Mail("ab-1", "alice@a.test", "bob@b.test", 1_000)
    on_the_wire = b"MAIL FROM:<alice@a.test>\r\nRCPT TO:<bob@b.test>\r\nDATA\r\n" + mail.octets()
    assert set(mail.words) == {"envelope", "subject", "body", "attachment"}
    for word in mail.words.values():
        assert word in on_the_wire


def test_ids_and_times_of_trace_fields_are_all_that_is_taken_out() -> None:
    other = (
        STORED.replace(b"B79DB1621D2", b"AAAA")
        .replace(b"92A541621CE", b"BBBBBB")
        .replace(b"(UTC)", b"(CET)")
        .replace(b"24 Nov 2026 17:46:07 +0000 (", b"25 Nov 2026 18:46:08 +0100 (")
    )
    assert other != STORED
    assert without_traces(other) == without_traces(STORED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Subject: id 12345", b"Subject: id 12346"),
        (b"id 77777", b"id 77778"),
        (b"17:46:07 +0000\n", b"17:46:08 +0000\n"),
        (b"[10.11.0.10]", b"[10.11.0.11]"),
        (b"ESMTP", b"ESMTPS"),
        (b"Delivered-To", b"Delivered-to"),
    ],
)
def test_every_other_difference_is_seen(old: bytes, new: bytes) -> None:
    assert old in STORED
    assert without_traces(STORED.replace(old, new)) != without_traces(STORED)


def test_the_watch_sees_what_comes_and_not_what_was_there(tmp_path: Path) -> None:
    folder = maildir(tmp_path / "box")
    deliver(folder, "0", "old")
    with MailboxWatch(folder) as watch:
        timer = threading.Thread(target=lambda: [deliver(folder, str(n), f"m{n}") for n in (1, 2, 3)])
        timer.start()
        found = watch.wait(["m1", "m3"], 10)
        timer.join()
        assert found["m3"].path == folder / "new" / "3"
        assert watch.copies("m2") == 1
        assert watch.copies("old") == 0
        deliver(folder, "9", "m1")
        assert watch.copies("m1") == 2
        assert watch.wait(["m1"], 0.001)["m1"].path.name == "1"


def test_the_watch_names_what_did_not_come(tmp_path: Path) -> None:
    folder = maildir(tmp_path / "box")
    with MailboxWatch(folder) as watch, pytest.raises(EnvironmentFailureError, match=r"1 of 1 mails.*m1"):
        watch.wait(["m1"], 0.01)


def test_a_mail_of_somebody_else_has_no_name(tmp_path: Path) -> None:
    path = tmp_path / "bounce"
    path.write_text("From: MAILER-DAEMON\n\ntext\n")
    assert name_of(path) == ""


def test_a_missing_mailbox_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailureError, match="cannot watch"):
        MailboxWatch(tmp_path / "none")
