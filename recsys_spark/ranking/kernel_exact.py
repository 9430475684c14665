"""The definition of a score, in numpy: float64, one term after the other in ascending order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from recsys_spark.ranking.kernel import Csr, ItemParts, UserParts

PAIRS_AT_ONCE = 1 << 16  # bounds the gathered item rows: 64 MB at 128 dimensions of float64

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class PartScores(NamedTuple):
    """What each part gives to each of P (user, item) pairs, float64 [P]."""

    dense: Floats
    sparse: Floats
    additive: Floats

    @property
    def total(self) -> Floats:
        """THE score: (dense + sparse) + additive."""
        return (self.dense + self.sparse) + self.additive


def part_scores(items: ItemParts, users: UserParts, rows: Ints, columns: Ints) -> PartScores:
    """The parts' scores of the pairs (rows[p], columns[p])."""
    return PartScores(
        dense=dense_scores(items, users, rows, columns, slice(0, items.dense.shape[1])),
        sparse=sparse_scores(items.sparse, users.sparse, rows, columns),
        additive=looked_up(users.additive, rows, columns),
    )


def dense_scores(items: ItemParts, users: UserParts, rows: Ints, columns: Ints, dimensions: slice) -> Floats:
    """Sum over the dimensions, ascending, of user · item for each pair."""
    total = np.zeros(rows.size)
    for start in range(0, rows.size, PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        user_rows = users.dense[rows[part], dimensions]
        item_rows = items.dense[columns[part], dimensions]
        for d in range(user_rows.shape[1]):
            total[part] += user_rows[:, d].astype(np.float64) * item_rows[:, d].astype(np.float64)
    return total


def sparse_scores(item_terms: Csr | None, profiles: Csr | None, rows: Ints, columns: Ints) -> Floats:
    """Sum over the item's terms, ascending, of profile weight · term weight for each pair."""
    total = np.zeros(rows.size)
    if item_terms is None or profiles is None or item_terms.values is None:
        return total
    start = item_terms.indptr[columns]
    length = item_terms.indptr[columns + 1] - start
    for n in range(int(length.max(initial=0))):
        pairs = np.flatnonzero(length > n)
        at = start[pairs] + n
        weight = looked_up(profiles, rows[pairs], item_terms.indices[at].astype(np.int64))
        total[pairs] += weight * item_terms.values[at].astype(np.float64)
    return total


def looked_up(matrix: Csr | None, rows: Ints, columns: Ints) -> Floats:
    """matrix[rows[p], columns[p]], 0 where nothing is stored. Rows must be sorted by column."""
    if matrix is None or matrix.values is None or matrix.indices.size == 0:
        return np.zeros(rows.size)
    low, high = matrix.indptr[rows].copy(), matrix.indptr[rows + 1].copy()
    end = high.copy()
    last = matrix.indices.size - 1
    while np.any(low < high):  # all the bisections side by side
        middle = (low + high) // 2
        below = (low < high) & (matrix.indices[np.minimum(middle, last)] < columns)
        low, high = np.where(below, middle + 1, low), np.where(below, high, np.minimum(high, middle))
    at = np.minimum(low, last)
    found = (low < end) & (matrix.indices[at] == columns)
    return np.where(found, matrix.values[at], 0.0)
