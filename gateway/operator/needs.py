"""What the daemon needs of a machine beside its kernel: programs, and ports that nobody listens on."""

from __future__ import annotations

import shutil
import socket
from typing import Final

_TOOLS: Final = ("iptables-restore", "iptables-save", "ip6tables-restore", "ip6tables-save", "nft")


def missing_tools() -> list[str]:
    """Programs that the daemon works by and that are not here."""
    return [tool for tool in _TOOLS if shutil.which(tool) is None]


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("", port))
        except OSError:
            return False
    return True
