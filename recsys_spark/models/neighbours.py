"""Nearest rows of a sparse matrix by cosine, exactly, in the driver's threads: item-kNN and user-kNN.

Weights are BM25's (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009) where asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.errors import ConfigError
from recsys_spark.runtime.compiled import compiled

# How soon further events of a pair stop counting, and how much a long row is held back.
BM25_K1, BM25_B = 1.2, 0.75
ROWS_AT_ONCE = 512


def loops() -> ModuleType:
    """The compiled loops; ConfigError where numba is missing."""
    module = compiled("recsys_spark.models.neighbour_loops")
    if module is None:
        raise ConfigError("nearest neighbours need numba. Next: pip install numba")
    return module


def bm25(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each row as a document, its columns as words: idf(column) · c·(k1 + 1) / (c + k1·(1 − b + b·length)).

    length is the row's sum over the mean row's; idf = log(1 + (N − n + 0.5) / (n + 0.5)) is never negative.
    """
    rows, columns = counts.shape
    weighted = counts.astype(np.float64).tocsr(copy=True)
    row = np.repeat(np.arange(rows), np.diff(weighted.indptr))
    in_rows = np.bincount(weighted.indices, minlength=columns)
    idf = np.log1p((rows - in_rows + 0.5) / (in_rows + 0.5))
    lengths = np.bincount(row, weighted.data, minlength=rows)
    used = lengths > 0
    mean = lengths[used].mean() if used.any() else 1.0
    held_back = BM25_K1 * (1.0 - BM25_B + BM25_B * lengths / mean)
    weighted.data = weighted.data * (BM25_K1 + 1.0) / (weighted.data + held_back[row]) * idf[weighted.indices]
    return weighted


def nearest(weights: sparse.csr_matrix, *, k: int, keeps_self: bool) -> sparse.csr_matrix:
    """[R, R]: for each row its k nearest rows with their cosine, by (cosine descending, row ascending).

    `weights` [R, C] has no negative value. A row is its own nearest, with 1, where keeps_self. Rows that
    share no column are no neighbours. Cost: Σ over columns of (rows in it)² multiply-adds.
    """
    return searched(loops().nearest_rows, _unit_rows(weights), keeps_self, k=k)


def searched(
    loop: Callable[..., None], by_row: sparse.csr_matrix, knob: float, *, k: int
) -> sparse.csr_matrix:
    """[R, R]: for each row of by_row [R, C] the at most k rows that a compiled loop finds for it.

    loop(first, the rows' arrays, the columns' arrays, knob, index [n, k], value [n, k]) does so for the n
    rows from the first; index is -1 where it found fewer. All cores work.
    """
    by_column = by_row.tocsc()
    by_column.sort_indices()
    rows = by_row.shape[0]
    index, value = np.empty((rows, k), np.int32), np.empty((rows, k), np.float64)
    arrays = [*_arrays(by_row), *_arrays(by_column)]

    def search(first: int) -> None:
        part = slice(first, min(first + ROWS_AT_ONCE, rows))
        loop(first, *arrays, knob, index[part], value[part])

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        list(threads.map(search, range(0, rows, ROWS_AT_ONCE)))
    row, place = np.nonzero(index >= 0)
    return sparse.csr_matrix((value[row, place], (row, index[row, place])), shape=(rows, rows))


def best_columns(scores: NDArray[np.float64], k: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Index [B, k] (-1 where fewer) and score of each row's best columns, equal scores by column."""
    index, value = np.empty((scores.shape[0], k), np.int32), np.empty((scores.shape[0], k), np.float64)
    loops().best_of_rows(np.ascontiguousarray(scores, np.float64), index, value)
    return index, value


def _unit_rows(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    matrix = weights.astype(np.float64).tocsr(copy=True)
    matrix.sum_duplicates()
    if matrix.data.size and matrix.data.min() < 0:
        raise ValueError("weights: got a negative value, expected none")
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    norms = np.sqrt(np.bincount(row, matrix.data**2, minlength=matrix.shape[0]))
    matrix.data = matrix.data / np.where(norms > 0, norms, 1.0)[row]
    return matrix


def _arrays(
    matrix: sparse.csr_matrix,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data
