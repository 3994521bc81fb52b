"""What is written for Postfix."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.lab import postfix
from gateway.lab.postfix import Instance
from gateway.lab.topology import load

TOPOLOGY = load()
B = Instance(TOPOLOGY.mail_server("b"), "nm-mta-b", Path("/lab/mta-b"))


def settings(text: str) -> dict[str, str]:
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def test_everything_is_below_the_labs_folder() -> None:
    found = settings(postfix.main_cf(B, offer_starttls=False))
    for name in ("queue_directory", "data_directory", "maillog_file", "virtual_mailbox_base"):
        assert found[name].startswith("/lab/mta-b/"), name
    for name in ("transport_maps", "virtual_mailbox_maps"):
        assert found[name].startswith("texthash:/lab/mta-b/"), name
    assert " /etc/" not in postfix.main_cf(B, offer_starttls=True)


def test_no_resolver_is_asked() -> None:
    found = settings(postfix.main_cf(B, offer_starttls=False))
    assert found["smtp_dns_support_level"] == "disabled"
    assert found["smtp_host_lookup"] == "native"
    assert found["smtpd_peername_lookup"] == "no"


def test_starttls_is_offered_only_when_asked_for() -> None:
    assert "smtpd_tls" not in postfix.main_cf(B, offer_starttls=False)
    assert settings(postfix.main_cf(B, offer_starttls=True))["smtpd_tls_security_level"] == "may"


def test_nothing_runs_in_a_chroot() -> None:
    for line in postfix.MASTER_CF.splitlines():
        assert line.split()[4] == "n", line


def test_routes_by_both_families_and_never_to_itself() -> None:
    table = dict(line.split() for line in postfix.transport_table(B, TOPOLOGY).splitlines())
    assert table == {
        "a.test": "smtp:[10.11.0.10]:25",
        "six.a.test": "smtp:[2001:db8:11::10]:25",
        "c.test": "smtp:[198.51.100.30]:25",
        "six.c.test": "smtp:[2001:db8:100::30]:25",
    }


def test_users_have_a_maildir_under_both_names() -> None:
    table = dict(line.split() for line in postfix.mailbox_table(B).splitlines())
    assert table["bob@b.test"] == table["bob@six.b.test"] == "bob/"
    assert table["user@b.test"] == "user/"


def test_a_machine_without_postfix_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(EnvironmentFailureError, match="apt-get install postfix"):
        postfix.require_postfix()


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Instance, list[list[str]]]:
    """An instance whose queue answers what the list says, one answer after the other."""
    instance = Instance(B.node, B.namespace, tmp_path)
    instance.log.touch()
    answers: list[list[str]] = []

    def next_answer(one: Instance) -> list[str]:
        # Postfix writes a line at the end of each attempt.
        one.log.write_text("to=<...>, status=deferred\n")
        return answers.pop(0)

    monkeypatch.setattr(postfix, "queued", next_answer)
    return instance, answers


def test_waiting_until_all_has_been_tried(queue: tuple[Instance, list[list[str]]]) -> None:
    instance, answers = queue
    answers += [["active", "deferred"], ["incoming"], ["deferred"]]
    postfix.wait_deferred(instance, 10)
    assert answers == []


def test_an_attempt_without_end_is_told(
    queue: tuple[Instance, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, _ = queue
    monkeypatch.setattr(postfix, "queued", lambda one: ["active"])
    with pytest.raises(EnvironmentFailureError, match="still at work"):
        postfix.wait_deferred(instance, 0.01)
