"""How many users had, or first tried, each item lately: the prior, and the last resort.

Of everyone, and of groups of users: a small group says little by itself, so its count of an item is

    users(g, i) = own(g, i) + m·share(i)     share(i) = all(i) / N

own are the group's own users of the item in the window, share that of the N users with an event in the
window, m the prior in users (`popularity.group_prior`): as if m average users had joined the group. It ranks
as the posterior mean of the item's share under a beta prior does (Gelman et al., Bayesian Data Analysis, 3rd
ed., section 2.4), and a group of no one ranks as everyone. With a season of weight s each count n becomes
(1 - s)·n + s·a·N/A: a of the A users with an event in the days that lie ahead, as they were a year ago.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Popularity
from recsys_spark.data.events import as_of
from recsys_spark.names import EVERYONE
from recsys_spark.runtime.checkpoints import checkpointed


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


def group_of_user(users: DataFrame, *, by: Sequence[str]) -> DataFrame:
    """(user_id, group): `country=NZ, segment=gold` and the like; null where a column is not given."""
    named = [F.concat(F.lit(f"{name}="), F.col(name)) for name in by]
    is_known = F.lit(True)
    for name in by:
        is_known &= F.col(name).isNotNull()
    return users.select("user_id", F.when(is_known, F.concat_ws(", ", *named)).alias("group"))


def group_popularity(
    events: DataFrame, *, run_date: date, settings: Popularity, groups: DataFrame
) -> DataFrame:
    """(group, item_id, users): what counts for the item's popularity in the group; see the formula above.

    `events` are those that speak for their item; groups (user_id, group). Rows of the max_groups groups with
    most users in the window, ties by name, one for each item that anyone had in the window or the season; and
    of `everyone` where the season is mixed in, which takes a first event at least a year before the run date.
    """
    acts = checkpointed(_acts(as_of(events, run_date), run_date, settings))
    totals = F.broadcast(_totals(as_of(events, run_date), acts, run_date, settings))
    counted = [_counts(acts.withColumn("group", F.lit(EVERYONE)))]
    if settings.by:
        grouped = acts.join(groups.where(F.col("group").isNotNull()), on="user_id", how="inner")
        largest = F.broadcast(_largest(grouped, settings.max_groups))
        counted.append(_counts(grouped.join(largest, on="group", how="left_semi")))
    own = [rows.crossJoin(totals).withColumn("users", _mixed()) for rows in counted]
    everyone = own[0].where("users > 0")
    seasonal = everyone.where("season > 0").select("group", "item_id", "users")
    if not settings.by:
        return seasonal
    own_users = F.coalesce("users", F.lit(0.0))
    share = everyone.select("item_id", F.try_divide("users", "recent_users").alias("share"))
    shrunk = (
        share.crossJoin(largest.select("group"))
        .join(own[1].select("group", "item_id", "users"), on=["group", "item_id"], how="left")
        .select("group", "item_id", (own_users + F.lit(settings.group_prior) * F.col("share")).alias("users"))
    )
    return seasonal.unionByName(shrunk)


def ahead(run_date: date, days: int) -> tuple[date, date]:
    """The first and the last of the days after the run date, as they were a year ago."""
    is_leap_day = (run_date.month, run_date.day) == (2, 29)
    year_ago = run_date.replace(year=run_date.year - 1, day=28 if is_leap_day else run_date.day)
    return year_ago + timedelta(days=1), year_ago + timedelta(days=days)


def _acts(events: DataFrame, run_date: date, settings: Popularity) -> DataFrame:
    """(user_id, item_id, is_recent, is_ahead): pairs with an event in the window or in the season."""
    first, last = ahead(run_date, settings.season_days)
    is_recent = F.col("event_date") > F.lit(run_date - timedelta(days=settings.window_days))
    is_ahead = F.col("event_date").between(first, last)
    return (
        events.where(is_recent | is_ahead)
        .groupBy("user_id", "item_id")
        .agg(F.max(is_recent).alias("is_recent"), F.max(is_ahead).alias("is_ahead"))
    )


def _totals(events: DataFrame, acts: DataFrame, run_date: date, settings: Popularity) -> DataFrame:
    """One row (recent_users, ahead_users, season): N, A, and s, which is 0 before there is a year."""
    users = acts.groupBy("user_id").agg(
        F.max("is_recent").alias("is_recent"), F.max("is_ahead").alias("is_ahead")
    )
    counts = users.agg(
        F.count_if("is_recent").alias("recent_users"), F.count_if("is_ahead").alias("ahead_users")
    )
    begun = events.agg(F.min("event_date").alias("begun"))
    first, _ = ahead(run_date, settings.season_days)
    has_year = (F.col("begun") < F.lit(first)) & (F.col("ahead_users") > 0)
    season = F.when(has_year, F.lit(settings.season_weight)).otherwise(F.lit(0.0))
    return counts.crossJoin(begun).select("recent_users", "ahead_users", season.alias("season"))


def _largest(acts: DataFrame, at_most: int) -> DataFrame:
    """(group, members) of the groups of most users in the window."""
    recent = acts.where("is_recent").groupBy("group").agg(F.count_distinct("user_id").alias("members"))
    return recent.orderBy(F.desc("members"), "group").limit(at_most)


def _counts(acts: DataFrame) -> DataFrame:
    return acts.groupBy("group", "item_id").agg(
        F.count_if("is_recent").alias("recent"), F.count_if("is_ahead").alias("ahead")
    )


def _mixed() -> Column:
    """(1 - s)·n + s·a·N/A."""
    season, n, a = F.col("season"), F.col("recent"), F.col("ahead")
    scale = F.coalesce(F.try_divide("recent_users", "ahead_users"), F.lit(0.0))
    return (F.lit(1.0) - season) * n + season * a * scale
