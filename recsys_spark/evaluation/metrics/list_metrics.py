"""What recommendation lists show: coverage, inequality, popularity, novelty, serendipity.

List-level metrics describe all lists at k, whether or not the user has relevant items:

    coverage         distinct items shown / catalogue size
    gini             inequality of exposure over the whole catalogue, items never shown included;
                     0 all equal, near 1 everyone gets the same few
    mean_popularity  popularity of the items shown, in the unit it came in
    novelty          -log2(popularity / total popularity) of the items shown, in bits

The last two are means within each user's list, then over the users with a list. The total makes
novelty indifferent to whether popularity is a count or a share of users. How unlike a list's items are is
in `diversity`.

    serendipity      of the k places, the share that is relevant and not among the k most popular items

Ge, Delgado-Battenfeld and Jannach 2010 call serendipitous what is useful and what a primitive model would
not have shown; theirs is popularity, as here, the same k items for everyone. Like precision it divides by
k, also for a short list, and is averaged over users with relevant items.

Sources: Castells, Vargas and Wang 2011 (novelty as self-information); Fleder and Hosanagar 2009 (Gini).
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F


def with_popularity(items: DataFrame, *, item_popularity: DataFrame) -> DataFrame:
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


def most_popular(item_popularity: DataFrame, *, depth: int) -> DataFrame:
    """(item_id, popular_place): the most popular of the items that were had, from 0 on; ties by item_id."""
    had = item_popularity.where(F.col("popularity") > 0)
    top = had.orderBy(F.desc("popularity"), "item_id").limit(depth)
    # Sorted as one array: a window over all rows would be told of in the log.
    ranked = F.sort_array(F.collect_list(F.struct((-F.col("popularity")).alias("less"), "item_id")))
    return top.agg(ranked.alias("ranked")).select(
        F.posexplode("ranked.item_id").alias("popular_place", "item_id")
    )


def exposures(counts: DataFrame, *, ks: Sequence[int], by: Sequence[str], catalogue_size: int) -> DataFrame:
    """One row is one group: (*by, and coverage and gini for each k as columns such as 'gini@10').

    counts (*by, item_id, and shown_10 and the like, bigint): in how many lists the item was within k, as the
    sum over the rows of an item.

    With the I catalogue items in ascending order of exposure x, Gini = sum (2 i - I - 1) x_i / (I sum x).
    A block of m items of equal exposure after s others adds x m (2 s + m - I) to that sum. The sums are
    of integers, so no order of rows can change them. Gini is null where nothing was shown within k.
    """
    blocks = counts.transform(_exposure_blocks, ks=ks, by=by, catalogue_size=catalogue_size)
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
    counts: DataFrame, *, ks: Sequence[int], by: Sequence[str], catalogue_size: int
) -> DataFrame:
    """One row is the m items of a group that were shown x times within k, after s that were shown less.

    (*by, k string, x, m, s, size). Blocks and not items are sorted: there are few distinct exposures
    even where there are millions of items. Catalogue items in no list come first, counted in s only.
    """
    items = counts.groupBy(*by, "item_id").agg(*[F.sum(f"shown_{k}").alias(str(k)) for k in ks])
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
