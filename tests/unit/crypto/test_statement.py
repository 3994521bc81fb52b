"""A statement leads from one identity to another only where both signed."""

from __future__ import annotations

import pytest

from gateway.crypto.keys import IdentityKey, Label
from gateway.crypto.messages import STATEMENT
from gateway.crypto.statement import Statement, make_statement, read_statement
from gateway.errors import LocalMisuseError, PeerProtocolError, Reason
from tests.unit.crypto.pairs import octets

OLD = IdentityKey.from_seed(octets("old", 32))
NEW = IdentityKey.from_seed(octets("new", 32))
MALLORY = IdentityKey.from_seed(octets("mallory", 32))
CONTENT = make_statement(OLD, NEW, 7)


def test_there_and_back() -> None:
    assert len(CONTENT) == 196
    assert read_statement(CONTENT) == Statement(OLD.public, NEW.public, 7)


def test_every_octet_is_protected() -> None:
    for index in range(len(CONTENT)):
        changed = bytearray(CONTENT)
        changed[index] ^= 1
        with pytest.raises(PeerProtocolError):
            read_statement(bytes(changed))


def test_every_other_length_is_refused() -> None:
    for length in [*range(len(CONTENT)), len(CONTENT) + 1]:
        with pytest.raises(PeerProtocolError):
            read_statement((CONTENT + b"\0")[:length])


@pytest.mark.parametrize(
    ("by_old", "by_new"),
    [
        ((MALLORY, Label.STATEMENT_OLD), (NEW, Label.STATEMENT_NEW)),
        ((OLD, Label.STATEMENT_OLD), (MALLORY, Label.STATEMENT_NEW)),
        ((OLD, Label.STATEMENT_NEW), (NEW, Label.STATEMENT_NEW)),
        ((OLD, Label.STATEMENT_OLD), (NEW, Label.STATEMENT_OLD)),
        ((OLD, Label.OFFER), (NEW, Label.STATIC)),
    ],
    ids=["not by old", "not by new", "old as new", "new as old", "other labels"],
)
def test_both_must_sign_each_for_its_part(
    by_old: tuple[IdentityKey, Label], by_new: tuple[IdentityKey, Label]
) -> None:
    values = STATEMENT.decode(CONTENT)
    signed = CONTENT[:68]
    values["by_old"] = by_old[0].sign(by_old[1], signed)
    values["by_new"] = by_new[0].sign(by_new[1], signed)
    with pytest.raises(PeerProtocolError) as caught:
        read_statement(STATEMENT.encode(values))
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_a_statement_leads_somewhere() -> None:
    with pytest.raises(LocalMisuseError):
        make_statement(OLD, OLD, 1)
    values = STATEMENT.decode(CONTENT)
    values["new"] = values["old"]
    signed = STATEMENT.encode(values)[:68]
    values["by_old"] = OLD.sign(Label.STATEMENT_OLD, signed)
    values["by_new"] = OLD.sign(Label.STATEMENT_NEW, signed)
    with pytest.raises(PeerProtocolError) as caught:
        read_statement(STATEMENT.encode(values))
    assert caught.value.reason is Reason.BAD_RECORD
