"""What is printed for people: one page, the bars last."""

from __future__ import annotations

from typing import Any

from bench.report import BUSY_CPUS
from bench.rivals.variants import Rival

Json = dict[str, Any]
WIDTH = 42


def text(found: Json) -> str:
    described = found["machine"]
    lines = [
        f"{described['cpus']} CPUs ({described['cpu']}), Linux {described['kernel']},"
        f" Python {described['python']}, load {described['load_average_at_start']} at the start",
        "medians; in brackets the middle half of the rounds",
    ]
    for name, section in (
        ("idle_bytes", _idle),
        ("sessions", _sessions),
        ("bulk", _bulk),
        ("latency", _latency),
        ("delivery", _delivery),
        ("growth", _growth),
        ("bars", _bars),
    ):
        if found.get(name):
            lines += ["", *section(found[name])]
    if "sealed" in found:
        lines += ["", "sessions encrypted: " + ", ".join(f"{k} {v}" for k, v in found["sealed"].items())]
    return "\n".join(lines)


def label(variant: str) -> str:
    return Rival(variant).made.words


def _band(one: Json, digits: int) -> str:
    low, high = one["quartile_low"], one["quartile_high"]
    return f"{one['median']:.{digits}f} [{low:.{digits}f}-{high:.{digits}f}]"


def _idle(found: Json) -> list[str]:
    lines = ["memory of an idle session, octets (PSS of the node's processes; the kernel's not in it)"]
    for variant, nodes in found.items():
        shown = ", ".join(f"{node} {octets}" for node, octets in nodes.items())
        lines.append(f"    {label(variant):{WIDTH}} {shown}")
    return lines


def _sessions(found: Json) -> list[str]:
    lines = ["4 KB mails, one per connection; CPU of the whole machine per session"]
    for parallel, entry in found.items():
        rates, cpu = entry["sessions_per_second"], entry["cpu_ms_per_session"]
        lines.append(f"  {parallel} parallel ({rates['direct']['count']} turns)")
        for variant in rates:
            added = entry["cpu_ms_added"].get(variant)
            more = f"  {added['median']:+.2f}" if added else ""
            shown = f"{_band(rates[variant], 0):>20} sessions/s  {_band(cpu[variant], 2):>18} ms CPU{more}"
            lines.append(f"    {label(variant):{WIDTH}} {shown}")
        for name, one in entry["ratios"].items():
            lines.append(f"      {name:{WIDTH - 2}} {_band(one, 2)}")
        if entry["strangers_share"]["median"] > BUSY_CPUS:
            lines.append(
                f"      other work meanwhile: {_band(entry['strangers_share'], 2)} CPUs: CPU is uncertain"
            )
    return lines


def _bulk(found: Json) -> list[str]:
    lines = ["10 MB mails, 4 parallel"]
    for variant, one in found["megabytes_per_second"].items():
        lines.append(f"    {label(variant):{WIDTH}} {_band(one, 0):>20} MB/s")
    lines += [f"      {name:{WIDTH - 2}} {_band(one, 2)}" for name, one in found["ratios"].items()]
    return lines


def _latency(found: Json) -> list[str]:
    lines = [
        f"time of a session, {found['sessions_per_second']:.0f} a second (half of the channel's most),"
        f" {found['rtt_ms']} ms round trip, milliseconds"
    ]
    for variant, one in found["by_variant"].items():
        failed = f", {one['failed']} failed" if one["failed"] else ""
        shown = f"p50 {_or_never(one['p50_ms'])}  p99 {_or_never(one['p99_ms'])}  ({one['sessions']}{failed})"
        lines.append(f"    {label(variant):{WIDTH}} {shown}")
    return lines


def _or_never(milliseconds: float | None) -> str:
    return "never" if milliseconds is None else f"{milliseconds:.0f}"


def _delivery(found: Json) -> list[str]:
    lines = ["time to delivery, one mail at a time, milliseconds"]
    for rtt, sizes in found.items():
        for size, one in sizes.items():
            lines.append(f"  {rtt} ms round trip, {size} (x{one['seconds']['direct']['count']})")
            for variant, seconds in one["seconds"].items():
                ratio = one["ratios"].get(f"{variant}_vs_direct")
                more = f"  {ratio['median']:.3f} of direct" if ratio else ""
                shown = _band({key: value * 1000 for key, value in seconds.items()}, 0)
                lines.append(f"    {label(variant):{WIDTH}} {shown:>20}{more}")
    return lines


def _growth(found: Json) -> list[str]:
    lines = ["growth"]
    for one in found["peers"]["curve"]:
        lines.append(
            f"    {one['peers']:>9} peers    look-up {one['look_up_us']:.1f} us, of a stranger"
            f" {one['unknown_us']:.1f} us, opening {one['opening_ms']:.1f} ms,"
            f" file {one['file_octets'] / 1e6:.1f} MB"
        )
    for one in found["workers"]["curve"]:
        lines.append(
            f"    {one['workers']:>9} workers  {one['sessions_per_second']:.0f} sessions/s,"
            f" {one['cpu_ms_per_session']:.2f} ms CPU"
        )
    without = found["sessions"]["octets_without"]
    for one in found["sessions"]["curve"]:
        lines.append(
            f"    {one['sessions']:>9} open     {one['cpu_ms_per_session']:.2f} ms CPU"
            f" (direct {one['direct_cpu_ms_per_session']:.2f}), at rest"
            f" {one['idle_cpu_per_second']:.3f} CPUs,"
            f" gateway {(one['octets'] - without) / 1e6:.1f} MB more than without"
        )
    return lines


def _bars(found: list[Json]) -> list[str]:
    lines = ["bars"]
    for one in found:
        reached = "not measured" if one["reached"] is None else f"{one['reached']:g}"
        verdict = "holds" if one["holds"] else "MISSED"
        lines.append(f"    {one['what']:52} {one['wanted']:>16} {reached:>12}  {verdict}")
    return lines
