"""Baselines that predict ratings: what is usual for user and item, and Pearson's neighbours around it.

A rating is mu + b_u + b_i plus a rest (Koren, Factor in the neighbors, 2010, sections 2.1 and 2.2):

    mu    the mean of all ratings
    b_i   sum over its users of (r - mu), over (25 + how many)
    b_u   sum over their items of (r - mu - b_i), over (10 + how many)

Two items are alike as the rests of the users who rated both correlate, held back where these are few:
Pearson's correlation times (n - 1) / (n - 1 + 100). The rest of an item is predicted as the mean of the
rests that the user left with its k most alike items, weighted by likeness. Only positive likeness counts.
Users likewise, by their items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.evaluation.baselines.known import Known
from recsys_spark.evaluation.baselines.scored import CELLS_AT_ONCE, Scorer
from recsys_spark.models import neighbours
from recsys_spark.runtime.compiled import compiled

NEIGHBOURS = 100
ITEM_DAMPING, USER_DAMPING = 25.0, 10.0
SHRINKAGE = 100.0


@dataclass(frozen=True)
class Usual:
    """mu, b_u [U] and b_i [I], and what they leave of each rating: rest [U, I], zeros kept."""

    mean: float
    of_user: NDArray[np.float64]
    of_item: NDArray[np.float64]
    rest: sparse.csr_matrix

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """[B, I] mu + b_u + b_i of the users at `rows`."""
        return np.asarray(self.mean + self.of_user[rows][:, None] + self.of_item[None, :])


def usual(known: Known) -> Usual:
    """The biases of the ratings that are known; a user or item without any has none."""
    ratings = known.ratings
    user = np.repeat(np.arange(ratings.shape[0]), np.diff(ratings.indptr))
    mean = float(ratings.data.mean()) if ratings.nnz else 0.0
    rest = ratings.data - mean
    of_item = _damped(ratings.indices, rest, ratings.shape[1], ITEM_DAMPING)
    rest = rest - of_item[ratings.indices]
    of_user = _damped(user, rest, ratings.shape[0], USER_DAMPING)
    left = ratings.copy()
    left.data = rest - of_user[user]
    return Usual(mean, of_user, of_item, left)


def bias(known: Known) -> Scorer:
    """mu + b_u + b_i."""
    return usual(known).of


def item_pearson(known: Known, *, k: int = NEIGHBOURS) -> Scorer:
    """The usual rating, and around it what the user left with the item's k most alike items."""
    biases = usual(known)
    alike = nearest_by_pearson(biases.rest.T.tocsr(), k=k).T.tocsr()
    marks = _marks(biases.rest)

    def score(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return biases.of(rows) + _weighted(biases.rest[rows] @ alike, marks[rows] @ alike)

    return score


def user_pearson(known: Known, *, k: int = NEIGHBOURS) -> Scorer:
    """The usual rating, and around it what the user's k most alike users left with the item."""
    biases = usual(known)
    alike = nearest_by_pearson(biases.rest, k=k)
    marks = _marks(biases.rest)

    def score(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return biases.of(rows) + _weighted(alike[rows] @ biases.rest, alike[rows] @ marks)

    return score


def nearest_by_pearson(rest: sparse.csr_matrix, *, k: int) -> sparse.csr_matrix:
    """[R, R]: for each row its k most alike others, by (likeness descending, row ascending)."""
    neighbours.loops()  # which those of ratings call, and which say what is missing
    loops = compiled("recsys_spark.evaluation.baselines.rated_loops")
    if loops is None:
        raise RuntimeError("numba was there a moment ago")
    return neighbours.searched(loops.most_alike_rows, rest, SHRINKAGE, k=k)


def predicted(
    known: Known, score: Scorer, users: NDArray[np.int64], items: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The score of each pair, given as rows and columns of `known`."""
    scores = np.empty(users.size)
    rows, of = np.unique(users, return_inverse=True)
    step = max(1, CELLS_AT_ONCE // max(len(known.item_ids), 1))
    for start in range(0, rows.size, step):
        inside = (of >= start) & (of < start + step)
        scores[inside] = score(rows[start : start + step])[of[inside] - start, items[inside]]
    return scores


PEARSON = {"item_knn_pearson": item_pearson, "user_knn_pearson": user_pearson}


def predictions(known: Known, pairs: pa.Table, *, low: float, high: float) -> pa.Table:
    """(model, user_id, item_id, predicted): each model's word on each pair (user_id, item_id).

    Cut to the scale from `low` to `high`. Pairs of a user or item that `known` lacks are left out.
    """
    users = pc.index_in(pairs.column("user_id").combine_chunks().cast(pa.string()), value_set=known.user_ids)
    items = pc.index_in(pairs.column("item_id").combine_chunks().cast(pa.string()), value_set=known.item_ids)
    is_known = pc.and_(pc.is_valid(users), pc.is_valid(items))
    rows, columns = (places.filter(is_known).to_numpy().astype(np.int64) for places in (users, items))
    known_pairs = pairs.select(["user_id", "item_id"]).filter(is_known)
    parts = []
    for name, make in {"bias": bias, **PEARSON}.items():
        values = np.clip(predicted(known, make(known), rows, columns), low, high)
        part = known_pairs.add_column(0, "model", pa.repeat(pa.scalar(name), len(rows)))
        parts.append(part.append_column("predicted", pa.array(values)))
    return pa.concat_tables(parts)


def _damped(
    place: NDArray[np.int64], rest: NDArray[np.float64], size: int, damping: float
) -> NDArray[np.float64]:
    return np.bincount(place, rest, minlength=size) / (damping + np.bincount(place, minlength=size))


def _marks(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    marks = matrix.copy()
    marks.data = np.ones_like(marks.data)
    return marks


def _weighted(sums: sparse.csr_matrix, weights: sparse.csr_matrix) -> NDArray[np.float64]:
    total = weights.toarray()
    return np.asarray(sums.toarray() / np.where(total > 0, total, 1.0))
