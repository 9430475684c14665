"""What was had together: in one basket, or by one user."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.events import as_of
from recsys_spark.data.kinds.rules import is_blank

Together = Literal["basket", "user"]


def baskets(events: DataFrame, *, run_date: date, days: int, together: Together) -> DataFrame:
    """One row per basket and item: (basket bigint, item_id).

    A basket is what a user had under one basket_id of a source, or on one day where there is none; with
    "user" it is all that a user had. Of the last `days` days up to the run date; `events` are those that
    speak for their item. basket is a hash: of a billion baskets two become one with a chance of 3 %.
    """
    since = F.lit(run_date - timedelta(days=days))
    keys = [F.col("user_id")]
    if together == "basket":
        # The last one keeps a day apart from a basket_id that looks like it.
        day = F.col("event_date").cast("string")
        unnamed = is_blank("basket_id")
        keys += [F.when(unnamed, day).otherwise(F.col("basket_id")), unnamed]
        keys.append(F.when(~unnamed, F.col("source")))
    recent = as_of(events, run_date).where(F.col("event_date") > since)
    return recent.select(F.xxhash64(*keys).alias("basket"), "item_id").distinct()
