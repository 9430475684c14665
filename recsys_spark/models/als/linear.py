"""Factors in the place of ALS's whose user side is a plain sum: truncated SVD, and item2vec.

A user's factors are the sum of log1p(strength) times the vector of each item that they had. Of SVD this is
PureSVD (Cremonesi, Koren, Turrin 2010): the user's row, projected on the best `rank` directions. Of item2vec
(Barkan and Koenigstein 2016) vectors have length 1, so the score is, but for the user's own scale, the cosine
with what they had. Anyone with a history has factors; nobody needs to have been there when they were learned.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.ml.feature import Word2Vec
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse
from scipy.sparse.linalg import svds

from recsys_spark.config.sections import Als
from recsys_spark.errors import ConfigError
from recsys_spark.models.als.factors import Factors, IndexedPairs, Iteration, index_pairs
from recsys_spark.models.als.fold_in import fold_in
from recsys_spark.runtime.batches import lists_of
from recsys_spark.runtime.checkpoints import checkpointed

# About 2 GB on the driver with the matrices that are made of them, here and in the baselines.
MAX_PAIRS = 20_000_000
WINDOW = 5
ITERATIONS = 3
MIN_EVENTS = 5  # an item seen less often gets no vector from item2vec

Floats = NDArray[np.float64]


def fit_linear(
    preferences: DataFrame, settings: Als, *, events: Callable[[], DataFrame] | None = None
) -> Factors:
    """Factors of the items with a preference, and of every user, by settings.trainer: "svd" or "item2vec".

    preferences: unique (user_id, item_id, strength > 0). events: what item2vec reads sentences from, columns
    as `item_vectors` wants them. Of what decides neither, only rank and seed count. InputError where there is
    no preference, ConfigError where SVD would have to hold more than MAX_PAIRS pairs on the driver, or where
    item2vec has no events.
    """
    began = time.perf_counter()
    indexed = index_pairs(preferences)
    if settings.trainer == "svd":
        vectors = _svd_vectors(indexed, settings.rank)
    elif events is None:
        raise ConfigError(
            'als.trainer = "item2vec" learns from the order of events, and pairs alone have none. '
            'Next: take "mllib", "cg" or "svd".'
        )
    else:
        vectors = _unit_vectors(item_vectors(events(), size=settings.rank, seed=settings.seed), indexed)
    items = checkpointed(vectors)
    users = fold_in(preferences, items, settings).join(indexed.users, on="user_id", how="inner")
    spent = Iteration(1, math.nan, time.perf_counter() - began)
    return Factors(users.select("user_index", "user_id", "factors"), items, (spent,))


def _svd_vectors(indexed: IndexedPairs, rank: int) -> DataFrame:
    """(item_index, item_id, factors float32): the items' rows of the best directions."""
    if indexed.n_pairs > MAX_PAIRS:
        raise ConfigError(
            f'{indexed.n_pairs:,} pairs of user and item: als.trainer = "svd" is computed on the driver, for '
            f'up to {MAX_PAIRS:,}. Next: als.trainer = "cg".'
        )
    pairs = indexed.pairs.toArrow().sort_by([("user_index", "ascending"), ("item_index", "ascending")])
    user, item, strength = (
        pairs.column(name).to_numpy() for name in ("user_index", "item_index", "strength")
    )
    taste = sparse.csr_matrix(
        (np.log1p(strength.astype(np.float64)), (user, item)), shape=(indexed.n_users, indexed.n_items)
    )
    best = directions(taste, rank)
    factors = np.zeros((indexed.n_items, rank), np.float32)
    factors[:, : len(best)] = best.T
    rows = pa.table(
        {
            "item_index": np.arange(indexed.n_items, dtype=np.int32),
            "factors": lists_of(factors),
        }
    )
    by_index = indexed.items.sparkSession.createDataFrame(rows)
    return by_index.join(indexed.items, on="item_index", how="inner").select(
        "item_index", "item_id", "factors"
    )


def directions(matrix: sparse.csr_matrix, rank: int) -> Floats:
    """[r, I] right singular vectors; r is `rank`, or less where the matrix has no more to give."""
    possible = min(matrix.shape) - 1
    if possible < 1 or matrix.nnz == 0:
        return np.zeros((0, matrix.shape[1]))
    r = min(rank, possible)
    # A fixed start: ARPACK's own is random.
    _, strength, right = svds(matrix, k=r, v0=np.ones(min(matrix.shape)), return_singular_vectors="vh")
    return np.asarray(right[strength > strength.max() * 1e-9])


def item_vectors(events: DataFrame, *, size: int, seed: int) -> pa.Table:
    """(item_id, factors) of the items with MIN_EVENTS events, by Spark MLlib's Word2Vec.

    `events` has event_id, user_id, item_id, event_at and basket_id. A sentence is a basket, in an order
    that the items' ids do not decide; without baskets it is a user's events in the order of time. One
    partition: Word2Vec averages what its partitions learn apart, and the sentences' order must not depend
    on the machine.
    """
    often = events.groupBy("item_id").agg(F.count(F.lit(1)).alias("n")).where(F.col("n") >= MIN_EVENTS)
    if often.isEmpty():
        return pa.table(
            {"item_id": pa.array([], pa.string()), "factors": pa.array([], pa.list_(pa.float64()))}
        )
    order = F.struct("event_at", F.xxhash64("event_id").alias("by_chance"), "event_id", "item_id")
    sentences = (
        events.groupBy("user_id", "basket_id")
        .agg(F.sort_array(F.collect_list(order)).alias("events"))
        .orderBy("user_id", "basket_id")
        .coalesce(1)
        .select(F.col("events.item_id").alias("items"))
        .where(F.size("items") > 1)
    )
    model = Word2Vec(
        vectorSize=size,
        windowSize=WINDOW,
        maxIter=ITERATIONS,
        minCount=MIN_EVENTS,
        numPartitions=1,
        seed=seed,
        inputCol="items",
        outputCol="vector",
    ).fit(sentences)
    vectors = model.getVectors().toPandas()
    return pa.table(
        {
            "item_id": pa.array(vectors["word"], pa.string()),
            "factors": pa.array([vector.toArray() for vector in vectors["vector"]], pa.list_(pa.float64())),
        }
    )


def unit(vectors: Floats) -> Floats:
    """The rows [n, d] at length 1; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def _unit_vectors(vectors: pa.Table, indexed: IndexedPairs) -> DataFrame:
    """(item_index, item_id, factors float32) of the items with a vector and a preference, at length 1."""
    column = vectors.column("factors").combine_chunks()
    rows = np.array(column.flatten()).reshape(len(column), -1)
    made = {"item_id": vectors.column("item_id"), "factors": lists_of(unit(rows).astype(np.float32))}
    named = indexed.items.sparkSession.createDataFrame(pa.table(made))
    return named.join(indexed.items, on="item_id", how="inner").select("item_index", "item_id", "factors")
