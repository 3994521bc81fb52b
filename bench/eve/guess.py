"""A classifier that has seen labelled sessions guesses the labels of others; how often it is right.

A random forest, cross-validated in five folds, so that no session is guessed by a forest that has seen it.
Counterpart: `sight`, which makes the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

FOLDS: Final = 5
TREES: Final = 200
FEATURES_A_SPLIT: Final = 0.3
"""Most numbers tell nothing: a forest that looks at few of them for a split finds less than there is."""
SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Guesses:
    """How often the forest was right, of `sessions`."""

    sessions: int
    classes: int
    accuracy: float

    @property
    def chance(self) -> float:
        return 1 / self.classes

    @property
    def margin(self) -> float:
        """Half the width of the interval in which the true share lies in 95 of 100 such runs."""
        return 1.96 * math.sqrt(max(self.accuracy * (1 - self.accuracy), 1e-4) / self.sessions)

    def as_json(self) -> dict[str, Any]:
        return {
            "accuracy": round(self.accuracy, 4),
            "margin": round(self.margin, 4),
            "chance": round(self.chance, 4),
            "sessions": self.sessions,
        }


def guess(rows: list[list[float]], labels: list[int]) -> Guesses:
    """Cross-validated accuracy. Raises ValueError where a class has fewer sessions than there are folds."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    forest = RandomForestClassifier(
        n_estimators=TREES, max_features=FEATURES_A_SPLIT, random_state=SEED, n_jobs=-1
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    said = cross_val_predict(forest, rows, labels, cv=folds)
    right = sum(int(one) == label for one, label in zip(said, labels, strict=True))
    return Guesses(len(labels), len(set(labels)), right / len(labels))
