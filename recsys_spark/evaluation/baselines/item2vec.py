"""item2vec (Barkan and Koenigstein 2016): items as words, baskets as sentences, by Spark MLlib's Word2Vec."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.ml.feature import Word2Vec
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.evaluation.baselines.known import Known, dense_rows
from recsys_spark.evaluation.baselines.scored import Scorer

SIZE = 48
WINDOW = 5
ITERATIONS = 3
MIN_EVENTS = 5  # an item seen less often gets no vector, and so no place


def item_vectors(events: DataFrame, *, seed: int) -> pa.Table:
    """(item_id, factors) of the items with MIN_EVENTS events.

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
        vectorSize=SIZE,
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


def item2vec(known: Known, vectors: pa.Table) -> Scorer:
    """Cosine of the item with the sum of the user's items' unit vectors, each weighed by taste."""
    unit = _unit(dense_rows(vectors, id_column="item_id", ids=known.item_ids))
    unknown = np.flatnonzero(~unit.any(axis=1))
    taste = known.taste

    def score(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        scores = _unit(taste[rows] @ unit) @ unit.T
        scores[:, unknown] = -np.inf
        return scores

    return score


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
