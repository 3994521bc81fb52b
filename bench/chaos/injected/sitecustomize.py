"""What a gateway's Python is made to do by `scripts/chaos`: found by PYTHONPATH before its own modules.

The clock (`time.time`) is as many seconds ahead as the file NIGHTMAIL_CHAOS_CLOCK says, at every moment.
SIGUSR2 blocks the main thread, and with it the event loop, for five seconds.
"""

import mmap
import os
import signal
import struct
import time

BLOCKED_SECONDS = 5.0


def _skew(path: str) -> None:
    with open(path, "rb") as file:
        ahead = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    true = time.time
    time.time = lambda: true() + struct.unpack("d", ahead[:8])[0]


if os.environ.get("NIGHTMAIL_CHAOS_CLOCK"):
    _skew(os.environ["NIGHTMAIL_CHAOS_CLOCK"])
    signal.signal(signal.SIGUSR2, lambda number, frame: time.sleep(BLOCKED_SECONDS))
