"""Splits by time, in UTC: what a model may learn from, and what it is judged on.

Events have columns source, event_id, user_id, item_id and event_at (a timestamp).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F


def time_split(interactions: DataFrame, *, cutoff: date, window_days: int) -> tuple[DataFrame, DataFrame]:
    """The events up to the end of the day `cutoff`, and those of the `window_days` days that follow.

    Days are UTC days whatever the session's time zone: the event at midnight that ends `cutoff` is the
    first of the second frame. Events after the window, or without a time, are in neither.

    Raises ValueError if the window has no day.
    """
    if window_days < 1:
        raise ValueError(f"window_days: got {window_days}, expected at least 1")
    opens = cutoff + timedelta(days=1)
    closes = opens + timedelta(days=window_days)
    at = F.col("event_at")
    before = interactions.where(at < midnight(opens))
    after = interactions.where((at >= midnight(opens)) & (at < midnight(closes)))
    return before, after


def midnight(day: date) -> Column:
    """The instant at which `day` begins in UTC, as a timestamp column."""
    # A literal with a zone is an instant; a string or a naive datetime would be read in the session's.
    return F.lit(datetime.combine(day, time.min, tzinfo=UTC))


def relevant_pairs(after: DataFrame, before_pairs: DataFrame, *, repeats_allowed: bool) -> DataFrame:
    """One row is an item that was right for a user in the window: (user_id, item_id), distinct.

    Where repeats are not allowed (the task new_items_only) pairs known from `before_pairs` (user_id,
    item_id) are left out: a model may not show them, so it must not be judged by them.
    """
    pairs = after.select("user_id", "item_id").distinct()
    if repeats_allowed:
        return pairs
    return pairs.join(before_pairs, on=["user_id", "item_id"], how="left_anti")


def drawn(events: DataFrame, at_most: int, *, purpose: str) -> DataFrame:
    """(user_id): `at_most` users of the events, or all.

    Which ones depends on nothing but their ids and the purpose: those who teach the weights are not, as a
    rule, those who judge them.
    """
    users = events.select("user_id").distinct()
    return users.orderBy(F.xxhash64(F.lit(purpose), "user_id"), "user_id").limit(at_most)


def leave_last_one(interactions: DataFrame) -> tuple[DataFrame, DataFrame]:
    """All events but each user's last, and the last event of each user: (train, test).

    Last by event_at, then by event_id and source. A user's only event is a test event. Unlike `time_split`
    this lets a model learn from other users' later events; it is for comparison with published figures.
    """
    newest_first = Window.partitionBy("user_id").orderBy(
        F.desc("event_at"), F.desc("event_id"), F.desc("source")
    )
    numbered = interactions.withColumn("_from_last", F.row_number().over(newest_first))
    train = numbered.where(F.col("_from_last") > 1).drop("_from_last")
    test = numbered.where(F.col("_from_last") == 1).drop("_from_last")
    return train, test
