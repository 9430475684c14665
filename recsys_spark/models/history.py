"""How overdue a user is with what they buy again: an item left alone for long is one given up.

A user's interval for an item is the mean number of days between their purchases of it, shrunk to the usual
one, the median of all such means. As long as the interval is not over nothing changes: on the demo's
validation windows waiting for the next purchase to fall due only lost. After it history fades.
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import History

SHRINKAGE = 1.0  # the usual interval counts as so many of the user's own


def with_fade(
    preferences: DataFrame, *, run_date: date, settings: History, known: DataFrame | None = None
) -> DataFrame:
    """The preferences with `fade`, what is left of each pair's history, in (0, 1]; as they are where off.

    known: everyone's preferences, where `preferences` are those of some users; a pass over them finds the
    usual interval. fade = 0.5^(intervals overdue / half-life), 1 before the interval is over; an interval is
    one day at least. Where nobody has bought anything again no interval is known, and nothing fades.
    """
    if settings.overdue_half_life == 0:
        return preferences
    usual = usual_interval(preferences if known is None else known)
    if usual is None:
        return preferences.withColumn("fade", F.lit(1.0))
    # Preferences of an earlier version have no days: each pair then goes by the usual interval.
    gaps = F.greatest(F.coalesce("active_days", F.lit(1)) - 1, F.lit(0))
    interval = (F.coalesce("span_days", F.lit(0)) + F.lit(SHRINKAGE * usual)) / (gaps + F.lit(SHRINKAGE))
    age = F.datediff(F.lit(run_date), F.to_date("last_event_at"))
    overdue = F.greatest(age / F.greatest(interval, F.lit(1.0)) - 1, F.lit(0.0))
    fade = F.pow(F.lit(0.5), overdue / F.lit(settings.overdue_half_life))
    return preferences.withColumn("fade", F.when(F.col("events") > 0, fade).otherwise(F.lit(1.0)))


def usual_interval(preferences: DataFrame) -> float | None:
    """The median over pairs of several purchase days of the mean days between them; None without such a pair.

    Two purchases on one day are one: a receipt may hold several lines of a product.
    """
    again = preferences.where(F.col("active_days") > 1)
    [row] = again.agg(F.median(F.col("span_days") / (F.col("active_days") - 1))).collect()
    return None if row[0] is None else float(row[0])
