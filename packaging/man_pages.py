"""Manual pages of all commands, from their help texts by click-man: `packaging/man_pages.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from click_man.core import write_man_pages

from gateway import __version__
from gateway.cli import nightmail


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_man_pages("nightmail", nightmail, version=__version__, target_dir=str(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
