"""What is printed for people, and the description of the machine that belongs to every figure."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from bench import form

Json = dict[str, Any]
BUSY_CPUS: Final = 0.3


def machine() -> Json:
    """What a reader must know before comparing these figures with others."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "cpus": os.cpu_count(),
        "cpu": cpu[1] if cpu else "unknown",
        "memory_mb": int(memory[1]) // 1024 if memory else None,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "form": form.asked().value,
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "libraries": {
            name: metadata.version(name) for name in ("cryptography", "pynacl", "uvloop", "netfilterqueue")
        },
    }


def joined(found: Json, beside: Json) -> Json:
    """Our own figures, and in one object with them those of the run beside the rivals.

    `ratios` holds both runs'; of what both have measured, that of the own run, which is the longer one.
    """
    return found | {
        "ratios": beside["ratios"] | found["ratios"],
        "growth": beside["growth"],
        "rivals": beside,
    }


def text(report: Json) -> str:
    """The whole report on a page."""
    described = report["machine"]
    lines = [
        f"{described['cpus']} CPUs ({described['cpu']}), Linux {described['kernel']},"
        f" Python {described['python']}, load {described['load_average_at_start']} at the start",
        "medians; in brackets the middle half of the rounds; ratios and differences are of pairs",
    ]
    for name, section in (
        ("sessions", _sessions),
        ("bulk", _bulk),
        ("delivery", _delivery),
        ("idle_bytes", _idle),
    ):
        if name in report:
            lines += ["", *section(report[name])]
    if "upgraded" in report:
        told = report["upgraded"]
        lines += ["", f"sessions of the channel's rounds that were upgraded: {told['share']:.2%}"]
        if "resumed_share" in told:
            lines[-1] += f", of these with a ticket: {told['resumed_share']:.2%}"
    return "\n".join(lines)


def _band(one: Json, digits: int) -> str:
    low, high = one["quartile_low"], one["quartile_high"]
    return f"{one['median']:.{digits}f} [{low:.{digits}f}-{high:.{digits}f}]"


def _sessions(found: Json) -> list[str]:
    lines = ["4 KB mails, one per connection"]
    for parallel, entry in found.items():
        rates, cpu, added, own = (
            entry[key]
            for key in ("sessions_per_second", "cpu_ms_per_session", "cpu_ms_added", "gateway_process_ms")
        )
        lines.append(f"  {parallel} parallel ({rates['direct']['count']} turns)")
        for variant in ("direct", "clear", "channel"):
            line = f"    {variant:8} {_band(rates[variant], 0):>20} sessions/s"
            line += f"  {_band(cpu[variant], 2):>18} ms CPU"
            if variant != "direct":
                line += f"  {_band(entry['ratios'][f'sessions_{variant}_vs_direct'], 3)} of direct"
            lines.append(line)
        for key, label in (("clear", "in clear"), ("channel_per_gateway", "in the channel")):
            lines.append(
                f"    added by one gateway {label}: {_band(added[key], 2)} ms CPU per session"
                f" (its own processes: {_band(own[key], 2)})"
            )
        busy = entry["strangers_share"]
        warning = ": the CPU added is uncertain" if busy["median"] > BUSY_CPUS else ""
        lines.append(f"    other work on this machine meanwhile: {_band(busy, 2)} CPUs{warning}")
    return lines


def _bulk(found: Json) -> list[str]:
    lines = ["10 MB mails, 4 parallel"]
    for variant, one in found["megabytes_per_second"].items():
        line = f"    {variant:8} {_band(one, 0):>20} MB/s"
        if variant != "direct":
            line += f"  {_band(found['ratios'][f'{variant}_vs_direct'], 3)} of direct"
        lines.append(line)
    for key, label in (("clear", "in clear"), ("channel_per_gateway", "in the channel")):
        added = found["cpu_ms_per_megabyte_added"][key]
        lines.append(f"    added by one gateway {label}: {_band(added, 2)} ms CPU per MB")
    return lines


def _delivery(found: Json) -> list[str]:
    lines = ["time to delivery, one mail at a time, milliseconds"]
    for rtt, entry in found.items():
        line = entry["plain_tcp"]
        lines.append(
            f"  {rtt} ms round trip (plain TCP over it: first 10 MB {line['cold_seconds'] * 1000:.0f} ms,"
            f" then {line['megabytes_per_second']:.0f} MB/s)"
        )
        for size, one in entry["by_size"].items():
            seconds = one["seconds"]
            shown = "  ".join(
                f"{variant} {_band({k: v * 1000 for k, v in seconds[variant].items()}, 1)}"
                for variant in ("direct", "clear", "channel")
            )
            lines.append(f"    {size:>6} x{seconds['direct']['count']:<3} {shown}")
            lines.append(
                f"                of direct: clear {_band(one['ratios']['clear_vs_direct'], 3)},"
                f" channel {_band(one['ratios']['channel_vs_direct'], 3)}"
            )
    return lines


def _idle(found: Json) -> list[str]:
    return [
        f"memory of an idle session (PSS of one gateway's processes, {found['sessions']} sessions)",
        f"    in clear {found['clear']} octets; in the channel {found['channel_sending']} (sending gateway),"
        f" {found['channel_receiving']} (receiving gateway)",
    ]
