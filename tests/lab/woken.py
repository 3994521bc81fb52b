"""What a client's `connect` has to ask beside the error of its socket.

Python takes a socket for connected that is woken without an error. Linux wakes it for a copy of an ICMP error
of IPv4 a moment before the error itself is there (see `tproxy.connect_error`).
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

_EXTENDED_ERROR: Final = struct.Struct("=I")  # <linux/errqueue.h>, ee_errno
_ROOM: Final = 128


def require_connected(made: socket.socket) -> None:
    """Raises the OSError of an ICMP error that `connect` has not seen."""
    timeout = made.gettimeout()
    made.setblocking(False)
    try:
        copies = made.recvmsg(_ROOM, _ROOM, socket.MSG_ERRQUEUE)[1]
    except BlockingIOError:
        return
    finally:
        made.settimeout(timeout)
    number = _EXTENDED_ERROR.unpack_from(copies[0][2])[0]
    raise OSError(number, os.strerror(number))
