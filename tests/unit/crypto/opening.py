"""What a record layer makes of octets: records, or the reason why they are none."""

from __future__ import annotations

import pytest

from gateway.crypto.frames import FrameReader
from gateway.crypto.records import Record, RecordLayer
from gateway.errors import PeerProtocolError, Reason


def opened(layer: RecordLayer, wire: bytes) -> list[Record]:
    return [layer.open(each.body) for each in FrameReader().feed(wire)]


def refused(layer: RecordLayer, body: bytes) -> Reason:
    with pytest.raises(PeerProtocolError) as caught:
        layer.open(body)
    return caught.value.reason
