"""Alarms by SMTP to a real mail server of the site's: what a person reads, and if it was down."""

from __future__ import annotations

import email
import email.policy
import subprocess
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from gateway.lab import gateways
from gateway.lab.lab import Lab
from gateway.lab.processes import command_in, run_in
from tests.lab.conftest import slot
from tests.lab.probes import eventually

pytestmark = pytest.mark.timeout(240)

PATIENCE = 60.0
ALARMS = """
[alarms]
mail_to = "postmaster@a.test"
server = "{server}"
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Gateway a alone, which tells the postmaster of site a."""
    with slot() as lab:
        lab.up(with_gateways=False, temporary=True)
        configuration = lab.gateway("a").configuration
        server = next(iter(lab.mail_server("a").node.addresses.values())).v4
        configuration.write_text(configuration.read_text() + ALARMS.format(server=server))
        lab.start_gateway("a")
        yield lab


def mails(lab: Lab) -> list[Path]:
    return sorted((lab.mail_server("a").mailbox("postmaster") / "new").iterdir())


def told(lab: Lab, words: str) -> EmailMessage:
    """The mail with these words in its subject, once it is there; on a busy machine others may ring, too."""
    found: list[EmailMessage] = eventually(
        lambda: [mail for mail in map(read, mails(lab)) if words in mail["Subject"]], PATIENCE, words
    )
    return found[0]


def read(path: Path) -> EmailMessage:
    mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    return mail


def say(lab: Lab, word: str) -> int:
    """Its exit status."""
    one = lab.gateway("a")
    words = gateways.nightmail_command("--config", str(one.configuration), word)
    return subprocess.run(command_in(one.namespace, words), capture_output=True, check=False).returncode


def test_the_postmaster_reads_what_has_rung_and_what_to_do(lab: Lab) -> None:
    """A configuration that cannot be had; then with the mail server down, and as one tries all that."""
    configuration = lab.gateway("a").configuration
    good = configuration.read_text()
    configuration.write_text(good.replace("outside = [", 'outside = ["nowhere", '))
    assert say(lab, "reload") == 1
    mail = told(lab, ": reload-refused reload")
    assert not mail.defects
    text = " ".join(mail.get_content().split())
    assert "nowhere" in text, "what is wrong"
    assert "cannot be loaded; nothing has changed" in text, "what it means"
    assert "mend it, reload again" in text, "what to do"
    configuration.write_text(good)
    assert say(lab, "ring") == 0
    assert "Nothing is wrong" in told(lab, ": trial alarms").get_content()

    server = lab.mail_server("a")
    run_in(server.namespace, ["postfix", "-c", str(server.config), "stop"])
    status = gateways.ask(lab.gateway("a"))
    assert status is not None
    run_in(lab.gateway("a").namespace, ["kill", "-KILL", str(status["workers"][0]["pid"])])
    log = lab.gateway("a").log
    eventually(lambda: "alarms failed by=mail" in log.read_text(), PATIENCE)
    assert "Connection refused" in log.read_text()
    assert say(lab, "ring") == 1
    run_in(server.namespace, ["postfix", "-c", str(server.config), "start"])
    # It would be tried again within a minute; over a reload it is at once.
    assert say(lab, "reload") == 0
    assert "and the next one runs" in " ".join(told(lab, "worker-died").get_content().split())
