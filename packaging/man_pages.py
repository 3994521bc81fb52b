"""Manual pages of all commands, from their help texts by click-man: `packaging/man_pages.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click
from click_man.core import write_man_pages

from gateway import __version__
from gateway.cli import nightmail

MORE: Final = """\
.SH EXIT STATUS
.TP
.B 0
fine
.TP
.B 1
a negative finding, or a failure; one line on standard error says which
.TP
.B 2
wrong usage, or a configuration that cannot be read
.SH FILES
.TP
.I /etc/nightmail/nightmail.toml
the configuration; without it all keys have their defaults
.TP
.I /usr/share/doc/nightmail/examples/nightmail.toml
one with all keys
.TP
.I /var/lib/nightmail
the identity of this site (to be backed up, and kept secret), and the memory of peers
.TP
.I /run/nightmail
the control socket
.SH SEE ALSO
.I /usr/share/doc/nightmail/docs
has all pages; \\fIstart.md\\fR begins, \\fImessages.md\\fR explains each word that Nightmail says.
"""
"""What belongs to the first page, and no help text says."""


def made_whole(command: click.Command) -> None:
    """Names in full what the help of a terminal cuts, and finds commands that are loaded late."""
    text = " ".join((command.help or "").split("\n\n")[0].split())
    command.short_help = text.split(". ")[0].rstrip(".")
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name
            command.add_command(found, name)
            made_whole(found)
        for name, found in list(command.commands.items()):
            if found.hidden:
                del command.commands[name]


def named_as_its_file(name: str, text: str) -> str:
    """Its title, and the pages that it refers to, have no blanks."""
    title = text.partition('" "')[0]
    text = text.replace(title, title.replace(" ", "-").replace("-", " ", 1), 1)
    return text.replace(f"See \\fB{name.replace('-', ' ')}-", f"See \\fB{name}-")


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    made_whole(nightmail)
    write_man_pages("nightmail", nightmail, version=__version__, target_dir=str(folder))
    for path in folder.glob("*.1"):
        path.write_text(named_as_its_file(path.stem, path.read_text()))
    with (folder / "nightmail.1").open("a") as first:
        first.write(MORE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
