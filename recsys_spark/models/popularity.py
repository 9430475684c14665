"""How many users had, or first tried, each item lately: the prior, and the last resort."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.events import as_of


def popularity(events: DataFrame, *, run_date: date, window_days: int, reference_days: int) -> DataFrame:
    """One row per item with an event: (item_id, users, new_users, is_reference).

    `events` are those that speak for their item. users = distinct users in the last `window_days` days
    up to the run date; new_users = those of them whose first event with the item lies in these days;
    is_reference marks items with an event in the last `reference_days` days, over which scores are
    standardised.
    """
    window = F.lit(run_date - timedelta(days=window_days))
    reference = F.lit(run_date - timedelta(days=reference_days))
    pairs = (
        as_of(events, run_date)
        .groupBy("item_id", "user_id")
        .agg(F.min("event_date").alias("first"), F.max("event_date").alias("last"))
    )
    return pairs.groupBy("item_id").agg(
        F.count(F.when(F.col("last") > window, 1)).alias("users"),
        F.count(F.when(F.col("first") > window, 1)).alias("new_users"),
        F.max(F.col("last") > reference).alias("is_reference"),
    )
