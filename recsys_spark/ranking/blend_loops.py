"""The compiled loop of the blend's scaling (numba). `blend.quadratic_forms` imports it, nothing else may.

No fast-math: a user's deviation must have the same bits whoever is in their batch, and without numba too.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def quadratic_forms(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float64],
    gram_indptr: NDArray[np.int64],
    gram_indices: NDArray[np.int32],
    gram_values: NDArray[np.float64],
    n_terms: int,
) -> NDArray[np.float64]:
    """pᵀ G p for each sparse row p [U, V], float64 [U], summed in the order in which p and G are stored.

    indptr: int64 [U + 1], where the entries of each p begin.
    indices: int32, the term of each entry.
    values: float64, its weight.
    gram_indptr: int64 [V + 1], where the entries of each row of G begin; G is [V, V].
    gram_indices: int32, the column of each entry.
    gram_values: float64, its value.
    n_terms: V.
    """
    totals = np.zeros(indptr.size - 1)
    row = np.zeros(n_terms)
    for u in range(totals.size):
        for at in range(indptr[u], indptr[u + 1]):
            row[indices[at]] = values[at]
        total = 0.0
        for at in range(indptr[u], indptr[u + 1]):
            s = indices[at]
            inner = 0.0
            for n in range(gram_indptr[s], gram_indptr[s + 1]):
                inner += gram_values[n] * row[gram_indices[n]]
            total += values[at] * inner
        totals[u] = total
        for at in range(indptr[u], indptr[u + 1]):
            row[indices[at]] = 0.0
    return totals
