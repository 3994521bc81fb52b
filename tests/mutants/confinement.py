"""Checks between a worker that is not believed and what it must not get. Counterpart: docs/security.md."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Room, mutants_of

_signer = Room("gateway/runtime/signer.py")
_signer.lacks(
    "the signer signs offers of its own identity only",
    'self._keys.get(cast("bytes", values["identity"]))',
    "self._keys.get(self._in_use)",
)
_signer.lacks(
    "the signer signs no offer of a day to come",
    "not today - 1 <= epoch <= today + 1",
    "not today - 1 <= epoch",
)
_signer.lacks(
    "a worker that ends its direction does not keep the signer busy",
    "select.POLLHUP | select.POLLRDHUP",
    "select.POLLHUP",
)
_signer.lacks(
    "the signer signs no offer of a day gone by",
    "not today - 1 <= epoch <= today + 1",
    "not epoch <= today + 1",
)
_signer.lacks(
    "the signer signs so many a second and no more",
    "self._keys.sign(to_sign) if allowance.spend() else",
    "self._keys.sign(to_sign) if True else",
)
_signer.lacks(
    "the signer signs under the offer's label",
    "return key.sign(Label.OFFER, to_sign)",
    "return key.sign(Label.STATIC, to_sign)",
)
_signer.lacks(
    "an identity that was switched off is forgotten",
    "if len(self._keys) > 1 and self._steady() > self._old_until:",
    "if False:",
)
_signing = Room("gateway/runtime/worker/signing.py")
_signing.lacks(
    "an answer to another worker's question is none",
    "self._waiting.pop(NUMBER.unpack_from(packet)[0], None)",
    "self._waiting.popitem()[1]",
)
_ruleset = Room("gateway/intercept/ruleset.py")
_ruleset.lacks(
    "what is asked of nft about an address is an address",
    "{ip_address(server)} . {ip_address(client)}",
    "{server} . {client}",
)
_pool = Room("gateway/runtime/supervisor/pool.py")
_pool.lacks(
    "a worker's nonsense is caught",
    "except (LookupError, TypeError, ValueError, AttributeError) as error:",
    "except ZeroDivisionError as error:",
)
_pool.lacks(
    "what a worker has the others told is one thing, and no order of the supervisor's",
    "told = {kind: message[kind]}",
    "told = message",
)
_sole = Room("gateway/runtime/supervisor/sole.py")
_sole.lacks(
    "a stranger keeps no daemon from starting",
    "if user != os.geteuid():",
    "if False:",
)
_link = Room("gateway/runtime/link.py")
_link.lacks(
    "an address that a worker tells is one",
    "    return str(ip_address(told))",
    "    return told",
)
_link.lacks(
    "an address that a worker tells has no scope behind it",
    'not isinstance(told, str) or "%" in told',
    "not isinstance(told, str)",
)
_link.lacks(
    "a port that a worker tells is a number",
    "if type(port) is not int or not 0 < port < 1 << 16:",
    "if False:",
)
_said = Room("gateway/runtime/said.py")
_said.lacks(
    "a number that a worker tells fits where it is written",
    "return type(told) is int and 0 <= told < 1 << 32",
    "return type(told) is int",
)
_said.lacks(
    "an identity that a worker tells has an identity's length",
    "_hex(ED25519_PUBLIC_OCTETS, ED25519_PUBLIC_OCTETS)",
    "_hex(0, 99)",
)
_said.lacks(
    "the layers that a worker names are words",
    "return words and all(isinstance(one, str) and _LAYER.fullmatch(one) for one in told)",
    "return True",
)
_said.lacks(
    "a server that a worker tells the others of has an address and a port",
    "return isinstance(told, list) and bool(",
    "return True or bool(",
)
_counters = Room("gateway/observe/counters.py")
_counters.lacks(
    "what a worker counts is of the form that sums are made of",
    "        _require_parts(part, parts[name])",
    "        pass",
)
_hearing = Room("gateway/runtime/supervisor/hearing.py")
_hearing.lacks(
    "a pinned peer is no dead end",
    "        if not self._memory.may_be_pinned(destination):",
    "        if True:",
)
_shell = Room("gateway/cli/shell.py")
_shell.lacks(
    "a line on the terminal holds letters only",
    'return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in cut)',
    "return cut",
)
CONFINEMENT: Final[tuple[Mutant, ...]] = mutants_of(
    _signer, _signing, _ruleset, _pool, _sole, _link, _said, _counters, _hearing, _shell
)
