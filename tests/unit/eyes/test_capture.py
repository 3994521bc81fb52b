"""Which packets are heard, and how the file has them."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Self, cast

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from gateway.eyes import capture, wire
from gateway.eyes.capture import ETHERTYPE_IPV4, ETHERTYPE_IPV6, is_wanted

V4, V6 = ETHERTYPE_IPV4, ETHERTYPE_IPV6


def four(upper: object) -> bytes:
    return bytes(IP(src="10.11.0.10", dst="10.12.0.10") / upper)


def six(upper: object) -> bytes:
    return bytes(IPv6(src="2001:db8:11::10", dst="2001:db8:12::10") / upper)


@pytest.mark.parametrize(
    ("ethertype", "packet", "wanted"),
    [
        (V4, four(TCP(sport=40025, dport=25)), True),
        (V4, four(TCP(sport=25, dport=40025)), True),
        (V6, six(TCP(sport=40025, dport=25)), True),
        (V6, six(TCP(sport=25, dport=40025)), True),
        (V4, four(UDP(sport=1, dport=9)), True),
        (V4, bytes(IP(options=b"\x01\x01\x01\x01") / TCP(sport=1, dport=25)), True),
        (V4, four(TCP(sport=40025, dport=26)), False),
        (V4, four(UDP(sport=40025, dport=25)), False),
        (V4, four(UDP(sport=9, dport=40025)), False),
        (V4, four(ICMP()), False),
        (V6, six(UDP(sport=1, dport=53)), False),
        (0x0806, four(TCP(sport=40025, dport=25)), False),
    ],
)
def test_what_is_heard(ethertype: int, packet: bytes, wanted: bool) -> None:
    assert is_wanted(ethertype, memoryview(packet)) is wanted


@pytest.mark.parametrize(("ethertype", "whole"), [(V4, four(TCP(dport=25))), (V6, six(TCP(dport=25)))])
def test_cut_packets_are_no_accident(ethertype: int, whole: bytes) -> None:
    for size in range(len(whole)):
        is_wanted(ethertype, memoryview(whole[:size]))


def test_the_file_is_one_that_the_reader_takes(tmp_path: Path) -> None:
    packet = memoryview(four(TCP(sport=40025, dport=25, flags="S", seq=7) / b""))
    path = tmp_path / "x.pcap"
    path.write_bytes(capture.FILE_HEADER + capture.record(V4, 0, (1_700_000_000, 123_456_789), packet))
    (segment,) = wire.segments(path)
    assert segment.time == pytest.approx(1_700_000_000.123456789, abs=1e-6)
    assert (segment.source.port, segment.destination.port, segment.seq) == (40025, 25, 7)
    assert segment.flags == wire.SYN


class Ear:
    """A socket that hears two packets, and is then pulled out."""

    def __init__(self) -> None:
        self.packets = [four(TCP(sport=40025, dport=25)), four(TCP(sport=1, dport=80)), six(TCP(dport=25))]
        self.kinds = [V4, V4, V6]

    def fileno(self) -> int:
        return 0

    def getsockopt(self, *_: int) -> bytes:
        return capture.STATISTICS.pack(0, 0)

    def recvmsg_into(self, buffers: list[bytearray], space: int) -> tuple[object, ...]:
        if not self.packets:
            raise SystemExit(0)
        packet = self.packets.pop(0)
        buffers[0][: len(packet)] = packet
        when = struct.pack("@ll", 5, 6)
        return len(packet), [(1, capture.SO_TIMESTAMPNS, when)], 0, ("x", self.kinds.pop(0), 0, 1, b"")


def test_only_mail_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    with path.open("wb") as out, pytest.raises(SystemExit):
        capture.hear(Ear(), out)  # type: ignore[arg-type]
    assert [":" in segment.source.address for segment in wire.segments(path)] == [False, True]


class QuietEar(Ear):
    """Nothing comes in; what happens to it is in `troubles`."""

    def __init__(self, name: str = "eth0", troubles: tuple[int, ...] = ()) -> None:
        self._silence = os.pipe()
        self._name = name
        self.troubles = list(troubles)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._silence:
            os.close(end)

    def fileno(self) -> int:
        return self._silence[0]

    def getsockname(self) -> tuple[str]:
        return (self._name,)

    def recvmsg_into(self, buffers: list[bytearray], space: int) -> tuple[object, ...]:
        if self.troubles:
            raise OSError(self.troubles.pop(0), "trouble")
        raise BlockingIOError


def test_it_ends_when_nobody_reads_any_more() -> None:
    """Else a listener whose starter was killed would listen on for ever where no mail is."""
    reading, writing = os.pipe()
    with QuietEar() as ear, os.fdopen(writing, "wb") as out:
        hearing = threading.Thread(target=capture.hear, args=(ear, out))
        hearing.start()
        assert os.read(reading, 1000) == capture.FILE_HEADER
        os.close(reading)
        hearing.join(20)
        assert not hearing.is_alive()


def test_what_was_missed_is_told_in_all_and_also_where_there_was_no_pause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = iter([500, 500, 0, 7])
    monkeypatch.setattr(Ear, "getsockopt", lambda *_: capture.STATISTICS.pack(0, next(lost)))
    with (tmp_path / "x.pcap").open("wb") as out, pytest.raises(SystemExit):
        capture.hear(cast(socket.socket, Ear()), out)
    assert capsys.readouterr().err == "500 packets missed, the listener was too slow\n"
    missed = capture._Missed(cast(socket.socket, Ear()))
    for _ in range(3):
        missed.tell()
    assert capsys.readouterr().err.splitlines()[-1] == "507 packets missed, the listener was too slow"


def test_an_interface_that_goes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "x.pcap").open("wb") as out:
        with QuietEar("", (errno.ENETDOWN,)) as ear:
            capture.hear(cast(socket.socket, ear), out)
        assert capsys.readouterr().err == "the interface is gone\n"
        # One that comes back is heard on.
        with QuietEar("eth0", (errno.ENETDOWN, errno.EIO)) as ear, pytest.raises(OSError, match="trouble"):
            capture.hear(cast(socket.socket, ear), out)
        assert capsys.readouterr().err == "the interface was down for a while\n"
