"""The raw sessions of a soak, in a mail server's namespace: `python -m bench.soak.load FACTS KIND TARGET...`.

They are those of `bench.chaos.clients` at a pace that can last for hours. `steady` sessions end in order
after some mails, and there are probes beside them; `lasting` ones after a quarter of an hour. They end at all
because one that began in clear, while a gateway was off, would stay so for the rest of the run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import uvloop

from bench.chaos.clients import Load, Pace
from bench.chaos.facts import Writer

PACES: Final = {
    "steady": Pace(probe_every=1.0, mail_every=3.0, mails_per_session=30, tell_every=5.0),
    "lasting": Pace(
        probe_every=None, mail_every=8.0, mails_per_session=120, large_octets=1_000_000, tell_every=5.0
    ),
}

if __name__ == "__main__":
    uvloop.run(Load(Writer(Path(sys.argv[1])), sys.argv[3:], PACES[sys.argv[2]]).run())
