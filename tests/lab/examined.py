"""A router with a daemon that a doctor examines, in namespaces of its own (nmdr-<pid>-...)

A (10.1.0.2, inside) --lan-- G (the router, with a daemon) --wan-- B (10.2.0.2, outside)
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.lab.own_namespaces import build_router_between, ip, remove_ours
from tests.lab.probes import eventually

SOURCE = Path(__file__).parents[2]
A, G, B = (f"nmdr-{os.getpid()}-{name}" for name in "agb")
PATIENCE = 30.0
CONFIGURATION = """\
version = 1

[interfaces]
inside = ["lan"]
outside = ["wan"]

[daemon]
state_dir = "{folder}/state"
run_dir = "{folder}/run"

[log]
file = "{folder}/log/gateway.log"
"""


@dataclass
class Site:
    """The gateway under examination, and a shell on it."""

    folder: Path
    mounts: str = ""
    """The file of a mount namespace that is its own, if it has one."""

    @property
    def configuration(self) -> Path:
        return self.folder / "nightmail.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def shell(self, line: str, *, must: bool = True) -> subprocess.CompletedProcess[str]:
        """As an operator's: `nightmail` is found by PATH."""
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        done = subprocess.run(
            [
                "nsenter",
                f"--net=/run/netns/{G}",
                *([f"--mount={self.mounts}"] if self.mounts else []),
                "sh",
                "-c",
                line,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",  # Python looks for modules where it is started
            env={**os.environ, "PATH": path},
            check=False,
        )
        assert done.returncode == 0 or not must, f"{line}\n{done.stdout}{done.stderr}"
        return done

    def doctor(self) -> dict[str, Any]:
        done = self.shell(f"nightmail --config {self.configuration} doctor --json", must=False)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if found["all_green"] else 1)
        return found

    def troubles(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.doctor()["troubles"]
        return found

    def until(self, what: str, fits: Any, seconds: float = PATIENCE) -> list[dict[str, str]]:
        """Examine until the troubles fit. The machine has no event for "the doctor would be content"."""
        deadline = time.monotonic() + seconds
        while True:
            troubles = self.troubles()
            if fits(troubles):
                return troubles
            assert time.monotonic() < deadline, f"{what}: {json.dumps(troubles, indent=2)}"

    def pids(self) -> dict[str, int]:
        """Of processes that live; a worker that the case before has harmed may end just now."""
        deadline = time.monotonic() + PATIENCE
        while True:
            daemon = self.shell(f"nightmail --config {self.configuration} status --json")
            status = json.loads(daemon.stdout)
            worker, signer = status["workers"][0]["pid"], status["signer"]["pid"]
            try:
                words = Path(f"/proc/{worker}/status").read_text()
            except FileNotFoundError:
                assert time.monotonic() < deadline, f"worker {worker} is named, and gone"
                continue
            parent = re.search(r"^PPid:\s*(\d+)", words, re.MULTILINE)
            assert parent is not None
            return {"worker": worker, "signer": signer, "daemon": int(parent[1])}

    def beside(self, name: str, **changes: str) -> Site:
        """Another one on the same machine, with a folder and a configuration of its own, and no daemon."""
        second = Site(self.folder / name)
        second.folder.mkdir()
        (second.folder / "bin").symlink_to(self.folder / "bin")
        text = CONFIGURATION.format(folder=second.folder)
        for old, new in changes.items():
            text = text.replace(old, new)
        second.configuration.write_text(text)
        return second

    @contextmanager
    def own_mounts(self) -> Iterator[Site]:
        """Whatever is mounted there is seen by nobody else, and goes with it."""
        words = ["unshare", "--mount", "sh", "-c", "echo made; exec cat"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "made\n"
            yield replace(self, mounts=f"/proc/{holder.pid}/ns/mnt")

    def start(self) -> None:
        self.shell(f"setsid -f nightmail --config {self.configuration} run </dev/null >/dev/null 2>&1")
        self.until("the daemon does not serve", lambda troubles: not troubles)


@contextmanager
def standing(folder: Path) -> Iterator[Site]:
    """All green: a router with a daemon, and the rest of the Internet behind B."""
    remove_ours("nmdr")
    try:
        build_router_between(A, G, B)
        ip(f"-n {B} route add 10.1.0.0/24 via 10.2.0.1", f"-n {B} -6 route add fd00:1::/64 via fd00:2::1")
        here = Site(folder)
        for name in ("bin", "log"):
            (folder / name).mkdir()
        for name in ("state", "run"):
            (folder / name).mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "site", here.state], check=True)
        command = folder / "bin" / "nightmail"
        (folder / "program").symlink_to(SOURCE)
        command.write_text(f'#!/bin/sh\nPYTHONPATH={folder}/program exec {sys.executable} -m gateway "$@"\n')
        command.chmod(0o755)
        here.configuration.write_text(CONFIGURATION.format(folder=folder))
        here.shell("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        # Strict, as many distributions have it: where all is symmetric the gateway must live with it.
        here.shell("sysctl -qw net.ipv4.conf.all.rp_filter=1")
        here.shell("ip route add default via 10.2.0.2; ip -6 route add default via fd00:2::2")
        here.start()
        yield here
    finally:
        remove_ours("nmdr")
        if (folder / "state").is_mount():
            # The kernel may still be letting go of what its last process had open.
            eventually(lambda: subprocess.run(["umount", folder / "state"]).returncode == 0, what="no state")
