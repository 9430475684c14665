"""The compiled inner loops of nearest neighbours and of the baselines' lists (numba).

`models.neighbours` loads them by `runtime.compiled`, which finds them a home where numba can cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def best_of_rows(scores: NDArray[np.float64], index: NDArray[np.int32], value: NDArray[np.float64]) -> None:
    """The best columns of each row by (score descending, column ascending); -inf and NaN are never chosen.

    index [B, k] is -1 where a row has fewer. Columns come in ascending order, so an equal score later on
    never displaces one that is there.
    """
    k = index.shape[1]
    for b in range(scores.shape[0]):
        held = 0
        for i in range(scores.shape[1]):
            s = scores[b, i]
            if not (s > -np.inf) or (held == k and s <= value[b, k - 1]):
                continue
            at = min(held, k - 1)
            while at > 0 and value[b, at - 1] < s:
                value[b, at], index[b, at] = value[b, at - 1], index[b, at - 1]
                at -= 1
            value[b, at], index[b, at] = s, i
            held = min(held + 1, k)
        for place in range(held, k):
            value[b, place], index[b, place] = -np.inf, -1


@njit(inline="always")
def insert(index, value, place, held, other, s):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Put a row among the best of one row, by (s descending, other ascending); how many of its places are
    taken now.

    One that is worse than all of a full row is dropped.

    index: int [n, k], the best rows of each row.
    value: float64 [n, k], their scores.
    place: which row of index and value.
    held: how many of its places are taken.
    other: the row to put there.
    s: its score.
    """
    k = index.shape[1]
    if held == k and (s < value[place, k - 1] or (s == value[place, k - 1] and other > index[place, k - 1])):
        return held
    at = min(held, k - 1)
    while at > 0 and (
        value[place, at - 1] < s or (value[place, at - 1] == s and index[place, at - 1] > other)
    ):
        value[place, at], index[place, at] = value[place, at - 1], index[place, at - 1]
        at -= 1
    value[place, at], index[place, at] = s, other
    return min(held + 1, k)


@njit(cache=True, nogil=True)
def nearest_rows(
    first: int,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float64],
    column_indptr: NDArray[np.int64],
    column_indices: NDArray[np.int32],
    column_data: NDArray[np.float64],
    keeps_self: bool,  # noqa: FBT001 - compiled loops take arguments by position
    index: NDArray[np.int32],
    value: NDArray[np.float64],
) -> None:
    """For the rows first, first + 1, …: the other rows of largest inner product, ties by the lower row.

    The matrix [R, C] comes by rows and by columns, as CSR and CSC, without negative values.

    first: the first row to search for, from 0.
    indptr: int64 [R + 1], where each row's entries begin.
    indices: int32, the column of each entry.
    data: float64, the value of each entry.
    column_indptr: int64 [C + 1], where each column's entries begin.
    column_indices: int32, the row of each of these entries.
    column_data: float64, the value of each of these entries.
    keeps_self: whether a row is a neighbour of itself.
    index: int32 [n, k], written: the nearest rows of n rows, -1 where fewer share a column.
    value: float64 [n, k], written: their inner products, 0 where there are none.
    """
    rows, k = indptr.size - 1, index.shape[1]
    product = np.zeros(rows)
    touched = np.empty(rows, np.int32)
    for place in range(index.shape[0]):
        row, count = first + place, 0
        for p in range(indptr[row], indptr[row + 1]):
            column, weight = indices[p], data[p]
            for q in range(column_indptr[column], column_indptr[column + 1]):
                other = column_indices[q]
                if product[other] == 0.0:
                    touched[count] = other
                    count += 1
                product[other] += weight * column_data[q]
        held = 0
        for t in range(count):
            other = touched[t]
            s = product[other]
            product[other] = 0.0
            if s <= 0.0 or (other == row and not keeps_self):
                continue
            held = insert(index, value, place, held, other, s)
        for rest in range(held, k):
            value[place, rest], index[place, rest] = 0.0, -1
