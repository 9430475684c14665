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

    `events` are those that speak for their item, and what the preferences are made of. A pass over them finds
    the pairs of several purchase days, which are kept; of all others the preference tells the last day.
    fade = 0.5^(intervals overdue / half-life), 1 before the interval is over; an interval is one day at
    least. Where nobody has bought anything again no interval is known, and nothing fades.
    """
    if settings.overdue_half_life == 0:
        return preferences
    again = kept(bought_again(events, run_date))
    usual = again.agg(F.median(F.col("span") / (F.col("times") - 1)).alias("usual"))
    gaps, span = F.coalesce(F.col("times") - 1, F.lit(0)), F.coalesce("span", F.lit(0))
    interval = (span + F.lit(SHRINKAGE) * F.col("usual")) / (gaps + F.lit(SHRINKAGE))
    age = F.datediff(F.lit(run_date), F.to_date("last_event_at"))
    overdue = F.greatest(age / F.greatest(interval, F.lit(1.0)) - 1, F.lit(0.0))
    fade = F.pow(F.lit(0.5), overdue / F.lit(settings.overdue_half_life))
    is_known = F.col("usual").isNotNull() & (F.col("events") > 0)
    return (
        preferences.repartition("user_id")
        .join(again, on=list(PAIR), how="left")
        .crossJoin(F.broadcast(usual))
        .withColumn("fade", F.when(is_known, fade).otherwise(F.lit(1.0)))
        .drop("times", "span", "usual")
    )


def bought_again(events: DataFrame, run_date: date) -> DataFrame:
    """(user_id, item_id, times, span): pairs of several purchase days, and the days from first to last.

    Two purchases on one day are one: a receipt may hold several lines of a product.
    """
    # Spread by user at once: both groupings then find their rows together, where each would shuffle its own.
    bought = as_of(events, run_date).select(*PAIR, "event_date").repartition("user_id")
    days = bought.distinct().groupBy(*PAIR)
    return days.agg(
        F.count(F.lit(1)).alias("times"),
        F.datediff(F.max("event_date"), F.min("event_date")).alias("span"),
    ).where(F.col("times") > 1)
