"""What a night's lists must be before anyone sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Campaign, Gate
from recsys_spark.runtime.rows import frame_of


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
    items: DataFrame | None = None,
) -> list[Verdict]:
    """Every check on every campaign of a staged night.

    staged: (campaign, user_id, rank, item_id, score): all lists of the night; read more than once.
    campaigns: the settings of each campaign, by name; lists of another are not looked at.
    audience_sizes: by campaign, how many users should have a list; one that is not named has none.
    known_items: (item_id), what may be in a list at all: what is on sale.
    owned: (user_id, item_id, is_excluded). What users had is forbidden where the campaign
        allows no repeats; what they want no more (is_excluded) is forbidden everywhere.
    gate: the bounds, shares from 0 to 1.
    items: (item_id), all that were ever known: a slot of one of them that may not be in a list is not on
        sale, of any other unknown. None: no others than known_items.
    """
    known = _known(known_items, items)
    figures = {row["campaign"]: row.asDict() for row in _figures(staged, campaigns, known, owned).collect()}
    verdicts: list[Verdict] = []
    for name in campaigns:
        counts = figures.get(name, dict.fromkeys(_NAMES, 0))
        verdicts.extend(_judged(name, counts, audience_sizes.get(name, 0), gate))
    return verdicts


# Items that left after lists were made: only making them anew helps.
NOT_ON_SALE = "not_on_sale"
# Slots of which a list may have none; counted per list, told per campaign.
_FORBIDDEN = (
    "duplicates",
    "gaps",
    "not_finite",
    "rising",
    "unknown_items",
    NOT_ON_SALE,
    "owned_items",
    "unwanted_items",
)
_NAMES = ("users", "short_lists", "rows", *_FORBIDDEN, "first_slot")


def _figures(
    staged: DataFrame, campaigns: Mapping[str, Campaign], known: DataFrame, owned: DataFrame
) -> DataFrame:
    """One row per campaign with the counts that the verdicts are made of.

    known: (item_id, is_on_sale), one row an item.
    """
    spark = staged.sparkSession
    wanted = frame_of(
        spark,
        [(name, campaign.k, campaign.repeat_allowed) for name, campaign in campaigns.items()],
        "campaign string, k int, repeat_allowed boolean",
    )
    # A list is one row from here on: what is asked of its slots needs no sort, and no join by user and item.
    lists = (
        staged.join(known, on="item_id", how="left")
        .groupBy("campaign", "user_id")
        .agg(
            F.sort_array(F.collect_list(F.struct("rank", "item_id", "score"))).alias("slots"),
            F.count_if(F.col("is_on_sale").isNull()).alias("unknown_items"),
            F.count_if(~F.col("is_on_sale")).alias(NOT_ON_SALE),
        )
    )
    had = owned.groupBy("user_id").agg(
        F.collect_list("item_id").alias("owned"),
        F.collect_list(F.when(F.col("is_excluded"), F.col("item_id"))).alias("unwanted"),
    )
    rows, score, items = F.size("slots"), F.col("slots.score"), F.col("slots.item_id")
    rises = F.zip_with(score, F.slice(score, 2, rows), lambda before, after: after > before)
    per_user = (
        lists.join(had, on="user_id", how="left")
        .join(F.broadcast(wanted), on="campaign", how="inner")
        .select(
            "campaign",
            "k",
            "unknown_items",
            NOT_ON_SALE,
            rows.alias("rows"),
            (rows - F.size(F.array_distinct(F.array_compact(items)))).alias("duplicates"),
            F.when(_is_counted_through(F.col("slots.rank"), rows), 0).otherwise(1).alias("gaps"),
            F.size(F.filter(score, _is_not_finite)).alias("not_finite"),
            F.size(F.filter(rises, lambda is_rising: is_rising)).alias("rising"),
            F.when(F.col("repeat_allowed"), 0).otherwise(_shared(items, "owned")).alias("owned_items"),
            _shared(items, "unwanted").alias("unwanted_items"),
        )
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


def _known(on_sale: DataFrame, items: DataFrame | None) -> DataFrame:
    """(item_id, is_on_sale) of every item known."""
    rows = on_sale.select("item_id", F.lit(True).alias("is_on_sale"))
    if items is not None:
        rows = rows.unionByName(items.select("item_id", F.lit(False).alias("is_on_sale")))
    return rows.groupBy("item_id").agg(F.max("is_on_sale").alias("is_on_sale"))


def _is_not_finite(score: Column) -> Column:
    return F.coalesce(F.isnan(score) | (F.abs(score) == F.lit(float("inf"))), F.lit(True))


def _is_counted_through(ranks: Column, rows: Column) -> Column:
    """Whether the ranks run from 1 to the number of rows; null where there are none."""
    return (F.array_min(ranks) == 1) & (F.array_max(ranks) == rows)


def _shared(items: Column, others: str) -> Column:
    """How many of the items are among the others; 0 where there are no others."""
    none = F.array().cast("array<string>")
    return F.size(F.array_intersect(items, F.coalesce(F.col(others), none)))


def _judged(name: str, counts: Mapping[str, int], audience: int, gate: Gate) -> list[Verdict]:
    users = int(counts["users"])
    verdicts = [
        _at_least(name, "user_share", users / audience if audience else 0.0, gate.min_user_share),
        _at_most(
            name,
            "short_list_share",
            counts["short_lists"] / users if users else 1.0,
            gate.max_short_list_share,
        ),
        _at_most(
            name,
            "first_slot_share",
            (counts["first_slot"] or 0) / users if users else 1.0,
            gate.max_first_slot_share,
        ),
    ]
    return verdicts + [_at_most(name, check, float(counts[check]), 0.0) for check in _FORBIDDEN]


def _at_least(campaign: str, check: str, observed: float, least: float) -> Verdict:
    return Verdict(campaign, check, observed, f">= {least:g}", observed >= least)


def _at_most(campaign: str, check: str, observed: float, most: float) -> Verdict:
    return Verdict(campaign, check, observed, f"<= {most:g}", observed <= most)
