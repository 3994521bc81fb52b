"""What a worker may say to the supervisor, as one table: the fields of each message, and what each may hold.

The supervisor is root and writes what it hears into memory, log and kernel; a worker may be in other hands.
So a message is what it should be, or it is not heard. Kinds and fields that are not here are passed over: a
worker may be of a later version. Counterparts: `pool` (asks), `sessions` (says most of it).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from gateway.crypto.primitives import ED25519_PUBLIC_OCTETS
from gateway.errors import Reason
from gateway.peers.sources import SourceSeen
from gateway.policy import limits
from gateway.runtime.link import Message, told_address, told_destination

Check = Callable[[Any], bool]


def require_said(message: Message) -> None:
    """Raises ValueError, KeyError for what no worker of ours says."""
    for kind, body in message.items():
        holds = _PLAIN.get(kind)
        if holds is not None and not holds(body):
            raise ValueError(kind)
        fields = _FIELDS.get(kind)
        if fields is None:
            continue
        if not isinstance(body, dict):
            raise ValueError(f"{kind}: no fields")
        _require(kind, body, fields)
        if "address" in body and "port" in body:
            told_destination(body)


def _require(kind: str, body: dict[str, Any], fields: dict[str, Check]) -> None:
    for name, holds in fields.items():
        if name.endswith("?"):
            if name[:-1] in body and not holds(body[name[:-1]]):
                raise ValueError(f"{kind}: {name[:-1]}")
        elif not holds(body[name]):
            raise ValueError(f"{kind}: {name}")


def _hex(least: int, most: int) -> Check:
    form = re.compile(rf"([0-9a-f]{{2}}){{{least},{most}}}")
    return lambda told: isinstance(told, str) and form.fullmatch(told) is not None


def _word(words: type[Enum]) -> Check:
    known = frozenset(word.value for word in words)
    return lambda told: isinstance(told, str) and told in known


def _text(told: Any) -> bool:
    """Of bounded length, and fit to be written; whoever shows it escapes it."""
    if not isinstance(told, str) or len(told) > limits.SAID_TEXT_LETTERS:
        return False
    told.encode()  # half a surrogate pair raises a ValueError
    return True


def _number(told: Any) -> bool:
    return type(told) is int and 0 <= told < 1 << 32


def _flag(told: Any) -> bool:
    return isinstance(told, bool)


def _address(told: Any) -> bool:
    return bool(told_address(told))


def _server(told: Any) -> bool:
    """Address and port, in a row."""
    return isinstance(told, list) and bool(
        told_destination(dict(zip(("address", "port"), told, strict=True)))
    )


def _layers(told: Any) -> bool:
    """Of a confinement: words, of which a later version may have others."""
    words = isinstance(told, list) and len(told) <= limits.SAID_LAYERS
    return words and all(isinstance(one, str) and _LAYER.fullmatch(one) for one in told)


def _subject(told: Any) -> bool:
    """The bell remembers thousands of them."""
    return _text(told) and len(told) <= limits.SAID_SUBJECT_LETTERS


def _statement(told: Any) -> bool:
    if not isinstance(told, dict):
        return False
    _require("statement", told, {"old": _IDENTITY, "new": _IDENTITY, "serial": _number})
    return True


_LAYER: Final = re.compile(r"[a-z-]{1,32}")
_IDENTITY: Final = _hex(ED25519_PUBLIC_OCTETS, ED25519_PUBLIC_OCTETS)
_WHERE: Final[dict[str, Check]] = {"address": _address, "port": _number}
_MAYBE_WHERE: Final[dict[str, Check]] = {"address?": _address, "port?": _number, "client?": _address}
_FIELDS: Final[dict[str, dict[str, Check]]] = {
    "remember": {
        **_WHERE,
        "identity": _IDENTITY,
        "epoch": _number,
        "full": _flag,
        "new": _flag,
        "rang?": _flag,
        "statement?": _statement,
    },
    "failure": _WHERE,
    "dead-end": _WHERE,
    "rests": {**_WHERE, "client": _address},
    "wakes": {"client": _address},
    "ignored": {"address": _address, "in_a_row": _number, "rests": _flag},
    "look": {**_WHERE, "host": _text, "keywords": _text},
    "source": {
        "address": _address,
        "seen": _word(SourceSeen),
        "name?": _hex(0, limits.NAME_OCTETS),
        "identity?": _IDENTITY,
        "epoch?": _number,
        "new?": _flag,
    },
    "cause": {**_WHERE, "client": _address, "likely": _word(Reason), "session?": _text},
    "alarm": {
        "reason": _word(Reason),
        "subject": _subject,
        "detail": _text,
        "likely?": _word(Reason),
        **_MAYBE_WHERE,
    },
}
"""A name with a question mark need not be there."""
_PLAIN: Final[dict[str, Check]] = {"ready": _number, "layers": _layers, "answered": _server}
"""What has no fields."""
