"""Rows spread by ranges of a key, so that what is written is in order without a sort of the whole."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

_SAMPLED = 100  # keys for each bound between partitions


def in_ranges(rows: DataFrame, key: Sequence[str], *, keys: DataFrame, partitions: int) -> DataFrame:
    """The rows in partitions that are ranges of the key, texts that are never null, in ascending order.

    The bounds come from a sample of `keys`, the rows' keys, each at least once; rows of one key stay together
    whatever the sample. Spark's repartitionByRange computes its rows twice, the first time for its sample.
    """
    drawn = keys.select(*key).orderBy(F.xxhash64(*key), *key).limit(_SAMPLED * partitions)
    sampled = sorted(tuple(row) for row in drawn.collect())
    bounds = sorted(
        {sampled[len(sampled) * part // partitions] for part in range(1, partitions)} if sampled else ()
    )
    return rows.repartitionById(partitions, bounds_reached(key, bounds))


def bounds_reached(key: Sequence[str], bounds: Sequence[Sequence[str]], before: int = 0) -> Column:
    """`before`, and how many of the ascending bounds the row's key reaches.

    By bisection: of two thousand bounds a row is compared with eleven, and Spark's plan is as deep as that.
    """
    if not bounds:
        return F.lit(before)
    middle = len(bounds) // 2
    beyond = bounds_reached(key, bounds[middle + 1 :], before + middle + 1)
    return F.when(_reaches(key, bounds[middle]), beyond).otherwise(
        bounds_reached(key, bounds[:middle], before)
    )


def _reaches(key: Sequence[str], bound: Sequence[str]) -> Column:
    """Whether the row's key is the bound or comes after it."""
    (name, *names), (value, *values) = key, bound
    if not names:
        return F.col(name) >= F.lit(value)
    return (F.col(name) > F.lit(value)) | ((F.col(name) == F.lit(value)) & _reaches(names, values))
