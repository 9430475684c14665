"""The compiled inner loop of Pearson's neighbours (numba).

Loaded by `rated` through `runtime.compiled`, after `neighbour_loops`: that one then lies where this finds it.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recsys_spark.models.neighbour_loops import insert


@njit(cache=True, nogil=True)
def most_alike_rows(
    first: int,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float64],
    column_indptr: NDArray[np.int64],
    column_indices: NDArray[np.int32],
    column_data: NDArray[np.float64],
    shrinkage: float,
    index: NDArray[np.int32],
    value: NDArray[np.float64],
) -> None:
    """For the rows first, first + 1, …: the other rows of largest correlation, ties by the lower row.

    It is over the n columns that both have, times (n - 1) / (n - 1 + shrinkage); it counts where positive.
    The matrix [R, C] comes twice, by rows and by columns; the result is written into index and value.

    first: the first row to search for, from 0.
    indptr: [R + 1], where each row begins among the entries.
    indices: the column of each entry.
    data: the value of each entry, the rest that a rating leaves, in its unit.
    column_indptr: [C + 1], where each column begins among the entries by column.
    column_indices: the row of each of these entries.
    column_data: the value of each of these entries.
    shrinkage: how strongly a likeness of few common columns is held back, in columns, from 0.
    index: [B, k], written: the rows found for the B rows from `first`, best first; -1 where fewer are alike.
    value: [B, k], written: their likeness, above 0 and at most 1; 0 where fewer are alike.

    Source: Koren, Factor in the neighbors (2010), section 2.2.
    """
    rows, k = indptr.size - 1, index.shape[1]
    product, mine, theirs = np.zeros(rows), np.zeros(rows), np.zeros(rows)
    shared = np.zeros(rows, np.int32)
    touched = np.empty(rows, np.int32)
    for place in range(index.shape[0]):
        row, count = first + place, 0
        for p in range(indptr[row], indptr[row + 1]):
            x = data[p]
            for q in range(column_indptr[indices[p]], column_indptr[indices[p] + 1]):
                other, y = column_indices[q], column_data[q]
                if shared[other] == 0:
                    touched[count] = other
                    count += 1
                shared[other] += 1
                product[other] += x * y
                mine[other] += x * x
                theirs[other] += y * y
        held = 0
        for t in range(count):
            other = touched[t]
            common = shared[other] - 1
            norms = np.sqrt(mine[other] * theirs[other])
            s = product[other] / norms * common / (common + shrinkage) if norms > 0.0 else 0.0
            product[other] = mine[other] = theirs[other] = 0.0
            shared[other] = 0
            if s <= 0.0 or other == row:
                continue
            held = insert(index, value, place, held, other, s)
        for rest in range(held, k):
            value[place, rest], index[place, rest] = 0.0, -1
