"""The same per-user figures, apart for users of short and of long history."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.evaluation.metrics import DEFAULT_BY, order_free_mean

# By the number of items that a user had before: a bin reaches from its first number to the next one's.
BINS = ((0, "0"), (1, "1-9"), (10, "10-99"), (100, "100-499"), (500, "500+"))


def history_bin(items: Column) -> Column:
    """The bin of a number of items; null counts as none."""
    name = F.lit(BINS[0][1])
    for least, text in BINS[1:]:
        name = F.when(items >= least, F.lit(text)).otherwise(name)
    return name


def by_history(
    scores: DataFrame, pairs: DataFrame, *, metric: str, by: Sequence[str] = DEFAULT_BY
) -> DataFrame:
    """One row is one group's mean over the users of one bin: (*by, history, value double, users long).

    `scores` is what `metrics.user_scores` gives; users without relevant items do not count. `pairs`
    (user_id, item_id), distinct, is what users had before.
    """
    had = pairs.groupBy("user_id").agg(F.count(F.lit(1)).alias("had"))
    judged = scores.where(F.col("n") > 0).select(*by, "user_id", F.col(metric).alias("value"))
    return (
        judged.join(had, on="user_id", how="left")
        .groupBy(*by, history_bin(F.col("had")).alias("history"))
        .agg(order_free_mean(F.col("value")).alias("value"), F.count(F.lit(1)).alias("users"))
    )
