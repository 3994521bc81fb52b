"""Where an operator sits: a gateway of the lab whose files are at their usual places.

Commands of the documents name no file of the lab. So they are run where the places of configuration, state
and control socket are the gateway's own: in a mount namespace whose `/etc`, `/var/lib`, `/root` and `/run`
take what is written and forget it at the end. Counterpart: `tests.lab.two_sites`, which it stands at.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from gateway.lab import processes

SECONDS: Final = 60.0
"""For a busy machine; every wait ends with its event."""
PROMPTS: Final = (b"Passphrase: ", b"Repeat for confirmation: ")
PASSPHRASE: Final = b"correct horse battery staple\n"
PATH: Final = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SEAT: Final = """\
set -eu
mount -t tmpfs tmpfs "$1"
for place in etc var/lib root; do
    mkdir -p "$1/$place" "$1/work/$place"
    mount -t overlay overlay -o "lowerdir=/$place,upperdir=$1/$place,workdir=$1/work/$place" "/$place"
done
mkdir "$1/netns"
mount --rbind /run/netns "$1/netns"
mount -t tmpfs tmpfs /run
mkdir /run/netns
mount --rbind "$1/netns" /run/netns
rm -rf /etc/nightmail /var/lib/nightmail
mkdir -p /etc/nightmail
echo ready
exec cat >/dev/null
"""


class Seat:
    """A gateway machine, with nothing of Nightmail yet, as far as commands can tell. Ends with `leave`."""

    def __init__(self, namespace: str, folder: Path) -> None:
        self._namespace = namespace
        self._notify = folder / "notify"
        self.log = folder / "daemon.log"
        self._daemon: subprocess.Popen[bytes] | None = None
        scratch = folder / "seat"
        scratch.mkdir()
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SEAT, "sh", str(scratch)]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        with self._holder.stdout as told:
            assert told.readline() == b"ready\n"

    def leave(self) -> None:
        """Everything that runs here ends, and what was written is gone."""
        self.stop()
        processes.kill_all_in([self._namespace])
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(SECONDS)

    def _words(self, command: str) -> list[str]:
        entering = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt"]
        quiet = ["env", "-i", f"PATH={PATH}", "HOME=/root", "TERM=dumb", "LC_ALL=C.UTF-8"]
        return processes.command_in(
            self._namespace, [*entering, *quiet, "bash", "-euo", "pipefail", "-c", f"cd\n{command}"]
        )

    def run(self, command: str) -> tuple[int, str]:
        """One line as root types it, on a terminal; its exit status and what it said.

        Whoever asks for a passphrase gets one.
        """
        child, terminal = pty.fork()
        if child == 0:
            words = self._words(command)
            os.execvp(words[0], words)
        said = b""
        deadline = time.monotonic() + SECONDS
        with contextlib.suppress(OSError):  # EIO: the other side of the terminal is closed
            while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
                more = os.read(terminal, 65536)
                if not more:
                    break
                said += more
                if said.endswith(PROMPTS):
                    os.write(terminal, PASSPHRASE)
        if time.monotonic() < deadline:
            # Some (rm) close what they have of a terminal before they end, and would be hung up on.
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        os.close(terminal)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), said.decode(errors="replace").replace("\r\n", "\n")

    def write(self, path: str, text: str) -> None:
        status, said = self.run(f"printf %s {shlex.quote(text)} >{path}")
        assert status == 0, said

    # --- The service ----------------------------------------------------------------------------------

    @property
    def runs(self) -> bool:
        return self._daemon is not None and self._daemon.poll() is None

    def start(self) -> None:
        """As systemd does: `nightmail run`, until it says that it is ready (sd_notify)."""
        assert not self.runs, "a daemon runs"
        self._notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening, self.log.open("ab") as log:
            listening.bind(str(self._notify))
            listening.settimeout(SECONDS)
            words = self._words(f"NOTIFY_SOCKET={self._notify} exec nightmail run")
            self._daemon = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            while b"READY=1" not in listening.recv(4096).split(b"\n"):
                pass

    def stop(self) -> None:
        if self._daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait(SECONDS)
            self._daemon = None
