"""Is mail protected now? One answer for everybody who asks: `status`, the metrics, `explain`. Pure.

Reads the daemon's own answer on the control socket (docs/json.md); a key that is missing, from an older
daemon, is no trouble.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_protecting(status: Mapping[str, Any]) -> bool:
    """Whether new connections go through the gateway now: rules wanted and in place, a worker serves, and one
    from outside can be offered encryption."""
    return not troubles(status)


def troubles(status: Mapping[str, Any]) -> list[str]:
    """Why mail passes in clear, in words for a person; empty if it is protected."""
    found: list[str] = []
    rules = status.get("rules")
    rules = rules if isinstance(rules, dict) else {}
    if status.get("wanted") == "down":
        for_now = " --until-reboot`, until the next boot" if status.get("wanted_until_reboot") else "`"
        found.append(f"rules were taken down by `nightmail down{for_now}")
    elif missing := rules.get("missing"):
        found.append(f"{len(missing)} of our rules are missing")
    workers = status.get("workers")
    if not isinstance(workers, list) or not any(serves(worker) for worker in workers):
        found.append("no worker serves")
    elif not found and status.get("inside_networks") == [] and status.get("placement") != "bridge":
        # On a bridge the port tells the sides.
        found.append(
            "this machine has no address yet, so no mail is known to be its own"
            if status.get("placement") == "host"
            else "the inside interfaces have no network yet, so no mail server is known"
        )
    elif not found and rules.get("queues") == []:
        found.append("the rules send no connection to a worker")
    if found or _older_ones_lead(status):
        return found
    return _of_signer(status.get("signer"))


def _older_ones_lead(status: Mapping[str, Any]) -> bool:
    """At a reload, until the new workers have taken over: they have a signer of their own."""
    workers = [worker for worker in status["workers"] if isinstance(worker, dict)]
    queues = (status.get("rules") or {}).get("queues") or ()
    leading = [worker.get("generation", 0) for worker in workers if worker.get("queue") in queues]
    return bool(leading) and max(leading) < max(worker.get("generation", 0) for worker in workers)


def _of_signer(signer: object) -> list[str]:
    """What this site sends is protected all the same, and what comes by a ticket."""
    if not isinstance(signer, dict) or signer.get("serves") is not False:
        return []
    state = "hangs" if signer.get("hangs") else "starts" if signer.get("pid") else "does not run"
    return [f"what comes in, for the process that holds the identity {state} (what is sent is protected)"]


def serves(worker: object) -> bool:
    """Whether this entry of `workers` takes connections now."""
    return isinstance(worker, dict) and worker.get("state") == "serving"
