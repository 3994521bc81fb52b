"""One daemon to a network namespace: a second one does not start, and says who is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.examined import PATIENCE, G, Site, standing


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with standing(tmp_path_factory.mktemp("site")) as here:
        yield here


@pytest.fixture(scope="module")
def second(site: Site) -> Site:
    """With folders, ports and queues of its own, and on standard error what it says."""
    other = "version = 1\n\n[kernel]\nfirst_listen_port = 3525\nfirst_queue = 3525"
    one = site.beside("second", **{"version = 1": other})
    one.configuration.write_text(one.configuration.read_text().partition("[log]")[0])
    return one


def refused(second: Site) -> str:
    """What a daemon says that does not start."""
    done = second.shell(f"nightmail --config {second.configuration} run", must=False)
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "another daemon" in line]
    return line


def test_a_second_one_names_the_first_and_changes_nothing(site: Site, second: Site) -> None:
    before = rules(site)
    assert f"(process {site.pids()['daemon']}, {site.folder}/run/" in refused(second)
    assert rules(site) == before
    site.until("a trouble is left", lambda troubles: not troubles)


def test_up_and_down_by_another_configuration_say_whose_rules_these_are(site: Site, second: Site) -> None:
    """Neither claims what it has not done: the daemon keeps its own rules, and does not know that word."""
    holder = f"another daemon keeps the rules of this network namespace (process {site.pids()['daemon']}, "
    before = rules(site)
    done = second.shell(f"nightmail --config {second.configuration} up", must=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert holder in done.stderr
    assert rules(site) == before
    done = second.shell(f"nightmail --config {second.configuration} down", must=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert holder in done.stderr
    assert "has put them back" in done.stderr
    site.until("a trouble is left", lambda troubles: not troubles)
    assert rules(site) == before


def test_the_first_stays_the_only_one_over_reloads(site: Site, second: Site) -> None:
    for _ in range(2):
        site.shell(f"nightmail --config {site.configuration} reload")
        assert f"(process {site.pids()['daemon']}, " in refused(second)
    site.until("a trouble is left", lambda troubles: not troubles)


def test_its_workers_alone_keep_nobody_from_starting(site: Site, second: Site) -> None:
    """They end by themselves once their daemon is killed, and the next one does not wait for that."""
    site.shell("kill -KILL {daemon}; while kill -0 {daemon}; do :; done".format(**site.pids()))
    site.start()
    assert "another daemon" in refused(second)


def test_a_stranger_who_takes_the_name_keeps_nobody_from_starting(site: Site) -> None:
    """Anybody on the machine may take it while no daemon runs; it is told, and mail is protected."""
    stop = "kill {daemon}; while kill -0 {daemon}; do :; done"
    site.shell(stop.format(**site.pids()))
    with stranger() as pid:
        site.start()
        status = json.loads(site.shell(f"nightmail --config {site.configuration} status --json").stdout)
        assert status["rules"]["missing"] == []
        log = (site.folder / "log" / "gateway.log").read_text()
        assert re.search(f"daemon perhaps-not-alone .*process {pid} of user 65534", log)
        site.shell(stop.format(**site.pids()))
    site.start()


@contextmanager
def stranger() -> Iterator[int]:
    words = ["nsenter", f"--net=/run/netns/{G}", "setpriv", "--reuid=65534", "--clear-groups"]
    program = [sys.executable, "-c", TAKES]
    with subprocess.Popen(
        [*words, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "taken\n"
        yield one.pid
        one.communicate(timeout=PATIENCE)


TAKES = """
import socket, sys
taken = socket.socket(socket.AF_UNIX)
taken.bind("\\0nightmail")
taken.listen(1)
print("taken", flush=True)
sys.stdin.read()
"""


def rules(site: Site) -> str:
    told = site.shell("iptables-save; ip6tables-save; ip rule; ip -6 rule").stdout
    return re.sub(r"\[\d+:\d+\]|# .*", "", told)
