"""Locks, states and refusals; what needs a kernel is in tests/lab/test_lab.py."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from gateway.config import Placement
from gateway.errors import EnvironmentFailureError
from gateway.lab import network, processes
from gateway.lab.lab import Lab, _at_once
from gateway.lab.place import Place, boot_id


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab of a place of its own, as root would have it, whose building is written down only."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("gateway.lab.lab._require_programs", lambda: None)
    monkeypatch.setattr(network, "existing", lambda names: [])
    monkeypatch.setattr(processes, "kill_all_in", lambda names: 0)
    monkeypatch.setattr(network, "remove", lambda names: None)
    return Lab(Place("nmu-", tmp_path / "lab", tmp_path / "lock"))


def test_without_root_everything_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    lab = Lab(Place("nmu-", tmp_path / "lab", tmp_path / "lock"))
    for action in (lab.up, lab.down, lab.require_up):
        with pytest.raises(EnvironmentFailureError, match="needs root"):
            action()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_for_one_and_leaves_no_file(lab: Lab) -> None:
    other = Lab(lab.place)
    with lab.locked():
        with lab.locked():
            pass
        assert lab.place.lock.exists()
        with pytest.raises(EnvironmentFailureError, match=rf"process {os.getpid()}"), other.locked():
            pass
    assert not lab.place.lock.exists()
    with other.locked():
        pass
    assert not lab.place.lock.exists()


def test_a_lock_file_that_nobody_holds_is_no_lock(lab: Lab) -> None:
    lab.place.lock.write_text("12345\n")
    with lab.locked():
        assert lab.place.lock.read_text() == f"{os.getpid()}\n"


def test_a_failure_while_building_takes_everything_away(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(names: object) -> None:
        assert lab.place.state_file.exists(), "the state must be there before anything is made"
        raise EnvironmentFailureError("no")

    monkeypatch.setattr(network, "create", fail)
    with pytest.raises(EnvironmentFailureError, match="no"):
        lab.up()
    assert not lab.place.folder.exists()
    assert not lab.place.lock.exists()


def write_state(lab: Lab, **fields: object) -> None:
    lab.place.folder.mkdir()
    lab.place.state_file.write_text(json.dumps({"boot": boot_id(), "netns_mount": True, **fields}))


def test_a_lab_that_is_up_is_not_built_over(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "existing", lambda names: list(names))
    write_state(lab)
    with pytest.raises(EnvironmentFailureError, match="up already"):
        lab.up()
    assert lab.place.state_file.exists()


def test_what_a_killed_demonstration_left_is_built_over(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "existing", lambda names: list(names))
    built = []
    monkeypatch.setattr(Lab, "_build", lambda *args: built.append(1))
    write_state(lab, temporary=True)
    (lab.place.folder / "old").touch()
    lab.up()
    assert built == [1]
    assert not (lab.place.folder / "old").exists()
    lab.keep()
    with pytest.raises(EnvironmentFailureError, match="up already"):
        lab.up()


def test_namespaces_of_somebody_else_are_left_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(names: object) -> None:
        raise AssertionError("touched")

    monkeypatch.setattr(network, "existing", lambda names: ["nmu-gw-a"])
    monkeypatch.setattr(network, "remove", never)
    monkeypatch.setattr(processes, "kill_all_in", never)
    for action in (lab.up, lab.down):
        with pytest.raises(EnvironmentFailureError, match="no lab of ours made it"):
            action()


def test_a_state_of_before_the_last_boot_means_only_files(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(names: object) -> None:
        raise AssertionError("touched")

    monkeypatch.setattr(network, "remove", never)
    monkeypatch.setattr(processes, "kill_all_in", never)
    write_state(lab, boot="another")
    assert not lab.is_up
    assert lab.down()
    assert not lab.place.folder.exists()
    assert not lab.down()


def test_names(lab: Lab) -> None:
    assert lab.namespace("gw-a") == lab.namespace("nmu-gw-a") == "nmu-gw-a"
    assert Lab().namespace("gw-a") == "nm-gw-a"
    with pytest.raises(EnvironmentFailureError, match="no node gw-c; there are: mta-a,"):
        lab.namespace("gw-c")
    with pytest.raises(EnvironmentFailureError, match="no gateway c"):
        lab.gateway("c")
    with pytest.raises(EnvironmentFailureError, match="no site x"):
        lab.mail_server("x")


def test_mails_have_names_of_their_own_and_the_right_addresses(lab: Lab) -> None:
    mails = lab.compose("a", "b", count=3) + lab.compose("a", "b", six=True)
    assert len({mail.name for mail in mails}) == 4
    assert mails[0].sender == "alice@a.test"
    assert mails[0].recipient == "bob@b.test"
    assert mails[3].recipient == "bob@six.b.test"


def test_at_once_is_really_at_once_and_tells_a_failure() -> None:
    barrier = threading.Barrier(3, timeout=10)
    _at_once(lambda _: barrier.wait(), [1, 2, 3])
    with pytest.raises(ZeroDivisionError):
        _at_once(lambda n: 1 // n, [1, 0])


def test_where_the_gateways_stand_is_remembered(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lab, "_build", lambda *args: None)
    assert lab.gateway("a").namespace == "nmu-gw-a"
    lab.placement = Placement.HOST
    lab.up()
    another = Lab(lab.place)
    for one in another.gateways:
        assert one.placement is Placement.HOST
        assert one.namespace == f"nmu-mta-{one.node.letter}"
        assert one.folder == lab.place.folder / one.node.name, "apart from the mail server's own"
