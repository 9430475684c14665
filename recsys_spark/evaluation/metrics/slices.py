"""The same figure apart: for users of short and long history, each segment, and for what few people had."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.evaluation.metrics.metrics import DEFAULT_BY, order_free_mean

HISTORY, ITEMS, SEGMENT = "history", "items", "segment"
# By the number of items that a user had before: a bin reaches from its first number to the next one's.
BINS = ((0, "0"), (1, "1-9"), (10, "10-99"), (100, "100-499"), (500, "500+"))
# Items that fewer than so many users had before the cutoff: only those of them count as relevant.
RARE = ((1, "nobody had"), (10, "had by under 10"))
NO_SEGMENT = "unknown"


def history_bin(items: Column) -> Column:
    """The bin of a number of items; null counts as none."""
    name = F.lit(BINS[0][1])
    for least, text in BINS[1:]:
        name = F.when(items >= least, F.lit(text)).otherwise(name)
    return name


def groups_of(users: DataFrame, *, pairs: DataFrame, people: DataFrame) -> DataFrame:
    """(user_id, history, segment) of each of the `users` (user_id).

    `pairs` (user_id, item_id), distinct, is what users had before; `people` (user_id, segment), one row a
    user, what is known of them.
    """
    had = pairs.groupBy("user_id").agg(F.count(F.lit(1)).alias("had"))
    segment = F.coalesce("segment", F.lit(NO_SEGMENT)).alias(SEGMENT)
    known = people.select("user_id", "segment")
    return (
        users.join(had, on="user_id", how="left")
        .join(known, on="user_id", how="left")
        .select("user_id", history_bin(F.col("had")).alias(HISTORY), segment)
    )


def sliced(scores: DataFrame, groups: DataFrame, *, metric: str, by: Sequence[str] = DEFAULT_BY) -> DataFrame:
    """One row is one group's mean over the users of one slice: (*by, slice, name, value double, users long).

    `scores` is what `metrics.scores_of` gives, `groups` what `groups_of` does. Of history and segment the
    users with relevant items count, of each of the RARE items those with such relevant ones, where `scores`
    has them.
    """
    wanted = F.when(F.col("n") > 0, F.col(metric))
    slices = [_slice(name, F.col(name), wanted) for name in (HISTORY, SEGMENT)]
    for place, (_, name) in enumerate(RARE):
        column = rare_metric(metric, place)
        if column in scores.columns:
            slices.append(_slice(ITEMS, F.lit(name), F.col(column)))
    rows = scores.join(F.broadcast(groups), on="user_id", how="inner").select(*by, F.inline(F.array(*slices)))
    means = order_free_mean(F.col("value")).alias("value"), F.count(F.lit(1)).alias("users")
    return rows.where(F.col("value").isNotNull()).groupBy(*by, "slice", "name").agg(*means)


def rare_metric(metric: str, place: int) -> str:
    """What `ndcg@10` by the rare items of this place is called among a user's scores."""
    name, _, k = metric.partition("@")
    return f"{name}_rare_{place}@{k}"


def _slice(kind: str, name: Column, value: Column) -> Column:
    return F.struct(F.lit(kind).alias("slice"), name.alias("name"), value.alias("value"))
