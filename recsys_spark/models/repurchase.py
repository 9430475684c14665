"""How overdue a user is with what they buy again: an item left alone for long is one given up.

A user's interval for an item is the mean number of days between their purchases of it, shrunk to the usual
one, the median of all such means. As long as the interval is not over nothing changes: on the demo's
validation windows waiting for the next purchase to fall due only lost. After it history fades.
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import History
from recsys_spark.data.events import PAIR, as_of
from recsys_spark.lake.kept import kept

SHRINKAGE = 1.0  # the usual interval counts as so many of the user's own


def with_fade(preferences: DataFrame, *, events: DataFrame, run_date: date, settings: History) -> DataFrame:
    """The preferences with `fade`, what is left of each pair's history, in (0, 1]; as they are where off.

    `events` are those that speak for their item. Computed once, since the usual interval is a figure of all
    pairs: a pass over the events.
    """
    if settings.overdue_half_life == 0:
        return preferences
    bought = kept(purchase_days(events, run_date))
    left = fades(bought, overdue_half_life=settings.overdue_half_life)
    joined = preferences.join(left, on=list(PAIR), how="left")
    return joined.withColumn("fade", F.coalesce("fade", F.lit(1.0)))


def purchase_days(events: DataFrame, run_date: date) -> DataFrame:
    """(user_id, item_id, times, span, age): days with a purchase, from the first to the last, and since then.

    Two purchases on one day are one: a receipt may hold several lines of a product.
    """
    days = as_of(events, run_date).select(*PAIR, "event_date").distinct()
    return days.groupBy(*PAIR).agg(
        F.count(F.lit(1)).alias("times"),
        F.datediff(F.max("event_date"), F.min("event_date")).alias("span"),
        F.datediff(F.lit(run_date), F.max("event_date")).alias("age"),
    )


def fades(bought: DataFrame, *, overdue_half_life: float) -> DataFrame:
    """(user_id, item_id, fade): 0.5^(intervals overdue / half-life), 1 before the interval is over.

    An interval is one day at least. Where nobody has bought anything again no interval is known, and
    nothing fades.
    """
    again = bought.where(F.col("times") > 1)
    usual = again.agg(F.median(F.col("span") / (F.col("times") - 1)).alias("usual"))
    interval = (F.col("span") + F.lit(SHRINKAGE) * F.col("usual")) / (F.col("times") - 1 + F.lit(SHRINKAGE))
    overdue = F.greatest(F.col("age") / F.greatest(interval, F.lit(1.0)) - 1, F.lit(0.0))
    fade = F.pow(F.lit(0.5), overdue / F.lit(overdue_half_life))
    return bought.crossJoin(F.broadcast(usual)).select(
        *PAIR, F.when(F.col("usual").isNull(), F.lit(1.0)).otherwise(fade).alias("fade")
    )
