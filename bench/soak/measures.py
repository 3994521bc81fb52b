"""What is looked at every half minute, at each gateway."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.chaos.service import Service
from bench.soak import ending
from gateway.errors import EnvironmentFailureError
from gateway.intercept.objects import NFT_TABLE
from gateway.lab import gateways, processes

ROLES: Final = {"gateway.runtime.signer": "signer", "gateway.runtime.worker": "worker"}
"""By the module that a process of the daemon runs; the supervisor is known by its number."""
TICKS: Final = os.sysconf("SC_CLK_TCK")


def look(service: Service) -> dict[str, Any]:
    """One gateway now; octets, counts, and the daemon's processes one by one."""
    status = gateways.ask(service.gateway) or {}
    states = {each["pid"]: each["state"] for each in status.get("workers", [])}
    supervisor = service.gateway.process
    found = []
    for process in service.everything():
        is_first = supervisor is not None and process.pid == supervisor.pid
        with contextlib.suppress(OSError):
            found.append(_process(process, "supervisor" if is_first else ""))
    found = ending.told(found, states)
    one = service.gateway
    aside = set(service.state.glob("*.corrupt-*"))
    return {
        "processes": found,
        "pss": sum(each["pss"] for each in found),
        "pss_own": sum(each["pss_own"] for each in found),
        "descriptors": sum(each["descriptors"] for each in found),
        "threads": sum(each["threads"] for each in found),
        "conntrack": int(processes.run_in(one.namespace, ["conntrack", "-C"]).stdout),
        "tracked": _tracked(one.namespace),
        "sets": _sets(one.namespace),
        "sockets": _sockets(supervisor.pid) if supervisor else {},
        "sessions": (status.get("counters") or {}).get("tallies", {}).get("sessions-open"),
        "alarms": sorted(alarm["reason"] for alarm in status.get("alarms", [])),
        "state_octets": _octets(set(service.state.iterdir()) - aside),
        "state_files": {path.name: _octets({path}) for path in service.state.iterdir()},
        "aside_octets": _octets(aside),
        "log_octets": one.log.stat().st_size,
    }


def _process(process: processes.Process, role: str) -> dict[str, Any]:
    folder = Path(f"/proc/{process.pid}")
    memory = (folder / "smaps_rollup").read_text()
    threads = re.search(r"^Threads:\s+(\d+)$", (folder / "status").read_text(), re.MULTILINE)
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - process.started / TICKS
    return {
        "role": role or _role((folder / "cmdline").read_text().split("\0")),
        "pid": process.pid,
        "started": process.started,
        "age": round(age, 1),
        "pss": _kilobytes("Pss", memory),
        "pss_own": _kilobytes("Pss_Anon", memory),
        "descriptors": len(list((folder / "fd").iterdir())),
        "threads": int(threads[1]) if threads else 0,
    }


def _role(words: Sequence[str]) -> str:
    return next((role for module, role in ROLES.items() if module in words), "other")


def _kilobytes(name: str, text: str) -> int:
    """In octets. 0 where there is none: a process that ends has no memory any more."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _tracked(namespace: str) -> dict[str, int]:
    """Entries of the connection tracking table by protocol or, for TCP, by state."""
    found: Counter[str] = Counter()
    for family in ("ipv4", "ipv6"):
        listing = processes.run_in(namespace, ["conntrack", "-L", "-f", family]).stdout.decode()
        for line in listing.splitlines():
            words = line.split()
            found[words[3] if words[0] == "tcp" else words[0]] += 1
    return dict(sorted(found.items()))


def _sets(namespace: str) -> dict[str, int]:
    """Elements of each set of our table; nothing while the table is not there."""
    command = ["nft", "-j", "list", "table", "inet", NFT_TABLE]
    try:
        listing = json.loads(processes.run_in(namespace, command).stdout)
    except EnvironmentFailureError:
        return {}
    every = (one["set"] for one in listing["nftables"] if "set" in one)
    return {one["name"]: len(one.get("elem", [])) for one in every}


def _sockets(pid: int) -> dict[str, int]:
    """The kernel's own count of TCP sockets where this process is: in use, orphaned, in TIME_WAIT, in all."""
    try:
        text = Path(f"/proc/{pid}/net/sockstat").read_text()
    except OSError:
        return {}
    found = re.search(r"^TCP: (.+)$", text, re.MULTILINE)
    words = found[1].split() if found else []
    return {name: int(count) for name, count in zip(words[::2], words[1::2], strict=True)}


def _octets(paths: set[Path]) -> int:
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total
