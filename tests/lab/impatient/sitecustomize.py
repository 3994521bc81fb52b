"""A worker with other limits than the product's, where the real ones would keep a test waiting for minutes.

Python reads this at its start where this folder is on its path: the product knows nothing of it. LIMITS is
`NAME=NUMBER`, several with spaces between them.
"""

from __future__ import annotations

import os
import sys


def install(words: str) -> None:
    from gateway.policy import limits

    for word in words.split():
        name, _, number = word.partition("=")
        assert hasattr(limits, name), f"no such limit: {name}"
        setattr(limits, name, float(number))


if "gateway.runtime.worker" in sys.orig_argv:
    install(os.environ["LIMITS"])
