"""Profiles made to push items: too many users who are copies of one another, or who know one item only.

Each by itself looks like a small, honest user; only their number gives them away.
"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Bots
from recsys_spark.runtime.checkpoints import checkpointed

# One-item profiles are a ring where they are more than this share of all users of the item: people who know
# nothing but milk are many, and few of those who buy milk.
_MOST = 0.5
_MARKS = ("items", "mark", "second_mark")


def is_on(bots: Bots) -> bool:
    """Whether any of the rules has a limit."""
    return max(bots.max_identical_profiles, bots.max_one_item_profiles) > 0


def ring_members(events: DataFrame, *, bots: Bots) -> DataFrame:
    """(user_id, reason, observed, allowed): users whose profile is one of too many alike; observed = so many.

    - identical_profiles: more than `max_identical_profiles` users whose whole sets of items and event types
      are the same, of at least `min_profile_items` items.
    - one_item_profiles: more than `max_one_item_profiles` users with at least `min_one_item_events` events,
      all of them with the same one item, and more than half of all users of the item.

    One pass over all events: they are summed by user and item, and that by user. At least one rule is on.
    """
    profiles = checkpointed(_profiles(events))
    members = []
    if bots.max_identical_profiles > 0:
        identical = _identical(profiles, limit=bots.max_identical_profiles, min_items=bots.min_profile_items)
        members.append(_as_rule_breakers(identical, "identical_profiles", bots.max_identical_profiles))
    if bots.max_one_item_profiles > 0:
        lonely = profiles.where((F.col("items") == 1) & (F.col("events") >= bots.min_one_item_events))
        pushing = _of_one_item(lonely, events, limit=bots.max_one_item_profiles)
        members.append(_as_rule_breakers(pushing, "one_item_profiles", bots.max_one_item_profiles))
    return reduce(DataFrame.unionByName, members)


def _as_rule_breakers(members: DataFrame, reason: str, limit: int) -> DataFrame:
    return members.select(
        "user_id",
        F.lit(reason).alias("reason"),
        F.col("alike").cast("double").alias("observed"),
        F.lit(float(limit)).alias("allowed"),
    )


def _profiles(events: DataFrame) -> DataFrame:
    """One row a user: items, events, the first item_id, and two hashes of the set of (item, event types).

    The types of a pair are told by the bits that all, and that any, of their hashes have: the same for any
    number of events in any order, as the sum without carry is for the pairs.
    """
    kind = F.xxhash64("event_type")
    pairs = events.groupBy("user_id", "item_id").agg(
        F.count(F.lit(1)).alias("events"), F.bit_or(kind).alias("any"), F.bit_and(kind).alias("all")
    )
    return pairs.groupBy("user_id").agg(
        F.count(F.lit(1)).alias("items"),
        F.sum("events").alias("events"),
        F.min("item_id").alias("item_id"),
        _set_hash("first").alias("mark"),
        _set_hash("second").alias("second_mark"),
    )


def _set_hash(seed: str) -> Column:
    return F.bit_xor(F.xxhash64(F.lit(seed), "item_id", "any", "all"))


def _identical(profiles: DataFrame, *, limit: int, min_items: int) -> DataFrame:
    """Profiles of which there are more than the limit, and how many are `alike`."""
    judged = profiles.where(F.col("items") >= min_items)
    many = judged.groupBy(*_MARKS).agg(F.count(F.lit(1)).alias("alike")).where(F.col("alike") > limit)
    return judged.join(many, on=list(_MARKS), how="inner")


def _of_one_item(lonely: DataFrame, events: DataFrame, *, limit: int) -> DataFrame:
    """Profiles of one item that are more than the limit, and most of the item's users."""
    many = lonely.groupBy("item_id").agg(F.count(F.lit(1)).alias("alike")).where(F.col("alike") > limit)
    all_users = (
        events.select("user_id", "item_id")
        .join(many, on="item_id", how="left_semi")
        .groupBy("item_id")
        .agg(F.count_distinct("user_id").alias("users"))
    )
    pushed = many.join(all_users, on="item_id", how="inner").where(
        F.col("alike") > F.lit(_MOST) * F.col("users")
    )
    return lonely.join(pushed.select("item_id", "alike"), on="item_id", how="inner")
