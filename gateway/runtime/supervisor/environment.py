"""What the libraries of a worker are told by its environment. Counterparts: `child`, `pool`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

WORKER: Final = {"OPENSSL_CONF": str(Path(__file__).with_name("openssl.cnf"))}
"""An operator's own OPENSSL_CONF goes first."""
