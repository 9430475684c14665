"""ALS factors for items that nobody has had yet, from their words.

TF-IDF vectors are reduced by a truncated SVD (Halko, Martinsson, Tropp 2011, with a fixed seed), and a ridge
regression maps the reduced vectors to the factors that ALS gave to the warm items. Each warm item counts by
the square root of its users: the factors of rare items are mostly noise, and those of a few bestsellers are
not what a new item becomes. A regression shrinks, the more so the less the words tell; so the length of what
it predicts is calibrated on warm items that it did not see: a cold item is as long as the median warm one of
the same prediction, times what is configured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.config.sections import ColdItems
from recsys_spark.models.als.loss import rows_of
from recsys_spark.runtime.batches import lists_of
from recsys_spark.runtime.rows import frame_of

OVERSAMPLED, POWERS = 10, 2  # of the SVD: further random directions, and how often they are sharpened
RIDGES = (0.001, 0.01, 0.1, 1.0, 10.0)  # of the mean diagonal; the one that predicts withheld items best
FITTED_ITEMS = (
    100_000  # warm items that the map is fitted on, those of most users: bounds the driver's memory
)
WITHHELD = 5  # every fifth of them is withheld to choose the ridge and the length

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TextMap:
    """basis [V, r]; ridge [r + 1, d], the last row the intercept; length: a factor of all predictions."""

    basis: Floats
    ridge: Floats
    length: float

    def factors(self, words: sparse.csr_matrix) -> Floats:
        """Factors [I, d] of items with these TF-IDF vectors [I, V]."""
        return self.length * (_reduced(words, self.basis) @ self.ridge)


def cold_item_factors(
    factors: DataFrame, *, vectors: DataFrame, preferences: DataFrame, settings: ColdItems
) -> DataFrame:
    """One row (item_id, factors) per item with words that nobody has had; none where nothing can be learned.

    factors: (item_id, factors) of the warm items; vectors: (item_id, terms, weights) of all; preferences:
    (user_id, item_id, strength). An item that people had and did not like (strength 0) is not new: it gets
    no factors. Driver memory: the words, and 24·(dims + 10) bytes for each fitted item.
    """
    spark = factors.sparkSession
    schema = "item_id string, factors array<float>"
    users = preferences.where(F.col("strength") > 0).groupBy("item_id").agg(F.count(F.lit(1)).alias("users"))
    # A word that every item has weighs nothing, and so nothing is learned from it.
    has_words = F.exists("weights", lambda weight: weight > 0)
    known = vectors.where(has_words).select("item_id", "terms", "weights")
    warm = known.join(factors.select("item_id", "factors"), on="item_id", how="inner")
    warm = warm.join(users, on="item_id", how="inner").orderBy(F.desc("users"), "item_id")
    table = _sorted(warm.limit(FITTED_ITEMS).toArrow())
    had = preferences.select("item_id").union(factors.select("item_id"))
    cold = known.join(had, on="item_id", how="left_anti")
    wanted = _sorted(cold.toArrow())
    if table.num_rows < settings.min_items or wanted.num_rows == 0:
        return frame_of(spark, [], schema)
    n_terms = 1 + max(_largest(table), _largest(wanted))
    flat = table.column("factors").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    fitted = fit_text_map(
        _words(table, n_terms),
        flat.reshape(table.num_rows, -1).astype(np.float64),
        table.column("users").to_numpy().astype(np.float64) ** 0.5,
        dims=settings.dims,
        seed=settings.seed,
    )
    given = (settings.length * fitted.factors(_words(wanted, n_terms))).astype(np.float32)
    rows = {"item_id": wanted.column("item_id"), "factors": lists_of(given)}
    return spark.createDataFrame(pa.table(rows), schema)


def fit_text_map(
    words: sparse.csr_matrix, factors: Floats, weights: Floats, *, dims: int, seed: int
) -> TextMap:
    """The map from TF-IDF vectors to ALS factors.

    words: TF-IDF vectors of warm items, sparse [I, V].
    factors: theirs, [I, d].
    weights: how much each item counts, [I].
    dims: r, to how many dimensions the vectors are reduced.
    seed: of the random directions that the reduction begins with.

    Source: the SVD is that of Halko, Martinsson, Tropp, Finding Structure with Randomness (2011).
    """
    basis = truncated_svd(words, dims=dims, seed=seed)
    reduced = _reduced(words, basis)
    withheld = np.arange(len(reduced)) % WITHHELD == WITHHELD - 1
    trials = [_ridge(reduced[~withheld], factors[~withheld], weights[~withheld], ridge) for ridge in RIDGES]
    missed = [
        float((weights[withheld, None] * (factors[withheld] - reduced[withheld] @ trial) ** 2).sum())
        for trial in trials
    ]
    best = int(np.argmin(missed))
    predicted = np.linalg.norm(reduced[withheld] @ trials[best], axis=1)
    true = np.linalg.norm(factors[withheld], axis=1)
    is_predicted = predicted > 1e-12
    length = float(np.median(true[is_predicted] / predicted[is_predicted])) if is_predicted.any() else 1.0
    return TextMap(basis, _ridge(reduced, factors, weights, RIDGES[best]), length)


def truncated_svd(words: sparse.csr_matrix, *, dims: int, seed: int) -> Floats:
    """The leading right singular vectors [V, r], r = dims or fewer; the same for the same words and seed."""
    width = min(dims + OVERSAMPLED, *words.shape)
    directions = np.random.default_rng(seed).standard_normal((words.shape[1], width))
    for _ in range(POWERS):
        directions = np.linalg.qr(words.T @ np.linalg.qr(words @ directions)[0])[0]
    small = np.linalg.qr(words @ directions)[0].T @ words
    _, _, right = np.linalg.svd(np.asarray(small), full_matrices=False)
    return np.ascontiguousarray(right[: min(dims, width)].T)


def _reduced(words: sparse.csr_matrix, basis: Floats) -> Floats:
    """The words in the basis, and a 1 for the intercept."""
    return np.column_stack([words @ basis, np.ones(words.shape[0])])


def _ridge(reduced: Floats, factors: Floats, weights: Floats, ridge: float) -> Floats:
    weighted = reduced * weights[:, None]
    gram = weighted.T @ reduced
    scale = np.trace(gram[:-1, :-1]) / max(len(gram) - 1, 1)
    # Words that say nothing leave the intercept alone, which is then the mean.
    penalty = ridge * (scale if scale > 0 else 1.0) * np.eye(len(gram))
    penalty[-1, -1] = 1e-9 * gram[-1, -1]  # the intercept is not shrunk
    solution: Floats = np.asarray(np.linalg.solve(gram + penalty, weighted.T @ factors), np.float64)
    return solution


def _sorted(table: pa.Table) -> pa.Table:
    return table.take(pc.sort_indices(table.column("item_id"))).combine_chunks()


def _largest(table: pa.Table) -> int:
    return int(table.column("terms").combine_chunks().flatten().to_numpy(zero_copy_only=False).max(initial=0))


def _words(table: pa.Table, n_terms: int) -> sparse.csr_matrix:
    rows = rows_of(*(table.column(name).combine_chunks() for name in ("terms", "weights")))
    return sparse.csr_matrix(
        (rows.values.astype(np.float64), rows.indices, rows.indptr), shape=(table.num_rows, n_terms)
    )
