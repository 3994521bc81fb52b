"""A disk of a test's own: a layer over this machine's, in which whatever is written anywhere is found.

Programs run in it by `chroot`; it and all that was written is gone with the process that holds its mounts.
What `scripts/neighbours` has installed may be on it beside what is on the machine's.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEIGHBOURS = Path(__file__).parents[2] / ".neighbours.tar"
MOUNTS = """\
set -e
mount -t tmpfs none {folder}
mkdir {folder}/upper {folder}/work {folder}/root
{unpack}
mount -t overlay none -o lowerdir=/,upperdir={folder}/upper,workdir={folder}/work {folder}/root
for name in proc sys dev; do mount --rbind /$name {folder}/root/$name; done
echo mounted
exec sleep 1000
"""


@dataclass(frozen=True, slots=True)
class OwnDisk:
    """`keeper`: the process that holds the mounts."""

    folder: Path
    keeper: int

    def command(self, namespace: str, *words: str) -> list[str]:
        """Of a program on this disk, in a network namespace."""
        proc = f"/proc/{self.keeper}"
        # Its root as well: these tests may run in a `chroot` themselves.
        enter = ["nsenter", f"--net=/run/netns/{namespace}", f"--mount={proc}/ns/mnt", f"--root={proc}/root"]
        return [*enter, "chroot", str(self.folder / "root"), *words]

    def path(self, path: str) -> Path:
        """Where this file of the disk is seen from outside."""
        return Path(f"/proc/{self.keeper}/root{self.folder}/root{path}")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        there = self.path(path)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)
        there.chmod(mode)

    def changed(self) -> set[str]:
        """Whatever is on it now that is not, or not so, on this machine's."""
        upper = Path(f"/proc/{self.keeper}/root{self.folder}/upper")
        found = ((path, Path("/", path.relative_to(upper))) for path in upper.rglob("*"))
        return {str(place) for path, place in found if not (path.is_dir() and place.is_dir())}


@contextlib.contextmanager
def own_disk(*, with_neighbours: bool = False) -> Iterator[OwnDisk]:
    folder = Path(tempfile.mkdtemp(prefix="nmod-"))
    folder.chmod(0o755)
    unpack = (
        f"tar --xattrs --xattrs-include='*' -C {folder}/upper -xf {NEIGHBOURS}" if with_neighbours else ""
    )
    words = ["unshare", "--mount", "sh", "-c", MOUNTS.format(folder=folder, unpack=unpack)]
    keeper = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "mounted\n"
        yield OwnDisk(folder, keeper.pid)
    finally:
        keeper.kill()
        keeper.communicate()
        folder.rmdir()
