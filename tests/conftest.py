"""How hypothesis searches: the same cases in every run by default, other ones with NIGHTMAIL_TESTS=deep.

A run that judges a change must not depend on luck or on how busy the machine is; a run that looks for new
faults must.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "deep", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("deep" if os.environ.get("NIGHTMAIL_TESTS") == "deep" else "steady")
