"""Why an attempt of a peer's is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.errors import PeerProtocolError, Reason


def refused(attempt: Callable[[], object]) -> Reason:
    with pytest.raises(PeerProtocolError) as caught:
        attempt()
    return caught.value.reason
