"""The slots of recommendation lists, and what they show: coverage, inequality, popularity, novelty.

List-level metrics describe all lists at k, whether or not the user has relevant items:

    coverage         distinct items shown / catalogue size
    gini             inequality of exposure over the whole catalogue, items never shown included;
                     0 all equal, near 1 everyone gets the same few
    mean_popularity  popularity of the items shown, in the unit it came in
    novelty          -log2(popularity / total popularity) of the items shown, in bits

The last two are means within each user's list, then over the users with a list. The total makes
novelty indifferent to whether popularity is a count or a share of users.

Sources: Castells, Vargas and Wang 2011 (novelty as self-information); Fleder and Hosanagar 2009 (Gini).
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F


def judged_slots(
    lists: DataFrame,
    relevant: DataFrame,
    *,
    by: Sequence[str],
    depth: int,
    item_popularity: DataFrame | None,
) -> DataFrame:
    """One row is an item that was shown to a user, or was relevant for one, in one group of lists.

    (*by, user_id, item_id, position int, is_wanted, wanted_so_far int), sorted by position within each
    group and user. Position is null for what was not shown within `depth`; no position and no item
    occurs twice in a list. `wanted_so_far` counts wanted items up to and with this one. With
    `item_popularity` also (mean_popularity, novelty) of the item.

    The lists and the truth are stacked, not joined: one shuffle by group and user removes repeated
    items, matches shown with wanted, gives users without a list their rows, and sorts.
    """
    groups = lists.select(*by).distinct()
    shared = [name for name in by if name in relevant.columns]
    truth = relevant.select(*shared, "user_id", "item_id")
    truth = truth.join(F.broadcast(groups), on=shared) if shared else truth.crossJoin(F.broadcast(groups))
    columns = [*by, "user_id", "item_id"]
    shown = lists.select(*columns, _checked_rank().alias("rank"), F.lit(False).alias("is_wanted"))
    wanted = truth.select(*columns, F.lit(None).cast("int").alias("rank"), F.lit(True).alias("is_wanted"))
    items = (
        shown.where(F.col("rank") <= depth)
        .unionByName(wanted)
        .repartition(*by, "user_id")
        .groupBy(*columns)
        .agg(F.min("rank").alias("best"), F.bool_or("is_wanted").alias("is_wanted"))
    )
    if item_popularity is not None:
        items = items.transform(_with_popularity, item_popularity=item_popularity)
    return items.transform(_placed, by=by, depth=depth)


def _checked_rank() -> Column:
    rank = F.col("rank").cast("int")
    got = F.coalesce(rank.cast("string"), F.lit("null"))
    return F.when(rank >= 1, rank).otherwise(
        F.raise_error(F.concat(F.lit("lists.rank counts from 1, got "), got))
    )


def _placed(items: DataFrame, *, by: Sequence[str], depth: int) -> DataFrame:
    """Positions from best ranks, each pushed down where an earlier item already holds it.

    The recursion position_i = max(rank_i, position_(i-1) + 1) is i + running maximum of (rank_j - j).
    """
    # The hash first: rows are compared by their first key's prefix, and those of task or model tell nothing.
    list_key = F.xxhash64(*by, "user_id")
    in_order = Window.partitionBy(list_key, *by, "user_id").orderBy(F.asc_nulls_last("best"), "item_id")
    so_far = in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    pushed = F.col("i") + F.max(F.col("best") - F.col("i")).over(so_far)
    return (
        items.withColumn("i", F.row_number().over(in_order))
        .withColumn("pushed", F.when(F.col("best").isNotNull(), pushed))
        .withColumn("position", F.when(F.col("pushed") <= depth, F.col("pushed")))
        .withColumn("wanted_so_far", F.count_if("is_wanted").over(so_far).cast("int"))
        .drop("best", "i", "pushed")
    )


def _with_popularity(items: DataFrame, *, item_popularity: DataFrame) -> DataFrame:
    """Adds to each item its popularity (mean_popularity) and -log2 of its share of the total (novelty)."""
    value = F.col("popularity").cast("double")
    totals = item_popularity.agg(
        # Decimals, because sums of doubles depend on the order in which partitions arrive.
        F.sum(value.cast("decimal(28,15)")).cast("double").alias("total"),
        F.min(F.when(value > 0, value)).alias("rarest"),
    )
    popularity = item_popularity.select("item_id", value.alias("popularity"))
    known = F.coalesce(F.col("popularity"), F.lit(0.0))
    # log2(0) has no value: an item nobody is known to have had is as surprising as the rarest known.
    share = F.try_divide(F.greatest(known, F.col("rarest")), F.col("total"))
    return (
        items.join(popularity, on="item_id", how="left")
        .crossJoin(F.broadcast(totals))
        .withColumns({"mean_popularity": known, "novelty": -F.log2(share)})
        .drop("popularity", "total", "rarest")
    )


def exposures(slots: DataFrame, *, ks: Sequence[int], by: Sequence[str], catalogue_size: int) -> DataFrame:
    """One row is one group: (*by, and coverage and gini for each k as columns such as 'gini@10').

    With the I catalogue items in ascending order of exposure x, Gini = sum (2 i - I - 1) x_i / (I sum x).
    A block of m items of equal exposure after s others adds x m (2 s + m - I) to that sum. The sums are
    of integers, so no order of rows can change them. Gini is null where nothing was shown within k.
    """
    blocks = slots.transform(_exposure_blocks, ks=ks, by=by, catalogue_size=catalogue_size)
    columns = []
    for k in ks:
        here = F.col("k") == str(k)
        shown = F.sum(F.when(here, F.expr("x * m")))
        unequal = F.sum(F.when(here, F.expr("x * m * (2 * s + m - size)")))
        distinct = F.sum(F.when(here & (F.col("x") > 0), F.col("m")).otherwise(0))
        columns += [
            (distinct / F.lit(catalogue_size)).alias(f"coverage@{k}"),
            F.try_divide(unequal, F.max("size") * shown).alias(f"gini@{k}"),
        ]
    return blocks.groupBy(*by).agg(*columns)


def _exposure_blocks(
    slots: DataFrame, *, ks: Sequence[int], by: Sequence[str], catalogue_size: int
) -> DataFrame:
    """One row is the m items of a group that were shown x times within k, after s that were shown less.

    (*by, k string, x, m, s, size). Blocks and not items are sorted: there are few distinct exposures
    even where there are millions of items. Catalogue items in no list come first, counted in s only.
    """
    shown = [F.count_if(F.col("position") <= k).alias(str(k)) for k in ks]
    items = slots.where(F.col("position").isNotNull()).groupBy(*by, "item_id").agg(*shown)
    group = Window.partitionBy(*by, "k")
    so_far = group.orderBy("x").rowsBetween(Window.unboundedPreceding, Window.currentRow)
    return (
        items.unpivot([*by], [str(k) for k in ks], "k", "x")
        .groupBy(*by, "k", "x")
        .agg(F.count("*").alias("m"))
        .withColumn("listed", F.sum("m").over(group))
        .withColumn("size", F.greatest(F.lit(catalogue_size), "listed"))
        .withColumn("s", F.col("size") - F.col("listed") + F.sum("m").over(so_far) - F.col("m"))
        .drop("listed")
    )
