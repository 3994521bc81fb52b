"""A made-up record of a soak of two hours, in which nothing grows."""

from __future__ import annotations

from typing import Any

from bench.soak.verdict import MB

__all__ = ["MB", "RUN_SECONDS", "account", "gateway", "process", "record"]

RUN_SECONDS = 7200.0


def process(role: str, pid: int, own: float, *, age: float = 0.0, draining: bool = False) -> dict[str, Any]:
    return {
        "role": role, "pid": pid, "started": 1, "age": age, "pss_own": own, "pss": own + 2 * MB,
        "descriptors": 60, "threads": 1, "draining": draining,
    }  # fmt: skip


def gateway(at: float, *, threads: int = 6, own: float = 80 * MB) -> dict[str, Any]:
    roles = enumerate(("supervisor", "signer", "worker", "worker"))
    processes = [process(role, pid, own / 4, age=at) for pid, role in roles]
    processes[0]["threads"] = threads - 3
    return {
        "processes": processes, "pss": own + 8 * MB, "pss_own": own, "descriptors": 230, "threads": threads,
        "conntrack": 300, "sets": {"taken4": 30, "taken6": 40}, "sockets": {"alloc": 70, "tw": 40},
        "sessions": 8, "state_octets": MB,
    }  # fmt: skip


def record(*, leak_per_hour: float = 0.0) -> list[dict[str, Any]]:
    begin = {"kind": "begin", "at": 0.0, "seed": 7, "minutes": 120.0, "machine": {}}
    samples = [
        {
            "kind": "sample",
            "at": at,
            "calm": True,
            "gateways": {
                "a": gateway(at),
                "b": gateway(at, own=80 * MB + leak_per_hour * at / 3600),
            },
        }
        for at in (30.0 * n for n in range(1, 241))
    ]
    fault = {"kind": "fault", "at": 50.0, "name": "upgrade", "error": "", "broken": 0}
    return [begin, *samples, fault, fault, account(), {"kind": "end", "at": 7200.0, "broken_off": False,
            "cpu_seconds": 720.0}]  # fmt: skip


def account(**raw: int) -> dict[str, Any]:
    clean = {"mails": 10, "lost": 0, "doubled": 0, "altered": 0, "in_doubt": 0}
    postfix = {**clean, "strangers": 0, "deliveries": 12, "refused": 0}
    return {
        "kind": "account",
        "at": 7200.0,
        "postfix": postfix,
        "raw": clean | raw,
        "dark": 9,
        "clear": 1,
        "queued": 0,
    }
