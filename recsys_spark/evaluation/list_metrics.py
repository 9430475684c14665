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
from pyspark.sql.window import WindowSpec


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
    groups = F.broadcast(lists.select(*by).distinct())
    shared = [name for name in by if name in relevant.columns]
    truth = relevant.select(*shared, "user_id", "item_id")
    truth = truth.join(groups, on=shared, how="inner") if shared else truth.crossJoin(groups)
    wanted = truth.withColumns({"rank": F.lit(None).cast("int"), "is_wanted": F.lit(True)})
    shown = _within(lists, by=by, depth=depth).withColumn("is_wanted", F.lit(False))
    items = shown.unionByName(wanted).transform(
        _each_item_once, F.bool_or("is_wanted").alias("is_wanted"), by=by
    )
    if item_popularity is not None:
        items = items.transform(_with_popularity, item_popularity=item_popularity)
    so_far = _in_order(by).rowsBetween(Window.unboundedPreceding, Window.currentRow)
    placed = items.transform(_placed, by=by, depth=depth)
    return placed.withColumn("wanted_so_far", F.count_if("is_wanted").over(so_far).cast("int")).drop("best")


def _within(lists: DataFrame, *, by: Sequence[str], depth: int) -> DataFrame:
    """The rows of rank 1 to `depth`; the action fails on a rank that cannot be one."""
    rank = F.col("rank").cast("int")
    got = F.concat(F.lit("lists.rank counts from 1, got "), F.coalesce(rank.cast("string"), F.lit("null")))
    checked = F.when(rank >= 1, rank).otherwise(F.raise_error(got))
    return lists.select(*by, "user_id", "item_id", checked.alias("rank")).where(F.col("rank") <= depth)


def _each_item_once(items: DataFrame, *columns: Column, by: Sequence[str]) -> DataFrame:
    """One row is one item of one list with its best rank, lists kept together on their partition."""
    # By user before grouping by item: the windows over a list then need no second shuffle.
    by_list = items.repartition(*by, "user_id")
    return by_list.groupBy(*by, "user_id", "item_id").agg(F.min("rank").alias("best"), *columns)


def _placed(items: DataFrame, *, by: Sequence[str], depth: int) -> DataFrame:
    """Positions from best ranks, each pushed down where an earlier item already holds it.

    The recursion position_i = max(rank_i, position_(i-1) + 1) is i + running maximum of (rank_j - j).
    """
    in_order = _in_order(by)
    so_far = in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    pushed = F.col("i") + F.max(F.col("best") - F.col("i")).over(so_far)
    return (
        items.withColumn("i", F.row_number().over(in_order))
        .withColumn("pushed", F.when(F.col("best").isNotNull(), pushed))
        .withColumn("position", F.when(F.col("pushed") <= depth, F.col("pushed")))
        .drop("i", "pushed")
    )


def _in_order(by: Sequence[str]) -> WindowSpec:
    """A list from its top; items that were not shown come last."""
    return Window.partitionBy(*by, "user_id").orderBy(F.asc_nulls_last("best"), "item_id")


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


def exposures(lists: DataFrame, *, ks: Sequence[int], by: Sequence[str], catalogue_size: int) -> DataFrame:
    """One row is one group: (*by, and coverage and gini for each k as columns such as 'gini@10').

    With the I catalogue items in ascending order of exposure x, Gini = sum (2 i - I - 1) x_i / (I sum x).
    A block of m items of equal exposure after s others adds x m (2 s + m - I) to that sum. The sums are
    of integers, so no order of rows can change them. Gini is null where nothing was shown within k.
    """
    blocks = lists.transform(_exposure_blocks, ks=ks, by=by, catalogue_size=catalogue_size)
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
    lists: DataFrame, *, ks: Sequence[int], by: Sequence[str], catalogue_size: int
) -> DataFrame:
    """One row is the m items of a group that were shown x times within k, after s that were shown less.

    (*by, k string, x, m, s, size). Blocks and not items are sorted: there are few distinct exposures
    even where there are millions of items. Catalogue items in no list come first, counted in s only.
    """
    shown = [F.count_if(F.col("position") <= k).alias(str(k)) for k in ks]
    slots = (
        _within(lists, by=by, depth=max(ks))
        .transform(_each_item_once, by=by)
        .transform(_placed, by=by, depth=max(ks))
    )
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
