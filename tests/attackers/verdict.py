"""One trial against its row of the table: mail, wire, decision, alarm, causes."""

from __future__ import annotations

from dataclasses import replace

from gateway.errors import Reason
from tests.attackers.expectations import Mail, Row, Seen
from tests.attackers.ground import Trial
from tests.attackers.parties import Fate

ARRIVES = {
    Mail.DELIVERED: (Fate.DELIVERED, 1),
    Mail.QUEUED: (Fate.QUEUED, 0),
    Mail.REFUSED_BY_SENDER: (Fate.QUEUED, 0),
}
READABLE = {Seen.BY_ALL: (True, True), Seen.ENVELOPE: (False, True)}


def check(row: Row, trial: Trial) -> None:
    """Raises AssertionError with the whole story of the trial."""
    if row.may_wait and trial.at_s.decided == Reason.REDIAL_FAILED.value:
        row = replace(row, mail=Mail.QUEUED, decided=Reason.REDIAL_FAILED.value, alarm=True)
    own = own_mails(trial)
    arrived = trial.sent.fate, len(own)
    torn = row.torn_instead and arrived == ARRIVES[Mail.QUEUED]
    assert torn or arrived == ARRIVES[row.mail], f"{arrived[0].value}, {arrived[1]} at the receiver: {trial}"
    assert all(one == trial.mail.content for one in own), f"altered: {trial}"
    assert len(trial.mails) - len(own) == row.his_own, f"strange mails: {trial}"

    readable = trial.mail.body in trial.on_the_wire, trial.mail.envelope in trial.on_the_wire
    assert readable == READABLE.get(row.seen, (False, False)), f"readable: {readable}: {trial}"

    assert trial.at_s.decided in row.decided.split("|"), f"decided {trial.at_s.decided}: {trial}"
    assert trial.at_s.alarmed == row.alarm, f"alarm {trial.at_s.alarmed}: {trial}"
    assert trial.at_s.failures == (() if torn else row.failures), f"{trial.at_s.failures}: {trial}"
    channels = {told.torn for told in (trial.at_s, *trial.at_r)} - {""}
    wanted = set(row.channel.split("|"))
    if torn:
        assert channels, f"torn without a word: {trial}"
    else:
        assert channels <= wanted and (channels or "" in wanted), f"channel {channels}: {trial}"


def own_mails(trial: Trial) -> list[bytes]:
    """Those of the receiver's mails that have the trial's name in them."""
    return [one for one in trial.mails if trial.mail.name.encode() in one]
