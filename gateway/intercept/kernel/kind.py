"""The one form of everything that we put into the kernel: looked for, made, and taken away again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from gateway.intercept.objects import KernelObject


class Kind(Protocol):
    """One kind of kernel object, all of them at once. `wanted` are those of a rule set that are of this kind.

    What is ours is known by its name, table or shape, whichever version, process or placement has made it,
    and nothing else is ever touched. Every method acts on the network namespace that the calling thread is
    in, may be called again, and raises EnvironmentFailureError.
    """

    of: tuple[type[KernelObject], ...]
    numbered: bool
    """The kernel numbers all changes of this kind (see `nft.generation`): no need to look without one."""

    def missing(self, wanted: Sequence[Any]) -> list[str]:
        """What should stand and does not, a line each, in the words of the tool that would add it."""

    def surplus(self, wanted: Sequence[Any]) -> list[str]:
        """What is ours and stands, and should not."""

    def put(self, wanted: Sequence[Any]) -> None:
        """Make it exactly these, whatever of ours stood there before."""

    def mend(self, wanted: Sequence[Any]) -> list[str]:
        """Put back what is missing, as soon as can be, and leave alone what stands; what it was."""

    def take_away(self) -> None:
        """Nothing of ours any more, and what was there before as it was."""
