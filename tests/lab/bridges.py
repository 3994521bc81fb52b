"""What the tests of a bridge look with: cables whose every frame is seen, and what `up` may change."""

from __future__ import annotations

import contextlib
import socket
import struct

from gateway.lab import network, processes
from tests.lab.two_sites import Sites

ETH_P_ALL = 0x0003  # <linux/if_ether.h>


class Cable:
    """All frames at one interface of a namespace, those for others and tagged ones included."""

    def __init__(self, namespace: str, interface: str) -> None:
        self._socket = network.inside(namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        self._socket.setsockopt(263, 1, struct.pack("=iHHQ", if_index(namespace, interface), 1, 0, 0))
        self._socket.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: a tag is told beside the frame
        self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def arrived(self) -> list[bytes]:
        """What has come in since the last call."""
        return [frame for frame, _ in self.arrived_tagged()]

    def arrived_tagged(self) -> list[tuple[bytes, int | None]]:
        """The same, each with the number of its VLAN if it has a tag."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, told, _, sender = self._socket.recvmsg(65536, 128)
                if sender[2] == socket.PACKET_OUTGOING:
                    continue
                status, *_rest, tci, _tpid = struct.unpack("=IIIHHHH", told[0][2])
                found.append((frame, tci & 0xFFF if status & 0x10 else None))
        return found


def if_index(namespace: str, interface: str) -> int:
    return network.inside(namespace, lambda: socket.if_nametoindex(interface))


def mac_of(namespace: str, interface: str) -> bytes:
    said = processes.run_in(namespace, ["ip", "-o", "link", "show", interface]).stdout.decode()
    return bytes.fromhex(said.split("link/ether ")[1].split()[0].replace(":", ""))


def is_mail(frame: bytes) -> bool:
    """TCP from or to port 25."""
    kind = frame[12:14]
    if kind == b"\x08\x00":
        tcp = frame[14 + 4 * (frame[14] & 15) :] if frame[23] == 6 else b""
    else:
        tcp = frame[54:] if kind == b"\x86\xdd" and frame[20] == 6 else b""
    return b"\x00\x19" in (tcp[0:2], tcp[2:4])


def reaches(sites: Sites, client: str, server: str, v6: bool) -> bool:
    """Whether a connection to the port for submission comes in, from its own address and port."""
    family = socket.AF_INET6 if v6 else socket.AF_INET
    address = (sites.address(server, v6), 587)
    with (
        network.socket_in(sites.namespace(server), family, socket.SOCK_STREAM) as listener,
        network.socket_in(sites.namespace(client), family, socket.SOCK_STREAM) as made,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        made.settimeout(2.0)
        try:
            made.connect(address)
        except OSError:
            return False
        accepted, source = listener.accept()
        accepted.close()
        assert source[:2] == made.getsockname()[:2]
        return True


def bridge_state(sites: Sites, letter: str) -> list[str]:
    """All that `up` may change, of bridges, interfaces and rules."""
    node = sites.home(letter)
    lines = [line for line in sites.sh(node, "ip -o -d link").splitlines() if line.strip()]
    fields = [
        " ".join(word for word in line.split() if not word.endswith(("_timer", ".00")) and "." not in word)
        for line in lines
    ]
    switches = [
        "sysctl -a --pattern net.bridge",
        "sysctl -a --pattern net.ipv[46].conf.*.(disable_ipv6|rp_filter|src)",
    ]
    return [*fields, *sites.sh(node, *switches).splitlines(), *sites.kernel_state(letter)]


def decided(sites: Sites, letter: str) -> int:
    """Sessions of this gateway since its start, whatever became of them."""
    counted = sites.status(letter)["counters"]["decided"]
    return sum(number for each in counted.values() for kind in each.values() for number in kind.values())
