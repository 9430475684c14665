"""How strongly each user has shown to like each item, as of a date."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F


def as_of(interactions: DataFrame, run_date: date) -> DataFrame:
    """Events before the end of the run date (UTC): the only way a night may see events."""
    return interactions.where(F.col("event_date") <= F.lit(run_date)).where(
        F.col("event_at") < F.lit((run_date + timedelta(days=1)).isoformat()).cast("timestamp")
    )


def valid_on(versions: DataFrame, run_date: date) -> DataFrame:
    """The versions of items, users or audiences that hold on the date."""
    day = F.lit(run_date)
    return versions.where((F.col("valid_from") <= day) & (day < F.col("valid_to")))


def decayed(weight: Column, *, event_date: str, run_date: date, half_life_days: float) -> Column:
    """The weight, halved for every half-life between the event and the run date."""
    age_days = F.datediff(F.lit(run_date), F.col(event_date))
    return weight * F.pow(F.lit(0.5), age_days / F.lit(half_life_days))


def event_weight(event_weights: Mapping[str, float]) -> Column:
    """The configured weight of the row's event type; 0 for a type without one."""
    weight = F.lit(0.0)
    for event_type, value in event_weights.items():
        weight = F.when(F.col("event_type") == event_type, F.lit(float(value))).otherwise(weight)
    return weight


def preferences(
    interactions: DataFrame,
    *,
    run_date: date,
    event_weights: Mapping[str, float],
    half_life_days: float,
    cap: float,
) -> DataFrame:
    """One row per (user_id, item_id) with an event up to the run date.

    strength = sum of weight(event type) * 0.5^(age / half-life), at most `cap`. The sum is over the
    events in a fixed order, so that its last bit does not depend on partitioning.
    """
    weight = event_weight(event_weights)
    per_event = as_of(interactions, run_date).select(
        "user_id",
        "item_id",
        "event_at",
        decayed(weight, event_date="event_date", run_date=run_date, half_life_days=half_life_days).alias(
            "weight"
        ),
    )
    grouped = per_event.groupBy("user_id", "item_id").agg(
        F.sort_array(F.collect_list("weight")).alias("weights"),
        F.count(F.lit(1)).alias("events"),
        F.max("event_at").alias("last_event_at"),
    )
    return grouped.select(
        F.lit(run_date).alias("run_date"),
        "user_id",
        "item_id",
        F.least(_total("weights"), F.lit(float(cap))).alias("strength"),
        "events",
        "last_event_at",
    ).where(F.col("strength") > 0)


def _total(name: str) -> Column:
    return F.aggregate(name, F.lit(0.0), lambda total, value: total + value)
