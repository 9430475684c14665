"""Events as they count on a date: what was cancelled, returned or repeated in a burst is gone.

Silver keeps every distinct good event. What takes back or collapses is computed here, each time events
are read, from the set of events alone, so no order or splitting of deliveries can change the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean, Ratings

PAIR = ("user_id", "item_id")
# What names an event: two sources may count from 1.
EVENT = ("source", "event_id")
_IN_TIME = ("event_at", "event_id", "source")
# Exact sums in any order: 12 digits before the point, 6 after it; more of either is not a quantity.
_PIECES = "decimal(18,6)"
_MOST_PIECES = 1e11


def as_of(interactions: DataFrame, run_date: date) -> DataFrame:
    """Events before the end of the run date (UTC): the only way a night may see events."""
    return interactions.where(F.col("event_date") <= F.lit(run_date)).where(
        F.col("event_at") < F.lit((run_date + timedelta(days=1)).isoformat()).cast("timestamp")
    )


def effective_events(interactions: DataFrame, run_date: date, *, clean: Clean, ratings: Ratings) -> DataFrame:
    """The rows of silver.interactions that count on the run date, in the same columns.

    In this order: only events up to the run date; without cancelled events; without returned pieces;
    of a burst its first event; of several ratings of an item the user's latest. Pieces are taken back
    before bursts collapse, because a receipt may hold two lines of one product of which one comes back.
    """
    events = without_returned(
        without_cancelled(as_of(interactions, run_date)), purchase_types=clean.purchase_types
    )
    if clean.burst_seconds > 0:
        events = first_of_bursts(events, seconds=clean.burst_seconds)
    if ratings.event_type:
        events = latest_ratings(events, event_type=ratings.event_type)
    return events


def without_cancelled(events: DataFrame) -> DataFrame:
    """Events that no event of the same user and source names in `cancels_event_id`.

    An event that names another is never an event itself, whatever its type, and cannot be cancelled.
    """
    is_cancellation = F.col("cancels_event_id").isNotNull()
    named = F.col("cancels_event_id").alias("event_id")
    cancelled = events.where(is_cancellation).select("user_id", "source", named)
    return events.where(~is_cancellation).join(cancelled, on=["user_id", *EVENT], how="left_anti")


def without_returned(events: DataFrame, *, purchase_types: Sequence[str]) -> DataFrame:
    """Purchases less what came back; the returns themselves (negative quantity) are gone.

    A return of q pieces undoes the user's latest earlier purchases of the item that are not yet undone,
    until q pieces are used up; what it finds nothing for is dropped. A purchase without a quantity is
    one piece; one of 0 pieces cannot come back. An event undone in part stays with the quantity that is
    left. Earlier is by _IN_TIME. Only pairs with a return are sorted.
    """
    returned = events.where(F.col("quantity") < 0).select(*PAIR)
    untouched = events.join(returned, on=list(PAIR), how="left_anti")
    touched = events.join(returned, on=list(PAIR), how="left_semi")
    return untouched.unionByName(_left_over(touched, purchase_types))


def _left_over(events: DataFrame, purchase_types: Sequence[str]) -> DataFrame:
    """Last in, first out, without a list per pair.

    The pieces in hand rise with each purchase and fall with each return, not below 0. A purchase took
    them from `before` to `in_hand`; of that range so much is left as later returns never went below.
    """
    pair = Window.partitionBy(*PAIR)
    so_far = pair.orderBy(*_IN_TIME).rowsBetween(Window.unboundedPreceding, Window.currentRow)
    # From here on, as a running minimum backwards: a frame that looks forward is quadratic in Spark.
    from_here = pair.orderBy(*map(F.desc, _IN_TIME)).rowsBetween(Window.unboundedPreceding, Window.currentRow)
    is_return = F.col("quantity") < 0
    is_purchase = F.col("event_type").isin(*purchase_types) & F.coalesce(~is_return, F.lit(True))
    limit = F.lit(_MOST_PIECES)
    quantity = F.greatest(F.least(F.coalesce("quantity", F.lit(1.0)), limit), -limit).cast(_PIECES)
    nothing = F.lit(0).cast(_PIECES)
    counted = (
        events.withColumn("_pieces", F.when(is_purchase | is_return, quantity).otherwise(nothing))
        .withColumn("_total", F.sum("_pieces").over(so_far))
        .withColumn("_in_hand", F.col("_total") - F.least(F.min("_total").over(so_far), nothing))
        .withColumn("_lowest", F.min("_in_hand").over(from_here))
        .withColumn("_left", F.col("_lowest") - (F.col("_in_hand") - F.col("_pieces")))
    )
    is_touched = is_purchase & (F.col("_pieces") > 0) & (F.col("_left") < F.col("_pieces"))
    stays = F.coalesce(~is_return, F.lit(True)) & (~is_touched | (F.col("_left") > 0))
    remaining = F.when(is_touched, F.col("_left").cast("double")).otherwise(F.col("quantity"))
    return counted.where(stays).withColumn("quantity", remaining).select(*events.columns)


def first_of_bursts(events: DataFrame, *, seconds: float) -> DataFrame:
    """Events that do not follow another of the same user, item and type within `seconds` (inclusive).

    Each event is compared with the one before it, also where that one is gone itself: a chain of clicks
    leaves its first, however long it lasts. Before is by _IN_TIME.
    """
    order = Window.partitionBy(*PAIR, "event_type").orderBy(*_IN_TIME)
    micros: Column = F.unix_micros("event_at")
    waited = micros - F.lag(micros).over(order)
    marked = events.withColumn("_waited", waited)
    return marked.where(F.col("_waited").isNull() | (F.col("_waited") > F.lit(round(seconds * 1e6)))).drop(
        "_waited"
    )


def latest_ratings(events: DataFrame, *, event_type: str) -> DataFrame:
    """All events, of ratings only each user's latest of an item by _IN_TIME."""
    is_rating = F.col("event_type") == event_type
    newest_first = Window.partitionBy(*PAIR).orderBy(*map(F.desc, _IN_TIME))
    ratings = events.where(is_rating).withColumn("_place", F.row_number().over(newest_first))
    return events.where(~is_rating).unionByName(ratings.where("_place = 1").drop("_place"))
