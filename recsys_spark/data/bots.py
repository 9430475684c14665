"""Users who do not behave like people: found by stated rules, kept out of all training."""

from __future__ import annotations

from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Bots
from recsys_spark.data import rings
from recsys_spark.data.events import as_of
from recsys_spark.lake.tables import SILVER_EXCLUDED_USERS
from recsys_spark.runtime.broadcasts import broadcast_if_small
from recsys_spark.runtime.checkpoints import checkpointed
from recsys_spark.runtime.rows import frame_of


def excluded_users(interactions: DataFrame, run_date: date, *, bots: Bots) -> DataFrame:
    """One row per user and broken rule: (run_date, user_id, reason, observed, allowed).

    Judged by all events up to the run date, before anything is taken back or collapsed. A limit of 0
    switches its rule off. The rules, of which all but the first need `min_events` events of a user:

    - events_per_day: more than `max_events_per_day` events on any one day.
    - catalogue_share: more than `max_catalogue_share` of all items that anyone had an event with, and at
      least `min_items` different ones (whoever shops long in a small shop has had most of it).
    - same_second_share: more than `max_same_second_share` of the user's acts share their second with
      another act. A receipt is one act: lines of one basket_id and second count once.
    - item_share: more than `max_item_share` of the user's events are with one item.

    Two more judge users of few events by how many are like them: see `rings.ring_members`.
    """
    events = as_of(interactions, run_date)
    breakers = []
    if _judges_alone(bots) and (alone := _judged_alone(events, bots)) is not None:
        breakers.append(alone)
    if rings.is_on(bots):
        breakers.append(rings.ring_members(events, bots=bots))
    if not breakers:
        return frame_of(interactions.sparkSession, [], SILVER_EXCLUDED_USERS.schema)
    rows = reduce(DataFrame.unionByName, breakers)
    return rows.select(F.lit(run_date).alias("run_date"), "user_id", "reason", "observed", "allowed")


def without(events: DataFrame, excluded: DataFrame) -> DataFrame:
    """The events of all other users; few are excluded, so their ids go to every executor."""
    return events.join(F.broadcast(excluded.select("user_id").distinct()), on="user_id", how="left_anti")


def _judges_alone(bots: Bots) -> bool:
    shares = (bots.max_catalogue_share, bots.max_same_second_share, bots.max_item_share)
    return max(bots.max_events_per_day, *shares) > 0


def _judged_alone(events: DataFrame, bots: Bots) -> DataFrame | None:
    """(user_id, reason, observed, allowed) of the rules that look at one user; None where none can apply."""
    # Kept, so that the other rules read events of those only whom they judge: usually very few.
    facts = checkpointed(_per_user(events))
    allowed: dict[str, float] = {"events_per_day": bots.max_events_per_day}
    heavy = facts.where(F.col("events") >= bots.min_events).select("user_id")
    n_heavy = heavy.count()
    heavy = broadcast_if_small(heavy, n_heavy)
    if n_heavy and (bots.max_catalogue_share > 0 or bots.max_item_share > 0):
        facts = facts.join(_per_item(events, heavy, min_items=bots.min_items), on="user_id", how="left")
        allowed |= {"catalogue_share": bots.max_catalogue_share, "item_share": bots.max_item_share}
    if n_heavy and bots.max_same_second_share > 0:
        facts = facts.join(_same_second(events, heavy), on="user_id", how="left")
        allowed["same_second_share"] = bots.max_same_second_share
    rules = [_broken(name, limit) for name, limit in allowed.items() if limit > 0]
    if not rules:  # none but rules of many events, and nobody has as many
        return None
    broken = F.array_compact(F.array(*rules))
    return facts.select("user_id", F.explode(broken).alias("rule")).select("user_id", "rule.*")


def _broken(name: str, limit: float) -> Column:
    """The rule's result where the user breaks it, else null."""
    breach = F.struct(
        F.lit(name).alias("reason"),
        F.col(name).cast("double").alias("observed"),
        F.lit(float(limit)).alias("allowed"),
    )
    return F.when(F.col(name) > F.lit(limit), breach)


def _per_user(events: DataFrame) -> DataFrame:
    per_day = events.groupBy("user_id", "event_date").agg(F.count(F.lit(1)).alias("day"))
    return per_day.groupBy("user_id").agg(F.sum("day").alias("events"), F.max("day").alias("events_per_day"))


def _per_item(events: DataFrame, heavy: DataFrame, *, min_items: int) -> DataFrame:
    """(user_id, catalogue_share, item_share) of the heavy users; the share is null below `min_items`."""
    catalogue = events.agg(F.count_distinct("item_id").alias("catalogue"))
    pairs = (
        events.select("user_id", "item_id")
        .join(heavy, on="user_id", how="left_semi")
        .groupBy("user_id", "item_id")
        .agg(F.count(F.lit(1)).alias("events"))
    )
    per_user = pairs.groupBy("user_id").agg(
        F.count(F.lit(1)).alias("items"),
        (F.max("events") / F.sum("events")).alias("item_share"),
    )
    share = F.when(F.col("items") >= min_items, F.try_divide("items", "catalogue"))
    return per_user.crossJoin(F.broadcast(catalogue)).select(
        "user_id", share.alias("catalogue_share"), "item_share"
    )


def _same_second(events: DataFrame, heavy: DataFrame) -> DataFrame:
    """(user_id, same_second_share) of the heavy users."""
    acts = (
        events.join(heavy, on="user_id", how="left_semi")
        .select(
            "user_id",
            F.date_trunc("second", "event_at").alias("second"),
            F.coalesce(F.concat(F.lit("b"), "basket_id"), F.concat(F.lit("e"), "event_id")).alias("act"),
            "source",
        )
        .distinct()
    )
    per_second = acts.groupBy("user_id", "second").agg(F.count(F.lit(1)).alias("acts"))
    shared = F.sum(F.when(F.col("acts") > 1, F.col("acts")).otherwise(F.lit(0)))
    return per_second.groupBy("user_id").agg((shared / F.sum("acts")).alias("same_second_share"))
