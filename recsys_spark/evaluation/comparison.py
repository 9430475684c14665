"""The same night made twice: how many lists are equal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.errors import ConfigError
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import GOLD_RECOMMENDATIONS


@dataclass(frozen=True)
class Comparison:
    """Lists in either lake, those equal in items and order, those equal as sets."""

    lists: int
    equal: int
    same_items: int
    largest_difference: float

    @property
    def share(self) -> float:
        return self.equal / self.lists if self.lists else 0.0


def compare_lists(left: Lake, right: Lake, *, run_date: date) -> Comparison:
    """Compare two lakes' published lists of the date by (channel, campaign, user_id)."""
    whole = _lists(left, run_date).join(
        _lists(right, run_date).withColumnsRenamed({"items": "other_items", "scores": "other_scores"}),
        on=["channel", "campaign", "user_id"],
        how="full",
    )
    equal = F.coalesce(F.col("items") == F.col("other_items"), F.lit(False))
    same = F.coalesce(F.sort_array("items") == F.sort_array("other_items"), F.lit(False))
    apart = F.array_max(F.zip_with("scores", "other_scores", lambda one, other: F.abs(one - other)))
    row = whole.agg(
        F.count(F.lit(1)), F.count(F.when(equal, 1)), F.count(F.when(same, 1)), F.max(F.when(equal, apart))
    ).collect()[0]
    return Comparison(row[0], row[1], row[2], float(row[3] or 0.0))


def _lists(lake: Lake, run_date: date) -> DataFrame:
    rows = lake.read(GOLD_RECOMMENDATIONS).where(F.col("run_date") == F.lit(run_date))
    if rows.isEmpty():
        raise ConfigError(f"no published lists of {run_date} in {lake.root}.")
    slots = F.sort_array(F.collect_list(F.struct("rank", "item_id", "score")))
    return (
        rows.groupBy("channel", "campaign", "user_id")
        .agg(slots.alias("slots"))
        .select(
            "channel",
            "campaign",
            "user_id",
            F.col("slots.item_id").alias("items"),
            F.col("slots.score").alias("scores"),
        )
    )
