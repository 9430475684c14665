"""Matrix factorization (Hu, Koren, Volinsky 2008; explicit where ratings exist), by one of two trainers.

`mllib` is Spark's own, solves each row exactly and is the reference. `cg` minimises the same loss by
conjugate gradient (see `cg`), is faster, can begin from an earlier night and stops when it has settled. Two
more, `svd` and `item2vec`, are not ALS: other factors for its place in the blend (see `linear`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Als
from recsys_spark.models.als.cg import fit_cg
from recsys_spark.models.als.factors import Factors, IndexedPairs, Iteration, index_pairs
from recsys_spark.models.als.linear import fit_linear
from recsys_spark.models.als.loss import loss_of
from recsys_spark.models.als.solve import Objective

__all__ = ["Factors", "fit_als"]


def fit_als(
    preferences: DataFrame,
    settings: Als,
    *,
    start: Factors | None = None,
    is_measured: bool = True,
    events: Callable[[], DataFrame] | None = None,
) -> Factors:
    """Factors for every user and item with a preference, and the loss they reach.

    Indexes are the rank of the sorted ids.

    preferences: unique (user_id, item_id, strength), above 0; with explicit feedback strength is the rating.
    settings: the trainer and its knobs.
    start: an earlier night's factors to begin from, for trainer "cg" only.
    is_measured: whether MLlib's loss is computed, which costs a pass over the pairs.
    events: gives what speaks for items; trainer "item2vec" asks for it, and no other.

    Raises NothingToLearnError where there is no preference, InputError where the loss of "cg" is no number,
    ConfigError where the settings do not fit the pairs, the start or the driver's memory.
    """
    if settings.is_linear:
        return fit_linear(preferences, settings, events=events)
    indexed = index_pairs(preferences)
    if settings.trainer == "cg":
        return fit_cg(indexed, settings, start=start)
    return _fit_mllib(indexed, settings, is_measured=is_measured)


def _fit_mllib(indexed: IndexedPairs, settings: Als, *, is_measured: bool) -> Factors:
    """MLlib's factors, and their loss after the iterations whose loss is wanted."""
    factors, spent = _after(settings.iterations, indexed, settings)
    if not is_measured:
        return factors
    history = []
    for iteration in _measured(settings):
        then, seconds = _after(iteration, indexed, settings)
        history.append(Iteration(iteration, _loss(then, indexed, settings), seconds))
    history.append(Iteration(settings.iterations, _loss(factors, indexed, settings), spent))
    return Factors(factors.users, factors.items, tuple(history))


def _measured(settings: Als) -> range:
    """The iterations before the last whose loss is wanted: a fit of its own for each."""
    every = settings.loss_every or settings.iterations
    return range(every, settings.iterations, every)


def _after(iterations: int, indexed: IndexedPairs, settings: Als) -> tuple[Factors, float]:
    """MLlib's factors after so many iterations, and the seconds.

    With the same seed a shorter fit is the beginning of a longer one; MLlib tells nobody of it while it goes
    on. Its float sums follow the order of its input, which is therefore sorted.
    """
    began = time.perf_counter()
    ordered = indexed.pairs.repartitionByRange(settings.user_blocks, "user_index").sortWithinPartitions(
        "user_index", "item_index"
    )
    model = mllib_estimator(settings, iterations).fit(ordered)
    factors = Factors(
        _named(model.userFactors, indexed.users, index_column="user_index", id_column="user_id"),
        _named(model.itemFactors, indexed.items, index_column="item_index", id_column="item_id"),
    )
    return factors, time.perf_counter() - began


def _loss(factors: Factors, indexed: IndexedPairs, settings: Als) -> float:
    return loss_of(factors, indexed, Objective.of(settings), driver_pairs=settings.driver_pairs)


def mllib_estimator(settings: Als, iterations: int) -> ALS:
    """Spark MLlib's ALS as the settings want it, over indexed pairs, with so many iterations."""
    return ALS(
        userCol="user_index",
        itemCol="item_index",
        ratingCol="strength",
        implicitPrefs=settings.feedback == "implicit",
        rank=settings.rank,
        maxIter=iterations,
        regParam=settings.regularization,
        alpha=settings.alpha,
        numUserBlocks=settings.user_blocks,
        numItemBlocks=settings.item_blocks,
        checkpointInterval=settings.checkpoint_interval,
        seed=settings.seed,
        coldStartStrategy="nan",
    )


def _named(factors: DataFrame, ids: DataFrame, *, index_column: str, id_column: str) -> DataFrame:
    indexed = factors.select(F.col("id").alias(index_column), F.col("features").alias("factors"))
    return indexed.join(ids, on=index_column, how="inner").select(index_column, id_column, "factors")
