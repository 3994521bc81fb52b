"""A compiled library that a disk has damaged: mail is protected by the sources, and the daemon rings.

The gateways run from a tree of their own. Run on the compiled form (CONTRIBUTING.md) it has the true library,
and processes of both forms work together; where a checkout is run there is none, and what is damaged here is
all that there is of one. In namespaces nmf0-
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

import pytest

import gateway
from gateway import form
from tests.lab import two_sites
from tests.lab.harms import protected
from tests.lab.probes import Dialogue, MailServer, eventually, kill, mail
from tests.lab.two_sites import Sites

PRODUCT: Final = Path(gateway.__file__).parents[1]
SUFFIX: Final = EXTENSION_SUFFIXES[0]


class Tree:
    """The product, where a library can be damaged as a disk does it: what runs has the one before mapped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("gateway", "iptables"):
            shutil.copytree(PRODUCT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "docs").mkdir()
        shutil.copy(PRODUCT / "docs" / "messages.md", folder / "docs")
        self.library = folder / f"{form.LIBRARY}{SUFFIX}"
        self._whole: dict[Path, bytes | None] = {self.library: None, folder / form.LISTED: None}
        for path in self._whole:
            if (there := PRODUCT / path.name).exists():
                shutil.copy(there, path)
                self._whole[path] = path.read_bytes()

    @property
    def is_compiled(self) -> bool:
        return self._whole[self.library] is not None

    def damage(self) -> None:
        _put(self.library, (self._whole[self.library] or b"\x7fELF")[:100_000])

    def mend(self) -> None:
        for path, octets in self._whole.items():
            if octets is None:
                path.unlink(missing_ok=True)
            else:
                _put(path, octets)


def _put(path: Path, octets: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(octets)
    beside.replace(path)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    folder = tmp_path_factory.mktemp("product")
    for one in (folder, *list(folder.parents)[:2]):
        one.chmod(0o755)  # workers are others than root
    return Tree(folder)


@pytest.fixture(scope="module")
def built(tree: Tree) -> Iterator[Sites]:
    with two_sites.built(source=tree.folder) as made:
        made.acquaint()
        yield made


@pytest.fixture
def sites(built: Sites, tree: Tree) -> Sites:
    """Gateways that have found all of it whole, and have not rung or counted anything yet."""
    tree.mend()
    start_anew(built)
    return built


def start_anew(sites: Sites) -> None:
    for letter in "ab":
        sites.kill(letter)
    sites.start("a", "b")


def forms(sites: Sites, letter: str) -> dict[int, bool]:
    """Of the supervisor, the signer and the workers, by pid: whether it has the library mapped."""
    found = {}
    for pid in (sites.supervisor(letter), sites.status(letter)["signer"]["pid"], *sites.workers(letter)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
            found[pid] = form.LIBRARY in Path(f"/proc/{pid}/maps").read_text()
    return found


def served(sites: Sites, letter: str) -> int:
    """How many workers and signers have said so."""
    return sum(sites.log(letter).count(line) for line in ("pool worker-serves", "signer serves"))


def require_sealed(sites: Sites, server: MailServer) -> None:
    before = protected(sites, "a")
    mail(sites, "mta-a", server, sites.address("mta-b", False), b"sealed")
    eventually(lambda: protected(sites, "a") == before + 1, what="a protected session")


def require_rings_once(sites: Sites, letter: str, library: Path, processes: int) -> None:
    """To whoever hears; each of so many has told it."""

    def told() -> bool:
        alarms = sites.alarms(letter, "library-unusable")
        return bool(alarms) and alarms[0]["unheard"] == processes - 1

    eventually(told, what="the alarm")
    (alarm,) = sites.alarms(letter, "library-unusable")
    assert alarm["subject"] == "library"
    assert alarm["detail"].startswith(f"{library} cannot be loaded (")
    eventually(lambda: sites.log(letter).count("reason=library-unusable") == 1, what="its line in the log")


def test_whole_it_is_used_and_nothing_rings(sites: Sites, server: MailServer, tree: Tree) -> None:
    require_sealed(sites, server)
    for letter in "ab":
        assert set(forms(sites, letter).values()) == {tree.is_compiled}
        assert sites.alarms(letter, "library-unusable") == []


def test_a_daemon_that_starts_with_it_protects_and_rings(
    sites: Sites, server: MailServer, tree: Tree
) -> None:
    tree.damage()
    start_anew(sites)
    require_sealed(sites, server)
    for letter in "ab":
        assert set(forms(sites, letter).values()) == {False}
        require_rings_once(sites, letter, tree.library, len(forms(sites, letter)))
    status = sites.command("a", "status")
    assert f"nightmail: {tree.library} cannot be loaded (" in status, "by the command's own process"
    assert "library-unusable" in status
    assert sites.alarms("a", "worker-died") == []


@pytest.mark.parametrize("letter", ["a", "b"])
def test_processes_of_both_forms_work_together(
    sites: Sites, server: MailServer, tree: Tree, letter: str
) -> None:
    """Each of them has to start anew, one after the other, below a supervisor that found all of it whole."""
    supervisor, *children = forms(sites, letter)
    eventually(lambda: served(sites, letter) == len(children), what="all of them in the log")
    tree.damage()
    for number, pid in enumerate(children, len(children) + 1):
        kill(pid)
        eventually(lambda number=number: served(sites, letter) == number, what="its successor")
        sites.wait_ready(letter)
        require_sealed(sites, server)
        require_rings_once(sites, letter, tree.library, number - len(children))
    now = forms(sites, letter)
    assert len(now) == len(children) + 1
    assert now.pop(supervisor) == tree.is_compiled
    assert set(now.values()) == {False}


def test_a_reload_ends_no_session_there_and_back(sites: Sites, server: MailServer, tree: Tree) -> None:
    supervisor = sites.supervisor("a")
    with Dialogue(sites.connect("mta-a", sites.address("mta-b", False))) as lasting:
        lasting.begin()
        lasting.send_mail(b"before")
        eventually(
            lambda: protected(sites, "a") == 1,
            what="its session in the counts, which the next ones go up from",
        )
        for harm, is_compiled in ((tree.damage, False), (tree.mend, tree.is_compiled)):
            harm()
            before = set(sites.workers("a"))
            assert "reloaded: version" in sites.command("a", "reload")
            sites.wait_ready("a")
            new = {pid: found for pid, found in forms(sites, "a").items() if pid not in before}
            assert set(new.values()) == {is_compiled}
            assert sites.supervisor("a") == supervisor
            lasting.send_mail(b"over a reload")
            require_sealed(sites, server)
        lasting.say(b"QUIT")
    require_rings_once(sites, "a", tree.library, 4)
    assert sites.alarms("a", "worker-died") == []
