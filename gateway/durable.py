"""What a power cut may not take back: a name in a folder is on the disk when the folder is.

Counterparts: `intercept.wanted` and `runtime.identity_file`, which put a whole file in another one's place.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(path: Path) -> None:
    """Until then a power cut brings back what stood there before. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
