"""Values that a session makes by the dozen, and that nobody changes.

`frozen=True` makes `object.__setattr__` be called for each field, which is two thirds of what making a value
costs. Here the type checker alone holds that nothing is assigned to a field, in the product and its tests.
What is made less often, and every proof, is a frozen dataclass. Counterpart: `session.events`, for one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

Made = TypeVar("Made")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def immutable(made: type[Made]) -> type[Made]:
    """A dataclass with slots that compares and hashes by its fields."""
    return dataclass(slots=True, unsafe_hash=True)(made)
