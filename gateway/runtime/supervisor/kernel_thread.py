"""A thread for what is asked of the kernel, so that the loop with the watchdog never waits for it.

Counterparts: `rulekeeper` and `inside`, which have one each; `intercept.kernel`, which is asked there.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from gateway.intercept import kernel
from gateway.runtime.supervisor import handover


def kernel_thread(name: str) -> ThreadPoolExecutor:
    """One after the other, in the network namespace of now. Its last work is to be `kernel.let_go`."""
    return ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_begin)


def _begin() -> None:
    # One that is told here, shortly before an exec, would be told to nobody.
    handover.hear_no_signals()
    kernel.keep_open()
