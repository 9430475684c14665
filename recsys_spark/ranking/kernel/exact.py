"""The definition of a score: float64, one term after the other in ascending order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.ranking.kernel.parts import Csr, Floats
from recsys_spark.ranking.kernel.shards import PlacedUsers, Shard
from recsys_spark.runtime.compiled import compiled, frozen

LOOPS = "recsys_spark.ranking.kernel.loops"
PAIRS_AT_ONCE = 1 << 16  # bounds the gathered item rows: 64 MB at 128 dimensions of float64

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


def part_scores(shard: Shard, users: PlacedUsers, rows: Ints, places: Ints) -> PartScores:
    """The parts' scores of the pairs (rows[p], places[p]), all of this shard."""
    local = places - shard.first
    return PartScores(
        dense=dense_scores(shard, users, rows, local, slice(0, shard.dense.shape[1])),
        sparse=sparse_scores(shard.sparse, users.sparse, rows, local),
        additive=looked_up(users.additive, rows, places),
    )


def dense_scores(shard: Shard, users: PlacedUsers, rows: Ints, local: Ints, dimensions: slice) -> Floats:
    """Sum over the dimensions, ascending, of user · item for each pair, float64 [P].

    shard: that holds the items.
    users: their dense part.
    rows: [P], the user of each pair.
    local: [P], the item's place within the shard.
    dimensions: which of them are summed.
    """
    total = np.zeros(rows.size)
    for start in range(0, rows.size, PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        user_rows = users.dense[rows[part], dimensions]
        item_rows = shard.dense[local[part], dimensions]
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
    at, is_stored = _sought(matrix, rows, columns)
    return np.where(is_stored, matrix.values[at], 0.0)


def holds(matrix: Csr | None, rows: Ints, columns: Ints) -> NDArray[np.bool_]:
    """Whether (rows[p], columns[p]) is stored. Rows must be sorted by column."""
    if matrix is None or matrix.indices.size == 0:
        return np.zeros(rows.size, np.bool_)
    return _sought(matrix, rows, columns)[1]


def _sought(matrix: Csr, rows: Ints, columns: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Where each pair is stored, and whether it is."""
    loops = compiled(LOOPS)
    if loops is None:
        return _sought_plain(matrix, rows, columns)
    at = loops.sought(
        frozen(matrix.indptr, np.int64),
        frozen(matrix.indices, np.int32),
        frozen(rows, np.int64),
        frozen(columns, np.int64),
    )
    return np.maximum(at, 0), at >= 0


def _sought_plain(matrix: Csr, rows: Ints, columns: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    low, high = matrix.indptr[rows].copy(), matrix.indptr[rows + 1].copy()
    end = high.copy()
    last = matrix.indices.size - 1
    while np.any(low < high):  # all the bisections side by side
        middle = (low + high) // 2
        below = (low < high) & (matrix.indices[np.minimum(middle, last)] < columns)
        low, high = np.where(below, middle + 1, low), np.where(below, high, np.minimum(high, middle))
    at = np.minimum(low, last)
    return at, (low < end) & (matrix.indices[at] == columns)


def allowed(shard: Shard, group: NDArray[np.int32] | None, rows: Ints, local: Ints) -> NDArray[np.bool_]:
    """Whether the users' groups may get the items of the pairs (rows[p], local[p])."""
    if shard.allowed is None or group is None:
        return np.ones(rows.size, np.bool_)
    return (shard.allowed[group[rows], local >> 3] >> (local & 7).astype(np.uint8)) & 1 != 0
