"""Ranking metrics on Spark frames, with every definition written down.

Libraries differ under the same names, so figures compare only when the definitions do. Ours, for a
user with n relevant items and a list cut at k, h of whose items are relevant (gains are binary):

    precision      h / k                  a short list pays for its empty slots
    recall         h / n
    recall_capped  h / min(k, n)          1 is reachable for everyone
    f1             2 h / (k + n)          harmonic mean of this user's precision and recall
    ndcg           DCG / ideal DCG        discount 1 / log2(position + 1); ideal over min(k, n) items
    map            sum over hits of precision at the hit, / min(k, n)
    mrr            1 / position of the first hit, 0 if there is none within k
    hit_rate       1 if h > 0

Each is averaged over the users with at least one relevant item; one without a list counts as 0.
Where others differ: RecTools by default divides NDCG by the ideal over k items and MAP by n;
scikit-learn's `ndcg_score` takes a full score matrix and averages over ties; MLlib's
`meanAveragePrecision` divides by n, while its `ndcgAt` and `meanAveragePrecisionAt` agree with ours.

Coverage, Gini, popularity, novelty and serendipity of the lists are defined in `list_metrics`, diversity in
`diversity`.

Sources: Järvelin and Kekäläinen 2002 (nDCG); Manning, Raghavan and Schütze 2008, chapter 8 (MAP).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.evaluation.metrics.list_metrics import exposures
from recsys_spark.evaluation.metrics.tally import tally

PER_USER_METRICS = ("precision", "recall", "recall_capped", "f1", "ndcg", "map", "mrr", "hit_rate")
EXPOSURE_METRICS = ("coverage", "gini")
SERENDIPITY = "serendipity"  # of a user, where the popularity of items is known
LOOKS = ("mean_popularity", "novelty", "diversity")
DEFAULT_BY = ("task", "model")


def ranking_metrics(
    lists: DataFrame,
    relevant: DataFrame,
    *,
    ks: Sequence[int],
    by: Sequence[str] = DEFAULT_BY,
    item_popularity: DataFrame | None,
    item_vectors: DataFrame | None = None,
    catalogue_size: int,
) -> DataFrame:
    """One row is one metric of one group: (*by, metric such as 'ndcg@10', value double, users long).

    `users` is the number averaged over: users with relevant items, or, for list-level metrics, users with a
    list. For diversity it is the users with a list of two items that have words. A group without any row in
    `lists` is unknown here and gets no rows. A metric without anything to average over gets none.

    A list that shows an item twice is credited once, at its best rank, and the second slot is wasted.
    Of two items on one rank the one with the higher item_id moves down, so no slot counts twice.
    Means do not depend on partitioning, to the last bit. Coverage above 1 says that `catalogue_size`
    does not count all items that were shown.

    lists: (*by, user_id, item_id, rank from 1), no id null. It is read more than once: persist it, or pass
        what was read from a table.
    relevant: (user_id, item_id), and those columns of `by` that it is split by, usually task. It meets
        `lists` on the columns they share.
    ks: lengths at which lists are judged, distinct, from 1.
    by: the columns of `lists` that name a group of lists; their values are not null.
    item_popularity: (item_id, popularity), one row an item, a count or a share. None leaves out
        mean_popularity, novelty and serendipity. An item that it lacks counts as 0 in mean_popularity and as
        the rarest known item in novelty.
    item_vectors: (item_id, terms, weights), one row an item: its TF-IDF vector. None leaves out diversity.
    catalogue_size: how many items could be shown, from 1.

    Raises ValueError for wrong `ks`, `by` or `catalogue_size`; the action fails on a rank below 1.
    Sources: at the head of this module, and of `list_metrics` and `diversity`.
    """
    _check_knobs(ks, by)
    tallied = tallies(
        lists, relevant, ks=ks, by=by, item_popularity=item_popularity, item_vectors=item_vectors
    )
    return averages(tallied, ks=ks, by=by, catalogue_size=catalogue_size)


def per_user_metrics(
    lists: DataFrame, relevant: DataFrame, *, ks: Sequence[int], by: Sequence[str] = DEFAULT_BY
) -> DataFrame:
    """One row is one metric of one user in one group: (*by, user_id, metric, value double).

    Every user with a relevant item has a row in every group, with zeros where the group has no list
    for the user; users without relevant items have none. Inputs and errors as in `ranking_metrics`.
    """
    return by_user(user_scores(lists, relevant, ks=ks, by=by, item_popularity=None), ks=ks, by=by)


def user_scores(
    lists: DataFrame,
    relevant: DataFrame,
    *,
    ks: Sequence[int],
    by: Sequence[str] = DEFAULT_BY,
    item_popularity: DataFrame | None,
) -> DataFrame:
    """One row is one user in one group, one column a metric such as 'ndcg@10'.

    n counts relevant items, shown the slots that hold an item. Who has a list and nothing relevant has
    n = 0, and null where a metric needs relevant items.

    lists: (*by, user_id, item_id, rank from 1), no id null; read more than once.
    relevant: (user_id, item_id), and those columns of `by` that it is split by.
    ks: lengths at which lists are judged, distinct, from 1.
    by: the columns of `lists` that name a group of lists; their values are not null.
    item_popularity: (item_id, popularity), one row an item. None leaves out what rests on it.

    Raises ValueError for wrong `ks` or `by`; the action fails on a rank below 1. More is said at
    `ranking_metrics`.
    """
    return scores_of(tallies(lists, relevant, ks=ks, by=by, item_popularity=item_popularity), ks=ks, by=by)


def tallies(
    lists: DataFrame,
    relevant: DataFrame,
    *,
    ks: Sequence[int],
    by: Sequence[str] = DEFAULT_BY,
    item_popularity: DataFrame | None,
    item_vectors: DataFrame | None = None,
    rare: Sequence[float] = (),
) -> DataFrame:
    """What `averages` and `scores_of` are made of in one pass over the lists: persist it to have both.

    Rows and columns are those of `tally`.

    lists: (*by, user_id, item_id, rank from 1), no id null; read more than once.
    relevant: (user_id, item_id), and those columns of `by` that it is split by.
    ks: lengths at which lists are judged, distinct, from 1.
    by: the columns of `lists` that name a group of lists; their values are not null.
    item_popularity: (item_id, popularity), one row an item. None leaves out what rests on it.
    item_vectors: (item_id, terms, weights), one row an item: its TF-IDF vector. None leaves out diversity.
    rare: bounds in the unit of popularity. For each, a user's scores have NDCG by those relevant items alone
        that are less popular: ndcg_rare_0@10 and so on. Without item_popularity there are none.

    Raises ValueError for wrong `ks` or `by`; the action fails on a rank below 1. More is said at
    `ranking_metrics`.
    """
    _check_knobs(ks, by)
    gains = discounts(max(ks))
    return tally(
        lists,
        relevant,
        ks=ks,
        by=by,
        discounts=gains,
        item_popularity=item_popularity,
        item_vectors=item_vectors,
        rare=rare,
    )


def scores_of(tallied: DataFrame, *, ks: Sequence[int], by: Sequence[str] = DEFAULT_BY) -> DataFrame:
    """`user_scores` from the `tallies` of the same lists."""
    users = tallied.where(F.col("item_id").isNull())
    described = [name for name in _names(LOOKS, ks) if name in tallied.columns]
    surprising = [_serendipity(k) for k in ks if f"surprises_{k}" in tallied.columns]
    bounds = [name for name in tallied.columns if name.startswith("n_rare_")]
    rare = [_rare_ndcg(place, k) for place in range(len(bounds)) for k in ks]
    return users.select(*by, "user_id", "n", "shown", *described, *_accuracy(ks), *surprising, *rare)


def averages(
    tallied: DataFrame, *, ks: Sequence[int], by: Sequence[str] = DEFAULT_BY, catalogue_size: int
) -> DataFrame:
    """`ranking_metrics` from the `tallies` of the same lists."""
    if catalogue_size < 1:
        raise ValueError(f"catalogue_size: got {catalogue_size}, expected the number of items, at least 1")
    scores, items = scores_of(tallied, ks=ks, by=by), tallied.where(F.col("item_id").isNotNull())
    accuracy = _of_users(scores, ks)
    looks = [name for name in _names(LOOKS, ks) if name in scores.columns]
    worded = [name for name in looks if name.startswith("diversity")]
    means = scores.groupBy(*by).agg(
        *[order_free_mean(F.col(name)).alias(name) for name in (*accuracy, *looks)],
        F.count_if(F.col("n") > 0).alias("judged"),
        F.count_if(F.col("shown") > 0).alias("listed"),
        *[F.count(name).alias(f"users of {name}") for name in worded],
    )
    wide = means.join(exposures(items, ks=ks, by=by, catalogue_size=catalogue_size), on=[*by], how="left")
    averaged_over = dict.fromkeys(accuracy, "judged")
    averaged_over |= dict.fromkeys([*looks, *_names(EXPOSURE_METRICS, ks)], "listed")
    averaged_over |= {name: f"users of {name}" for name in worded}
    rows = [
        F.struct(F.lit(name).alias("metric"), F.col(name).alias("value"), F.col(users).alias("users"))
        for name, users in averaged_over.items()
    ]
    return wide.select(*by, F.inline(F.array(*rows))).where(F.col("value").isNotNull())


def by_user(scores: DataFrame, *, ks: Sequence[int], by: Sequence[str] = DEFAULT_BY) -> DataFrame:
    """`per_user_metrics` from the `user_scores` of the same lists."""
    judged = scores.where(F.col("n") > 0)
    return judged.unpivot([*by, "user_id"], [*_of_users(scores, ks)], "metric", "value")


def order_free_mean(value: Column) -> Column:
    """The mean of doubles that is the same to the last bit in any order; null if all are null.

    Sums of doubles depend on the order in which partitions arrive; sums of decimals do not. Values are
    rounded to 15 decimals and must stay below 1e13.
    """
    return F.try_divide(F.sum(value.cast("decimal(28,15)")).cast("double"), F.count(value))


def _accuracy(ks: Sequence[int]) -> list[Column]:
    """The per-user metrics, in the order of `_names`, from the sums over slots; null for n = 0."""
    n = F.nullif(F.col("n"), F.lit(0))  # null and not 0: a division by 0 raises
    columns = []
    for k in ks:
        hits = F.col(f"hits_{k}")
        reachable = F.when(n > k, k).otherwise(n)
        reciprocal_rank = F.when(F.col("first") <= k, F.lit(1.0) / F.col("first")).otherwise(0.0)
        values = (
            hits / F.lit(k),
            hits / n,
            hits / reachable,
            F.lit(2.0) * hits / (n + k),
            _ndcg(F.col(f"dcg_{k}"), n, k),
            F.col(f"ap_{k}") / reachable,
            reciprocal_rank,
            (hits > 0).cast("double"),
        )
        columns += [
            F.when(n.isNotNull(), value).alias(f"{name}@{k}")
            for name, value in zip(PER_USER_METRICS, values, strict=True)
        ]
    return columns


def _ndcg(dcg: Column, n: Column, k: int) -> Column:
    """DCG over the most that n relevant items allow within k; null where n is."""
    most = _numbers([*accumulate(discounts(k))])
    return dcg / F.get(most, F.when(n > k, k).otherwise(n).cast("int") - 1)


def _rare_ndcg(place: int, k: int) -> Column:
    n = F.nullif(F.col(f"n_rare_{place}"), F.lit(0))
    return _ndcg(F.col(f"dcg_rare_{place}_{k}"), n, k).alias(f"ndcg_rare_{place}@{k}")


def _serendipity(k: int) -> Column:
    share = F.col(f"surprises_{k}") / F.lit(k)
    return F.when(F.col("n") > 0, share).alias(f"{SERENDIPITY}@{k}")


def _of_users(scores: DataFrame, ks: Sequence[int]) -> list[str]:
    """The metrics that a user with relevant items has, among the columns of `scores`."""
    return [name for name in _names([*PER_USER_METRICS, SERENDIPITY], ks) if name in scores.columns]


def _names(metrics: Sequence[str], ks: Sequence[int]) -> list[str]:
    return [f"{metric}@{k}" for k in ks for metric in metrics]


def discounts(depth: int) -> list[float]:
    """1 / log2(position + 1) for positions 1 to depth."""
    return [1.0 / math.log2(position + 1) for position in range(1, depth + 1)]


def _numbers(values: Sequence[float]) -> Column:
    # As text in one call: `repr` gives every double back exactly, and a call a number is slow.
    return F.expr(f"array({', '.join(f'{value!r}D' for value in values)})")


def _check_knobs(ks: Sequence[int], by: Sequence[str]) -> None:
    if not ks or min(ks) < 1 or len(set(ks)) < len(ks):
        raise ValueError(f"ks: got {list(ks)}, expected distinct list lengths of at least 1")
    if not by or "user_id" in by or "item_id" in by:
        raise ValueError(
            f"by: got {list(by)}, expected columns that name a group of lists, such as task, model"
        )
