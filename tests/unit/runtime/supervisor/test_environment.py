"""What a worker's libraries are told, seen in a process that is told it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from gateway.runtime.supervisor import environment

TOLD = """\
import json
import sys
import timeit

from gateway.crypto.primitives import MlKemPrivate, mlkem_encapsulate, sha512
pair = MlKemPrivate(bytes(64))
ciphertext, shared = mlkem_encapsulate(pair.public)
best = {
    "pair": min(timeit.repeat(lambda: MlKemPrivate(bytes(64)), number=5, repeat=200)),
    "use": min(timeit.repeat(lambda: pair.decapsulate(ciphertext), number=5, repeat=200)),
}
same = {"public": sha512(pair.public).hex(), "agree": pair.decapsulate(ciphertext) == shared}
json.dump({**same, **best}, sys.stdout)
"""


def told(variables: Mapping[str, str]) -> dict[str, object]:
    surroundings = {name: value for name, value in os.environ.items() if name != "OPENSSL_CONF"}
    done = subprocess.run(
        [sys.executable, "-c", TOLD], env={**surroundings, **variables}, capture_output=True, check=True
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_a_key_pair_is_drawn_without_a_test_of_it_and_is_the_same() -> None:
    anybody, worker = told({}), told(environment.WORKER)
    assert worker["public"] == anybody["public"]
    assert worker["agree"] is True
    # The test is a use of the pair both ways: without it the pair costs less by more than half of one use.
    saved = anybody["pair"] - worker["pair"]  # type: ignore[operator]
    assert saved > 0.5 * anybody["use"]  # type: ignore[operator]
