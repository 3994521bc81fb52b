"""What an operator does with the site's identity: shows it, rotates it, carries it to another machine.

Works on the file directly, so it needs no running daemon; a running one follows. Says what cannot be undone.
Counterparts: `crypto.rotation` (what that is), `crypto.export`, `runtime.identity_file`, and
`runtime.supervisor.site`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.crypto import export as sealing
from gateway.crypto.export import is_export
from gateway.crypto.rotation import (
    SiteIdentity,
    announced,
    as_lines,
    from_lines,
    hastened,
    switched,
    withdrawn,
)
from gateway.errors import CryptoRefusedError, EnvironmentFailureError
from gateway.operator.status import when
from gateway.policy import limits
from gateway.runtime import identity_file
from gateway.runtime.identity_file import Kept
from gateway.runtime.machine import this_machine

__all__ = [
    "Answer",
    "announce",
    "as_json",
    "export",
    "import_",
    "is_export",
    "read",
    "require_exportable",
    "rotate_now",
    "told",
    "undo",
]

_UNDO_AFTERWARDS = (
    "the new identity is in use, and the key of the one before is gone. To leave this one: rotate again"
    " (--now if its key may be stolen). To go back to the one before: `nightmail identity import --replace`"
    " an export of it; peers that know the new one alone, or for 30 days by then, will ring"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was done, in lines; or why not."""

    lines: tuple[str, ...] = ()
    complaint: str = ""


# --- Showing ---------------------------------------------------------------------------------------------


def told(kept: Kept) -> Iterator[str]:
    """The fingerprint first, alone on its line: it is read out on the telephone."""
    site, now = kept.site, int(time.time())
    yield site.key.public.fingerprint
    if site.next is not None and site.next_key is not None:
        yield f"announced: {site.next_key.public.fingerprint}, used from {when(site.next.use_at)} on"
    if site.shown is not None and now < site.shown.until:
        until = when(site.shown.until)
        yield f"in use since {when(site.since)}; peers of the one before are told so until {until}"
    if kept.is_of_another(this_machine()):
        yield "MADE ON ANOTHER MACHINE: the next `nightmail run` sets it aside and makes a new one"


def as_json(kept: Kept) -> dict[str, Any]:
    site, now = kept.site, int(time.time())
    upcoming = site.next_key
    return {
        "fingerprint": site.key.public.fingerprint,
        "since": site.since,
        "next": upcoming.public.fingerprint if upcoming is not None else None,
        "use_at": site.next.use_at if site.next is not None else None,
        "statements": len(site.statements(now)),
        "of_another_machine": kept.is_of_another(this_machine()),
    }


# --- Rotating --------------------------------------------------------------------------------------------


def announce(path: Path, now: int, days: int) -> Answer:
    """A new identity, told to peers from now on and used in `days`."""
    before = _loaded(path)
    if before.next is not None:
        return Answer(
            complaint=f"an identity is announced already, for {when(before.next.use_at)};"
            " --now uses it at once, --undo takes it back"
        )
    after = identity_file.change(
        path, lambda site: site if site.next is not None else announced(site, os.urandom, now, days)
    )
    assert after.next is not None
    assert after.next_key is not None
    return Answer(
        (
            f"announced: {after.next_key.public.fingerprint}",
            f"used from {when(after.next.use_at)} on; `nightmail identity rotate --undo` takes it back",
            *_export_again(),
            *_left_behind(before, now),
        )
    )


def rotate_now(path: Path, now: int) -> Answer:
    """The announced identity, or a new one, in use at once."""
    before = _loaded(path)

    def work(site: SiteIdentity) -> SiteIdentity:
        pending = site if site.next is not None else announced(site, os.urandom, now, 0)
        return switched(hastened(pending, now), now)

    after = identity_file.change(path, work)
    return Answer(
        (
            f"in use: {after.key.public.fingerprint}",
            f"in its place before: {before.key.public.fingerprint}; its key is gone from this machine",
            *_export_again(),
            *_left_behind(before, now),
        )
    )


def undo(path: Path) -> Answer:
    """Take an announced identity back; afterwards, say what can still be done."""
    before = _loaded(path)
    if before.next_key is None:
        return Answer(complaint=_UNDO_AFTERWARDS if before.shown is not None else "no identity is announced")
    identity_file.change(path, withdrawn)
    return Answer(
        (
            f"taken back: {before.next_key.public.fingerprint}; its key is gone",
            f"in use, as before: {before.key.public.fingerprint}",
            "peers that have learnt of it keep its name, of no use to anybody, until the next announcement",
        )
    )


def _left_behind(before: SiteIdentity, now: int) -> tuple[str, ...]:
    """A statement leads one step: peers that know only the identity before the last one are not led on."""
    if before.shown is None or now >= before.shown.until:
        return ()
    return (
        f"note: the identity of now is in use since {when(before.since)} only; peers that have not come since"
        " will ring the alarm when the next one is used",
    )


def _export_again() -> tuple[str, ...]:
    return ("an export made before does not hold the new key: `nightmail identity export` again",)


def _loaded(path: Path) -> SiteIdentity:
    """The checks are those of a change that changes nothing."""
    return identity_file.change(path, lambda site: site)


# --- Carrying --------------------------------------------------------------------------------------------


def require_exportable(path: Path, file: Path) -> None:
    """There is an identity, and nothing in its export's place yet."""
    _loaded(path)
    if file.exists():
        raise EnvironmentFailureError(f"{file}: is there already; an export takes no other file's place")


def export(path: Path, file: Path, passphrase: bytes) -> str:
    """Write the export to `file`, which must not be there; answers the fingerprint."""
    site = _loaded(path)
    text = sealing.sealed("\n".join(as_lines(site)).encode(), passphrase, os.urandom)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with _whole_or_not_at_all(file), os.fdopen(descriptor, "w") as target:
            target.write(text)
            target.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise EnvironmentFailureError(f"{file}: cannot be written: {error.strerror}") from None
    return site.key.public.fingerprint


@contextlib.contextmanager
def _whole_or_not_at_all(file: Path) -> Iterator[None]:
    """Half an export, where the disk is full, opens nothing, and stands in the way of the next one."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            file.unlink()
        raise


def read(file: Path) -> str:
    """The text of a file to import."""
    try:
        with file.open("rb") as source:
            octets = source.read(limits.IDENTITY_FILE_OCTETS + 1)
    except OSError as error:
        raise EnvironmentFailureError(f"{file}: cannot be read: {error.strerror}") from None
    if len(octets) > limits.IDENTITY_FILE_OCTETS:
        raise EnvironmentFailureError(f"{file}: neither an export nor an identity file")
    return octets.decode("ascii", "replace")


def import_(path: Path, file: Path, text: str, passphrase: bytes, *, replace: bool) -> list[str]:
    """Make the identity in `text` that of this machine; what was done, in lines."""
    site = _inside(file, text, passphrase)
    set_aside = identity_file.put(path, site, replace=replace)
    lines = [f"imported: {site.key.public.fingerprint}"]
    if set_aside is not None:
        lines.append(f"set aside: {set_aside}; delete it when this one has proven right")
    if site.next is not None:
        lines.append(f"with a rotation under way; the next identity is used from {when(site.next.use_at)} on")
    return lines


def _inside(file: Path, text: str, passphrase: bytes) -> SiteIdentity:
    if not is_export(text):
        kept = identity_file.parsed(text)
        if kept is None:
            raise EnvironmentFailureError(f"{file}: neither an export nor an identity file")
        return kept.site
    try:
        plain = sealing.opened(text, passphrase)
    except CryptoRefusedError:
        raise EnvironmentFailureError(f"{file}: another passphrase, or the file is damaged") from None
    except MemoryError as error:
        raise EnvironmentFailureError(f"{file}: {error}") from None
    site = from_lines(plain.decode("ascii", "replace").splitlines()) if plain is not None else None
    if site is None:
        raise EnvironmentFailureError(f"{file}: not an export of this version")
    return site
