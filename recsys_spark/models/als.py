"""Matrix factorization of implicit feedback by Spark MLlib (Hu, Koren, Volinsky 2008)."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Als
from recsys_spark.data.ids import dense_index


@dataclass(frozen=True)
class Factors:
    """users: (user_index, user_id, factors); items: (item_index, item_id, factors), float32 arrays."""

    users: DataFrame
    items: DataFrame


def fit_als(preferences: DataFrame, settings: Als) -> Factors:
    """Factors for every user and item with a preference.

    `preferences` holds unique (user_id, item_id, strength > 0). Indexes are the rank of the sorted
    ids, and MLlib's input is ordered by them, because its float sums follow the order of its input.
    Confidence is 1 + alpha * strength; the penalty is scaled by each row's number of pairs.
    """
    users = dense_index(preferences, id_column="user_id", index_column="user_index")
    items = dense_index(preferences, id_column="item_id", index_column="item_index")
    indexed = (
        preferences.join(users, on="user_id", how="inner")
        .join(items, on="item_id", how="inner")
        .select("user_index", "item_index", F.col("strength").cast("float").alias("strength"))
        .repartitionByRange(settings.user_blocks, "user_index")
        .sortWithinPartitions("user_index", "item_index")
    )
    model = _estimator(settings).fit(indexed)
    return Factors(
        users=_named(model.userFactors, users, index_column="user_index", id_column="user_id"),
        items=_named(model.itemFactors, items, index_column="item_index", id_column="item_id"),
    )


def _estimator(settings: Als) -> ALS:
    return ALS(
        userCol="user_index",
        itemCol="item_index",
        ratingCol="strength",
        implicitPrefs=True,
        rank=settings.rank,
        maxIter=settings.iterations,
        regParam=settings.regularization,
        alpha=settings.alpha,
        numUserBlocks=settings.user_blocks,
        numItemBlocks=settings.item_blocks,
        checkpointInterval=settings.checkpoint_interval,
        seed=settings.seed,
        coldStartStrategy="nan",
    )


def _named(factors: DataFrame, ids: DataFrame, *, index_column: str, id_column: str) -> DataFrame:
    indexed = factors.select(F.col("id").alias(index_column), F.col("features").alias("factors"))
    return indexed.join(ids, on=index_column, how="inner").select(index_column, id_column, "factors")
