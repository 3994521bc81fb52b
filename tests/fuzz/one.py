"""One target under the fuzzer, in a process of its own: python -m tests.fuzz.one TARGET [libFuzzer options].

A process of its own because the fuzzer ends it, because instrumentation is for all of its life, and because
whatever kills it must not kill the others. Counterpart: `__main__`, which starts these and reads their words.
"""

from __future__ import annotations

import logging
import sys

import atheris


def main() -> None:
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["gateway", "tomllib"]):
        from tests.fuzz.table import TARGETS
    logging.disable()
    atheris.Setup(sys.argv, TARGETS[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
