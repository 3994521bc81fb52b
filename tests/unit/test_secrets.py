"""Secrets: they print redacted, are not copied or written out, and are compared in one way."""

from __future__ import annotations

import ast
import base64
import copy
import hmac
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.crypto import primitives
from gateway.crypto.handshake import OfferForm, TrafficCiphers
from gateway.crypto.keys import Ephemerals, IdentityKey, StaticKey, endorse
from gateway.crypto.noise import IX, CipherState, HandshakeState, NoiseRole, SymmetricState
from gateway.crypto.records import RecordLayer
from gateway.errors import LocalMisuseError
from gateway.runtime.hardening import Confinement
from gateway.runtime.order import Order, Presented
from gateway.session.context import GatewayKeys
from tests.unit.crypto.pairs import handshaken

GATEWAY = Path(__file__).parents[2] / "gateway"
SECRET = bytes(range(100, 132))
SEED = bytes(range(100, 164))
PUBLIC = IdentityKey.from_seed(SEED[:32]).public.octets


def _keys() -> GatewayKeys:
    identity = IdentityKey.from_seed(SECRET)
    return GatewayKeys(identity.public, endorse(identity, StaticKey(primitives.X25519Private(SECRET), 5), 5))


def _symmetric() -> SymmetricState:
    state = SymmetricState(b"name")
    state.mix_key(SECRET)
    return state


def _handshake() -> HandshakeState:
    key = primitives.X25519Private(SECRET)
    return HandshakeState(IX, NoiseRole.INITIATOR, b"", key, key)


HOLDERS: dict[str, Callable[[], object]] = {
    "X25519Private": lambda: primitives.X25519Private(SECRET),
    "Ed25519Private": lambda: primitives.Ed25519Private(SECRET),
    "MlKemPrivate": lambda: primitives.MlKemPrivate(SEED),
    "Aead": lambda: primitives.Aead(SECRET),
    "IdentityKey": lambda: IdentityKey.from_seed(SECRET),
    "StaticKey": lambda: StaticKey(primitives.X25519Private(SECRET), 5),
    "Ephemerals": lambda: Ephemerals(primitives.X25519Private(SECRET), primitives.MlKemPrivate(SEED)),
    "GatewayKeys": _keys,
    "CipherState": lambda: CipherState(SECRET),
    "SymmetricState": _symmetric,
    "HandshakeState": _handshake,
    "TrafficCiphers": lambda: TrafficCiphers(SECRET, SECRET),
    "HandshakeResult": lambda: handshaken(OfferForm.SHORT).at_sending,
    "RecordLayer": lambda: RecordLayer(handshaken(OfferForm.SHORT).at_sending),
    "Presented": lambda: Presented(PUBLIC, SECRET, 5, 19, bytes(64)),
    "Order": lambda: Order(
        Config(),
        1,
        2500,
        (7,),
        8,
        Presented(PUBLIC, SECRET, 5, 19, bytes(64)),
        Confinement(None, None),
    ),
}
GOES_TO_A_WORKER = {"Presented", "Order"}
"""Their purpose is to be pickled, over a socket pair that nobody else holds."""


def _spelled(secret: bytes) -> Iterator[str]:
    """A secret as it might stand in a text, and parts of it."""
    for part in (secret[:8], secret[8:16], secret[-8:]):
        yield part.hex()
        yield repr(part)[2:-1]
        yield base64.b64encode(part[:6]).decode()
        yield str(list(part))[1:-1]


@pytest.mark.parametrize("name", HOLDERS)
def test_what_holds_a_secret_prints_redacted(name: str) -> None:
    holder = HOLDERS[name]()
    for text in (
        repr(holder),
        str(holder),
        f"{holder}",
        f"{holder!s:>40}",
        repr([holder]),
    ):
        assert "redacted" in text
        assert not [word for word in _spelled(SEED) if word in text]


@pytest.mark.parametrize("name", sorted(HOLDERS.keys() - GOES_TO_A_WORKER))
def test_what_holds_a_secret_is_not_written_out_or_copied(name: str) -> None:
    holder = HOLDERS[name]()
    for way in (pickle.dumps, lambda one: pickle.dumps(one, 2), copy.deepcopy):
        with pytest.raises(LocalMisuseError):
            way(holder)


def test_the_secret_types_are_all_among_these() -> None:
    kinds = {
        kind.__name__
        for kind in primitives._Secret.__subclasses__()
        if kind.__module__ == primitives.__name__
    }
    assert kinds <= set(HOLDERS)
    assert len(kinds) == 4
    for kind in kinds:
        with pytest.raises(LocalMisuseError):
            copy.copy(HOLDERS[kind]())


# --- One way to compare -----------------------------------------------------------------------------------

SECRET_WORDS = frozenset(
    {"secret", "shared", "private", "seed", "tag", "mac", "passphrase", "ck", "ikm", "password", "derived"}
)
"""Names of what is secret, or stands for one: a whole word of a name with underscores."""


def _names(node: ast.expr) -> Iterator[str]:
    """The names that an operand of a comparison is made of; lengths and types tell no octet."""
    if isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Name) and function.id in ("len", "type", "isinstance", "id"):
            return
        for argument in node.args:
            yield from _names(argument)
    elif isinstance(node, ast.Attribute):
        # `private.public` is public.
        yield node.attr
    elif isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Subscript):
        yield from _names(node.value)
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            yield node.slice.value
    elif isinstance(node, ast.BinOp):
        yield from _names(node.left)
        yield from _names(node.right)


def _is_secret(name: str) -> bool:
    return bool(SECRET_WORDS & set(name.lower().strip("_").split("_")))


def compares_of_secrets(source: str) -> list[int]:
    """Lines where a secret is compared by ==, !=, in or not in, whose time depends on the octets."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        by_value = any(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops)
        operands = (node.left, *node.comparators)
        if by_value and any(_is_secret(name) for operand in operands for name in _names(operand)):
            lines.append(node.lineno)
    return lines


def test_the_rule_sees_what_it_forbids() -> None:
    for line in (
        "shared == bytes(32)",
        "self._secret != other",
        "tag in known",
        'values["tag"] == expected',
        "a == hmac(private)",
        "tag[:16] == expected[:16]",
        "key.seed == b''",
    ):
        assert compares_of_secrets(line), line
    for line in (
        "len(secret) == 32",
        "tagged == 1",
        "identity == own",
        "private.public == other",
        "tag is None",
    ):
        assert not compares_of_secrets(line), line


@pytest.mark.parametrize(
    "path", sorted(GATEWAY.rglob("*.py")), ids=lambda path: str(path.relative_to(GATEWAY))
)
def test_secrets_are_compared_by_one_function_of_constant_time(path: Path) -> None:
    source = path.read_text()
    assert compares_of_secrets(source) == []
    for node in ast.walk(ast.parse(source)):
        names = [node.attr] if isinstance(node, ast.Attribute) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        if "compare_digest" in names:
            assert path == GATEWAY / "crypto" / "primitives.py", "constant_time_equal is the one way"


def test_no_class_that_holds_a_secret_compares_it_field_by_field() -> None:
    """A dataclass would, with an `==` that it makes by itself."""
    for name, make in HOLDERS.items():
        kind = type(make())
        fields = getattr(kind, "__dataclass_fields__", {})
        secret = [one.name for one in fields.values() if one.compare and _is_secret(one.name)]
        assert not secret or kind.__eq__ is object.__eq__, name


def test_constant_time_equal_is_the_library_s(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compare(one: bytes, other: bytes) -> bool:
        asked.append((one, other))
        return True

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert primitives.constant_time_equal(b"a", b"b")
    assert asked == [(b"a", b"b")]
