"""Shell completion for bash, zsh and fish: `python packaging/completion.py SHARE`, SHARE being /usr/share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from gateway.cli import nightmail

PLACES: Final[dict[type[ShellComplete], str]] = {
    BashComplete: "bash-completion/completions/nightmail",
    ZshComplete: "zsh/vendor-completions/_nightmail",
    FishComplete: "fish/vendor_completions.d/nightmail.fish",
}


def main() -> int:
    share = Path(sys.argv[1])
    for shell, place in PLACES.items():
        script = shell(nightmail, {}, "nightmail", "_NIGHTMAIL_COMPLETE").source()
        (share / place).parent.mkdir(parents=True, exist_ok=True)
        (share / place).write_text(script + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
