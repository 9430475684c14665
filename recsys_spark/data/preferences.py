"""How strongly each user has shown to like each item, as of a date."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Preferences, Ratings
from recsys_spark.data.events import PAIR, as_of

# What a preference is made of.
_EVENT = ("user_id", "item_id", "event_type", "event_at", "event_date", "value")
# Sums are of whole numbers, so that no order of events changes the last bit, and faster than of decimals. In
# these units a pair may sum to half a million, and one event counts for a quarter of a million at most.
_UNIT = 2.0**-44
_MOST = 2.0**18
# Distinct days are bits of six whole numbers: a second grouping, by day, would cost half of the time again.
_DAYS_OF_A_WORD = 64
_WORDS = 6
COUNTED_DAYS = _WORDS * _DAYS_OF_A_WORD


def valid_on(versions: DataFrame, run_date: date) -> DataFrame:
    """The versions of items, users or audiences that hold on the date."""
    day = F.lit(run_date)
    return versions.where((F.col("valid_from") <= day) & (day < F.col("valid_to")))


def decayed(weight: Column, *, event_date: str, run_date: date, half_life_days: float) -> Column:
    """The weight, halved for every half-life between the event and the run date."""
    age_days = F.datediff(F.lit(run_date), F.col(event_date))
    return weight * F.pow(F.lit(0.5), age_days / F.lit(half_life_days))


def event_weight(settings: Preferences) -> Column:
    """The configured weight of the row's event, before decay; 0 for one that shows no liking.

    A rating, where ratings are on, weighs its type's weight times its place between neutral (0) and the
    scale's end (1); beyond the scale it counts as its end.
    """
    weight = F.lit(0.0)
    for event_type, value in settings.event_weights.items():
        if event_type not in settings.negative:
            weight = F.when(F.col("event_type") == event_type, F.lit(float(value))).otherwise(weight)
    ratings = settings.ratings
    if not ratings.event_type:
        return weight
    above = (_clipped(ratings) - F.lit(ratings.neutral)) / F.lit(ratings.max - ratings.neutral)
    share = F.greatest(F.coalesce(above, F.lit(0.0)), F.lit(0.0))
    return F.when(_is_rating(ratings), weight * share).otherwise(weight)


def liked(events: DataFrame, settings: Preferences) -> DataFrame:
    """The events that speak for their item: what popularity counts and a judge calls relevant."""
    return events.where(event_weight(settings) > 0)


def negative_outcomes(outcomes: DataFrame, run_date: date, *, negative: Iterable[str]) -> DataFrame:
    """Outcomes of these types with an item, up to the run date, as events without a value."""
    negatives = as_of(outcomes, run_date).where(F.col("outcome_type").isin(*negative))
    return negatives.where(F.col("item_id").isNotNull()).select(
        *PAIR,
        F.col("outcome_type").alias("event_type"),
        "event_at",
        "event_date",
        F.lit(None).cast("double").alias("value"),
    )


def preferences(
    events: DataFrame, *, run_date: date, settings: Preferences, outcomes: DataFrame | None = None
) -> DataFrame:
    """One row per (user_id, item_id) that a user has shown to like, or that must not be recommended.

    `events` are effective events. strength = sum of weight * 0.5^(age / half-life), less the same of
    events that lower, from 0 to `cap`. Strength is 0 (known, but nothing to train on) where lowering ate it
    up, where the pair is excluded, and for users and items of fewer events than configured. `events` counts
    those that speak for the item; `active_days` the days with such an event, of the last COUNTED_DAYS, and
    `span_days` those from the first of them to the last. `rating` is the latest, where ratings are on.
    """
    evidence = events.select(*_EVENT)
    if outcomes is not None and settings.negative:
        evidence = evidence.unionByName(negative_outcomes(outcomes, run_date, negative=settings.negative))
    pairs = _summed(evidence, run_date, settings)
    return _with_enough_events(pairs, settings).select(
        F.lit(run_date).alias("run_date"),
        *PAIR,
        "strength",
        "events",
        "last_event_at",
        "rating",
        "is_excluded",
        "active_days",
        "span_days",
    )


def _summed(events: DataFrame, run_date: date, settings: Preferences) -> DataFrame:
    """One row per pair with a liked or an excluding event."""
    ratings = settings.ratings
    decay = decayed(
        F.lit(1.0), event_date="event_date", run_date=run_date, half_life_days=settings.half_life_days
    )
    weighed = events.select(
        *PAIR,
        "event_at",
        F.datediff(F.lit(run_date), F.col("event_date")).alias("age"),
        event_weight(settings).alias("weight"),
        _does(settings, "exclude").alias("excludes"),
        _does(settings, "lower").alias("lowers"),
        decay.alias("decay"),
        (F.when(_is_rating(ratings), F.col("value")) if ratings.event_type else F.lit(None).cast("double"))
        .cast("double")
        .alias("rating"),
    )
    is_liked = F.col("weight") > 0
    is_counted = is_liked & (F.col("age") < F.lit(COUNTED_DAYS))
    age, words = F.when(is_counted, F.col("age")), [f"_days_{word}" for word in range(_WORDS)]
    signed = (
        F.when(is_liked, F.greatest(F.col("weight") * F.col("decay"), F.lit(_UNIT)))
        .when(F.col("lowers"), F.lit(-settings.lower_weight) * F.col("decay"))
        .otherwise(F.lit(0.0))
    )
    pairs = weighed.groupBy(*PAIR).agg(
        # Null only where a pair overflowed, and so any cap.
        F.coalesce(F.try_sum(_units(signed)) * F.lit(_UNIT), F.lit(settings.cap)).alias("total"),
        F.count(F.when(is_liked, F.lit(1))).alias("events"),
        F.max(F.when(is_liked | F.col("excludes"), F.col("event_at"))).alias("last_event_at"),
        F.max("rating").alias("rating"),
        F.max("excludes").alias("is_excluded"),
        F.coalesce(F.max(age) - F.min(age), F.lit(0)).alias("span_days"),
        *[_days(age, word).alias(name) for word, name in enumerate(words)],
    )
    strength = F.least(F.greatest("total", F.lit(0.0)), F.lit(settings.cap))
    active = reduce(Column.__add__, [F.bit_count(name) for name in words])
    return (
        pairs.where((F.col("events") > 0) | F.col("is_excluded"))
        .withColumn("strength", F.when(F.col("is_excluded"), F.lit(0.0)).otherwise(strength))
        .withColumn("active_days", active)
    )


def _days(age: Column, word: int) -> Column:
    """The ages in days that occur among those of one word, a bit each."""
    bit = F.call_function("shiftleft", F.lit(1).cast("long"), F.pmod(age, F.lit(_DAYS_OF_A_WORD)))
    first = word * _DAYS_OF_A_WORD
    is_here = age.between(first, first + _DAYS_OF_A_WORD - 1)
    return F.coalesce(F.bit_or(F.when(is_here, bit)), F.lit(0).cast("long"))


def _units(value: Column) -> Column:
    """The number in whole units; a finite one, or Spark's cast would stop the night."""
    bounded = F.least(F.greatest(value, F.lit(-_MOST)), F.lit(_MOST))
    return F.rint(bounded / F.lit(_UNIT)).cast("long")


def _with_enough_events(pairs: DataFrame, settings: Preferences) -> DataFrame:
    """Strength 0 for users below `min_events_per_user`, then for items below `min_events_per_item`.

    Applied once, users first: items count the events of the users who are left, and a user who falls
    below the bound by the items that leave stays.
    """
    for column, least in (
        ("user_id", settings.min_events_per_user),
        ("item_id", settings.min_events_per_item),
    ):
        if least > 1:
            trained = pairs.where(F.col("strength") > 0)
            enough = (
                trained.groupBy(column)
                .agg(F.sum("events").alias("_events"))
                .where(F.col("_events") >= least)
                .select(column, F.lit(True).alias("_enough"))
            )
            pairs = (
                pairs.join(enough, on=column, how="left")
                .withColumn("strength", F.when(F.col("_enough"), F.col("strength")).otherwise(F.lit(0.0)))
                .drop("_enough")
            )
    return pairs


def _does(settings: Preferences, what: str) -> Column:
    """Whether the row's event excludes, or lowers, its item for the user."""
    types = [name for name, action in settings.negative.items() if action == what]
    named = F.col("event_type").isin(*types) if types else F.lit(False)
    ratings = settings.ratings
    if not ratings.event_type or ratings.low != what:
        return named
    is_low = _is_rating(ratings) & F.coalesce(F.col("value") <= F.lit(ratings.neutral), F.lit(False))
    return named | is_low


def _is_rating(ratings: Ratings) -> Column:
    return F.col("event_type") == ratings.event_type


def _clipped(ratings: Ratings) -> Column:
    return F.least(F.greatest("value", F.lit(ratings.min)), F.lit(ratings.max))
