"""What a night's lists must be before anyone sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.config import Campaign, Gate
from recsys_spark.lake.rows import frame_of


@dataclass(frozen=True)
class Verdict:
    """One check of the publish gate on one campaign."""

    campaign: str
    check: str
    observed: float
    allowed: str
    is_success: bool


def judge_lists(
    staged: DataFrame,
    *,
    campaigns: Mapping[str, Campaign],
    audience_sizes: Mapping[str, int],
    known_items: DataFrame,
    owned: DataFrame,
    gate: Gate,
) -> list[Verdict]:
    """Every check on every campaign of a staged night.

    known_items (item_id): what may be in a list at all. owned (user_id, item_id, is_excluded): what users
    already had, forbidden where the campaign allows no repeats, and what they want no more, forbidden
    everywhere.
    """
    figures = {
        row["campaign"]: row.asDict() for row in _figures(staged, campaigns, known_items, owned).collect()
    }
    verdicts: list[Verdict] = []
    for name in campaigns:
        found = figures.get(name, dict.fromkeys(_NAMES, 0))
        verdicts.extend(_judged(name, found, audience_sizes.get(name, 0), gate))
    return verdicts


# Slots of which a list may have none; counted per list, told per campaign.
_FORBIDDEN = (
    "duplicates",
    "gaps",
    "not_finite",
    "rising",
    "unknown_items",
    "owned_items",
    "unwanted_items",
)
_NAMES = ("users", "short_lists", "rows", *_FORBIDDEN, "first_slot")


def _figures(
    staged: DataFrame, campaigns: Mapping[str, Campaign], known_items: DataFrame, owned: DataFrame
) -> DataFrame:
    """One row per campaign with the counts that the verdicts are made of."""
    spark = staged.sparkSession
    wanted = frame_of(
        spark,
        [(name, campaign.k, campaign.repeat_allowed) for name, campaign in campaigns.items()],
        "campaign string, k int, repeat_allowed boolean",
    )
    one_list = Window.partitionBy("campaign", "user_id").orderBy("rank", "item_id")
    known = known_items.select("item_id").distinct().withColumn("is_known", F.lit(True))
    had = owned.groupBy("user_id", "item_id").agg(
        F.lit(True).alias("is_owned"), F.bool_or("is_excluded").alias("is_unwanted")
    )
    rows = (
        staged.withColumn("_before", F.lag("score").over(one_list))
        .join(F.broadcast(wanted), on="campaign", how="inner")
        .join(known, on="item_id", how="left")
        .join(had, on=["user_id", "item_id"], how="left")
    )
    nan = F.isnan("score") | (F.abs("score") == F.lit(float("inf")))
    per_user = rows.groupBy("campaign", "user_id", "k").agg(
        F.count(F.lit(1)).alias("rows"),
        (F.count(F.lit(1)) - F.count_distinct("item_id")).alias("duplicates"),
        ((F.max("rank") != F.count(F.lit(1))) | (F.min("rank") != 1)).cast("int").alias("gaps"),
        F.count(F.when(F.coalesce(nan, F.lit(True)), 1)).alias("not_finite"),
        F.count(F.when(F.col("score") > F.col("_before"), 1)).alias("rising"),
        F.count(F.when(F.col("is_known").isNull(), 1)).alias("unknown_items"),
        F.count(F.when(F.col("is_owned") & ~F.col("repeat_allowed"), 1)).alias("owned_items"),
        F.count_if("is_unwanted").alias("unwanted_items"),
    )
    first = (
        staged.where("rank = 1")
        .groupBy("campaign", "item_id")
        .count()
        .groupBy("campaign")
        .agg(F.max("count").alias("first_slot"))
    )
    return (
        per_user.groupBy("campaign")
        .agg(
            F.count(F.lit(1)).alias("users"),
            F.count(F.when(F.col("rows") < F.col("k"), 1)).alias("short_lists"),
            *[F.sum(name).alias(name) for name in ("rows", *_FORBIDDEN)],
        )
        .join(first, on="campaign", how="left")
    )


def _judged(name: str, found: Mapping[str, int], audience: int, gate: Gate) -> list[Verdict]:
    users = int(found["users"])
    verdicts = [
        _at_least(name, "user_share", users / audience if audience else 0.0, gate.min_user_share),
        _at_most(
            name,
            "short_list_share",
            found["short_lists"] / users if users else 1.0,
            gate.max_short_list_share,
        ),
        _at_most(
            name,
            "first_slot_share",
            (found["first_slot"] or 0) / users if users else 1.0,
            gate.max_first_slot_share,
        ),
    ]
    return verdicts + [_at_most(name, check, float(found[check]), 0.0) for check in _FORBIDDEN]


def _at_least(campaign: str, check: str, observed: float, least: float) -> Verdict:
    return Verdict(campaign, check, observed, f">= {least:g}", observed >= least)


def _at_most(campaign: str, check: str, observed: float, most: float) -> Verdict:
    return Verdict(campaign, check, observed, f"<= {most:g}", observed <= most)
