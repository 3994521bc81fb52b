"""How much the kernel tells pyroute2 when it is asked something, whether anybody is given that or not."""

from __future__ import annotations

from typing import Any, Final

LINK: Final = 16  # RTM_NEWLINK, <linux/rtnetlink.h>
ROUTE: Final = 24  # RTM_NEWROUTE
NEIGHBOUR: Final = 28  # RTM_NEWNEIGH


class Told:
    """Counts messages of one kind that come to this IPRoute from now on."""

    def __init__(self, ip: Any, kind: int) -> None:
        self.count = 0
        self._kind = kind
        self._parse = ip.marshal.parse_one_message
        ip.marshal.parse_one_message = self._hear

    def _hear(self, kind: int, *rest: Any) -> Any:
        self.count += kind == self._kind
        return self._parse(kind, *rest)
