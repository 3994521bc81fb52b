"""What is wanted of what Nightmail costs, and whether it was reached. Pure.

The only place that says how much: whoever measures one of these, or tells of it, asks here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]
PARALLEL: Final = ("20", "200")
"""CPU per session is taken from these loads: with one session at a time the machine mostly waits."""

IN_CLEAR_CPU_MS: Final = 0.5
IN_CHANNEL_CPU_MS: Final = 0.8
"""Each gateway of the two."""
DEAD_END_CPU_MS: Final = 0.03
BULK_OF_DIRECT: Final = 0.65
DELIVERY_OF_DIRECT: Final = 1.02
"""Over 80 ms."""
IDLE_OCTETS: Final = 20_000
"""Of memory, in either gateway, for one more session in the channel."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What was to be reached, and what was. `at_most`: less is better."""

    words: str
    at_most: bool
    wanted: float
    reached: float | None
    unit: str = ""

    @property
    def holds(self) -> bool:
        if self.reached is None:
            return False
        return self.reached <= self.wanted if self.at_most else self.reached >= self.wanted

    def as_json(self) -> Json:
        reached = None if self.reached is None else round(self.reached, 4)
        return {
            "what": self.words,
            "wanted": f"{'<=' if self.at_most else '>='} {self.wanted:,g}{self.unit}",
            "reached": reached,
            "holds": self.holds,
        }


def of_our_own(results: Json) -> list[Bar]:
    """Of a whole run of our own measurements."""
    in_clear, in_channel = (
        max(results["sessions"][parallel]["cpu_ms_added"][name]["median"] for parallel in PARALLEL)
        for name in ("clear", "channel_per_gateway")
    )
    idle = max(results["idle_bytes"][name] for name in ("channel_sending", "channel_receiving"))
    return [
        Bar("CPU added by a gateway in clear", True, IN_CLEAR_CPU_MS, in_clear, " ms"),
        Bar("CPU added by each gateway in the channel", True, IN_CHANNEL_CPU_MS, in_channel, " ms"),
        _bulk(results["bulk"]["ratios"]["channel_vs_direct"]["median"]),
        _idle(idle),
        *(
            Bar(
                f"delivery of {size} over 80 ms, channel to direct",
                True,
                DELIVERY_OF_DIRECT,
                one["ratios"]["channel_vs_direct"]["median"],
            )
            for size, one in results["delivery"]["80"]["by_size"].items()
        ),
    ]


def beside_rivals(results: Json) -> list[Bar]:
    """Those of what was measured in a run beside the rivals, but for how cost grows."""
    quotients = results["ratios"]
    found = _of_load(quotients, results["cpu_ms_added"]) if "sessions" in results else []
    if "bulk" in results:
        found += [
            Bar("bulk, channel to stunnel pair", False, 1.0, quotients["bulk_channel_vs_stunnel"]),
            _bulk(quotients["bulk_channel_vs_direct"]),
        ]
    if "latency" in results:
        found.append(
            Bar("p99 of session time, channel to direct", True, 2.0, quotients["p99_channel_vs_direct"])
        )
    if "idle_bytes" in results:
        found.append(_idle(max(results["idle_bytes"]["channel"].values())))
    if "time_80ms_channel_vs_direct" in quotients:
        times = [one for one in quotients["time_80ms_channel_vs_direct"].values() if one is not None]
        worst = max(times, default=None)
        found.append(Bar("delivery over 80 ms, channel to direct", True, DELIVERY_OF_DIRECT, worst))
    return found


def of_growth(growth: Json) -> list[Bar]:
    """Those of the curves that were measured."""
    found = []
    if "sessions" in growth:
        found += [
            Bar("exponent of all CPU over sessions open", True, 1.0, growth["sessions"]["cpu_exponent"]),
            Bar("exponent of memory over sessions open", True, 1.05, growth["sessions"]["memory_exponent"]),
        ]
    if "workers" in growth:
        found.append(Bar("CPU per session, 2 workers to 1", True, 1.1, growth["workers"]["cpu_2_vs_1"]))
    if "peers" in growth:
        found.append(
            Bar("peers' look-up, most to fewest", True, 1.5, growth["peers"]["look_up_most_vs_fewest"])
        )
    return found


def _of_load(quotients: Json, added: Json) -> list[Bar]:
    by_load, channel = quotients["sessions_channel_vs_stunnel"], added.get("channel_per_gateway")
    found = [
        Bar("CPU per session, channel to stunnel pair", True, 0.7, quotients["cpu_channel_vs_stunnel"]),
        Bar("sessions/s at 200 parallel, channel to stunnel pair", False, 1.5, by_load.get("200")),
        Bar("sessions/s at 20 parallel, channel to stunnel pair", False, 4.0, by_load.get("20")),
        Bar("CPU added by a gateway in clear", True, IN_CLEAR_CPU_MS, added.get("clear"), " ms"),
        Bar("CPU added by each gateway in the channel", True, IN_CHANNEL_CPU_MS, channel, " ms"),
    ]
    if "dead_end" in added:
        words = "CPU added by a remembered dead end"
        found.append(Bar(words, True, DEAD_END_CPU_MS, added["dead_end"], " ms"))
    return found


def _bulk(ratio: float | None) -> Bar:
    return Bar("bulk, channel to direct", False, BULK_OF_DIRECT, ratio)


def _idle(octets: float) -> Bar:
    return Bar("idle session in the channel", True, IDLE_OCTETS, octets, " octets")
