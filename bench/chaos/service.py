"""What systemd does for the daemon: starts it, and again a second after its end
(packaging/debian/nightmail.service).

`KillMode=process`: workers whose supervisor was killed finish their sessions. The state directory is a small
file system of its own, in a mount namespace that lives as long as the lab, so that it can be filled or made
read-only.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gateway.errors import EnvironmentFailureError
from gateway.lab import gateways, processes
from gateway.lab.gateways import Gateway

INJECTED: Final = Path(__file__).parent / "injected"
STATE_OCTETS: Final = "8m"
RESTART_SECONDS: Final = 1.0
READY_SECONDS: Final = 30.0


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Those that are gone already are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Service:
    """One gateway's daemon, kept running until `close`."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        gateways.prepare(gateway)
        self._clock_file = gateway.folder / "clock"
        self._clock_file.write_bytes(struct.pack("d", 0.0))
        self._holder = self._mount()
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._session = 0
        self._thread = threading.Thread(target=self._keep, daemon=True)

    # --- Life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._wanted.set()
        self._start()
        gateways.wait_ready(self.gateway)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._wanted.set()
        processes.kill_all_in([self.gateway.namespace])

    def switch_off(self) -> None:
        """Stays off until `switch_on`."""
        self._wanted.clear()
        killed = self.everything()
        self.kill()
        for process in killed:
            process.wait_gone(READY_SECONDS)

    def switch_on(self) -> None:
        self._wanted.set()
        self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not ((status := gateways.ask(self.gateway)) and gateways.serves(status)):
            if time.monotonic() > deadline:
                raise EnvironmentFailureError(
                    f"{self.gateway.node.name} does not serve: {gateways.last_words(self.gateway)}"
                )
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to every process of the daemon."""
        for process in self.everything():
            with contextlib.suppress(ProcessLookupError):
                process.signal(signal.SIGKILL)

    def everything(self) -> list[processes.Process]:
        """Every process of the daemon: all of them are in the session that it was started with."""
        found = []
        for each in processes.living_in([self.gateway.namespace]):
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(each.pid) == self._session:
                    found.append(each)
        return found

    def _start(self) -> None:
        one = self.gateway
        one.control_socket.unlink(missing_ok=True)
        run = gateways.nightmail_command("--config", str(one.configuration), "run")
        path = next(word for word in run if word.startswith("PYTHONPATH="))
        run[run.index(path)] = f"{path}:{INJECTED}"
        run.insert(1, f"NIGHTMAIL_CHAOS_CLOCK={self._clock_file}")
        command = [*self._in_mounts(), *run]
        started = processes.start_in(one.namespace, command, log=one.log, pid_file=one.pid_file)
        self._session = started.pid

    def _keep(self) -> None:
        while not self._closing.is_set():
            process = self.gateway.process
            if process is not None and not process.wait_gone(0.2):
                continue
            time.sleep(RESTART_SECONDS)
            self._wanted.wait()
            if not self._closing.is_set():
                self._start()

    # --- Whom a fault strikes --------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        answer = gateways.ask(self.gateway)
        if answer is None:
            raise EnvironmentFailureError(
                f"{self.gateway.node.name} does not answer: {gateways.last_words(self.gateway)}"
            )
        return answer

    def supervisor(self) -> int:
        process = self.gateway.process
        if process is None:
            raise EnvironmentFailureError(f"{self.gateway.node.name} does not run")
        return process.pid

    def workers(self) -> list[int]:
        """Those that serve."""
        return [each["pid"] for each in self.status()["workers"] if each["state"] == "serving"]

    # --- What a fault does -----------------------------------------------------------------------------

    def set_clock_ahead(self, seconds: float) -> None:
        with self._clock_file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as ahead:
            ahead[:8] = struct.pack("d", seconds)

    @property
    def state(self) -> Path:
        """The state directory, as others than the daemon can reach it."""
        return Path(f"/proc/{self._holder.pid}/root{self.gateway.folder}/state")

    @contextlib.contextmanager
    def holding_pins(self) -> Iterator[None]:
        """Another process holds the memory of peers locked."""
        command = processes.command_in(self.gateway.namespace, self._on_pins("lock"))
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            if holder.stdout.readline() != b"held\n":
                raise EnvironmentFailureError(f"the memory of {self.gateway.node.name} cannot be locked")
            yield
            holder.communicate(timeout=READY_SECONDS)

    def tear_pins(self, folder: Path) -> None:
        """Into the folder: the files of the memory, as a power loss in mid-write leaves them."""
        processes.run_in(self.gateway.namespace, [*self._on_pins("tear"), str(folder)])

    def _on_pins(self, what: str) -> list[str]:
        root, path = Path(__file__).parents[2], self.gateway.folder / "state" / "peers.db"
        python = ["env", f"PYTHONPATH={root}", sys.executable, "-m", "bench.chaos.pins"]
        return [*self._in_mounts(), *python, what, str(path)]

    def in_mounts(self, *command: str) -> None:
        """Run a command where the daemon's state directory is mounted."""
        processes.run_in(self.gateway.namespace, [*self._in_mounts(), *command])

    def _in_mounts(self) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]

    def _mount(self) -> processes.Process:
        one = self.gateway
        state, ready = one.folder / "state", one.folder / "mounted"
        mount = f"mount -t tmpfs -o mode=0700,size={STATE_OCTETS} tmpfs {state}"
        shell = f"{mount} && touch {ready} && exec sleep infinity"
        holder = processes.start_in(
            one.namespace,
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", shell],
            log=one.log,
            pid_file=one.folder / "holder.pid",
        )
        deadline = time.monotonic() + READY_SECONDS
        while not ready.exists():
            if time.monotonic() > deadline or not holder.alive:
                raise EnvironmentFailureError(
                    f"no file system for {one.node.name}: {gateways.last_words(one)}"
                )
            time.sleep(0.01)
        return holder
