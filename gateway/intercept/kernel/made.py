"""A bridge that we have made: told by its alias from the site's, and given up where it has become theirs.

The alias goes with the interface: one that somebody makes anew under the same name has none. Counterpart:
`lifts`, which makes it and takes it away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_ALIAS: Final = "made by nightmail of "
_ALIAS_OCTETS: Final = 255  # IFALIASZ, <linux/if.h>, with the zero behind it
_CONFIGURATIONS: Final = (
    "/etc/network/interfaces",
    "/etc/network/interfaces.d/*",
    "/etc/systemd/network/*",
    "/run/systemd/network/*",
    "/etc/netplan/*",
    "/etc/NetworkManager/system-connections/*",
)
"""Where a site says what interfaces it has, and `netplan` for it."""


def alias(ports: Sequence[str]) -> str:
    """For a bridge that our own call has just made of these ports; one whose ports have no room stays."""
    return (_ALIAS + ",".join(ports))[:_ALIAS_OCTETS]


def is_by_us(bridge: Any) -> bool:
    return _alias(bridge).startswith(_ALIAS)


def claims(ip: Any, links: Mapping[str, Any], bridge: Any, ours: Sequence[str]) -> list[str]:
    """What makes a bridge the site's by now, or always has, in words; empty if it may go with us.

    Its own scripts take a bridge that they find, where the daemon was quicker at a boot. `ours`: interfaces
    of ours that are ports beside those that it was made of.
    """
    if not is_by_us(bridge):
        return ["it was made by another"]
    made_of = {*_alias(bridge).removeprefix(_ALIAS).split(","), *ours}
    ports = (name for name, link in links.items() if link.get_attr("IFLA_MASTER") == bridge["index"])
    return [
        *(f"it has the address {address}" for address in addresses(ip, bridge["index"])),
        *(f"it has the port {port}" for port in ports if port not in made_of),
        *(f"{path} names it" for path in _naming(bridge.get_attr("IFLA_IFNAME"))),
    ]


def addresses(ip: Any, index: int) -> list[str]:
    """Those by which others could reach this machine; every interface has one for its own cable."""
    return [
        f"{found.get_attr('IFA_ADDRESS')}"
        for found in ip.get_addr(index=index)
        if not str(found.get_attr("IFA_ADDRESS")).startswith("fe80:")
    ]


def _alias(link: Any) -> str:
    return link.get_attr("IFLA_IFALIAS") or ""


def _naming(name: str) -> Iterator[Path]:
    """Files of the site's network configuration in which this word stands, comments aside."""
    for pattern in _CONFIGURATIONS:
        for path in sorted(Path("/").glob(pattern.removeprefix("/"))):
            if any(name in _words(line) for line in _lines(path)):
                yield path


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if not line.lstrip().startswith(("#", ";"))]


def _words(line: str) -> list[str]:
    for mark in "=:,;[]{}\"'":
        line = line.replace(mark, " ")
    return line.split()
