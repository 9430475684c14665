"""Which of a batch's rows have a twin: found by their identities alone, so that no other row has to wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean, Source
from recsys_spark.data.kinds import KINDS
from recsys_spark.data.kinds.values import is_missing
from recsys_spark.runtime.session_settings import LARGE_BATCHES, session_settings

KEY = "_key"
_ROWS_TOGETHER = 4_000_000  # are one task's: 32 MB, sorted
_NONE = np.empty(0, np.int64)


def identity_hash(kind: str) -> Column:
    """64 bits of a judged row's identity, as `repeated_keys` names them."""
    return F.xxhash64(*KINDS[kind].identity)


def repeated_keys(
    bronze: DataFrame, kind: str, *, rows: int, clean: Clean, sources: Mapping[str, Source]
) -> DataFrame:
    """(KEY): the hash of each identity that more than one of so many bronze rows has.

    Two identities of one hash count as one that is repeated, and rejected rows count too. Who looks for twins
    finds all of them below these keys, and a few rows that have none.

    bronze: the batch's rows as they were delivered.
    kind: of the rows, a key of KINDS; it says what an identity is.
    rows: how many `bronze` has; each task gets some millions.
    clean: the section that silver's columns are made by.
    sources: the section of each source by its name.
    """
    cores = bronze.sparkSession.sparkContext.defaultParallelism
    partitions = cores * -(-rows // (cores * _ROWS_TOGETHER))  # as many for each core
    columns, _ = KINDS[kind].typed(clean, sources)
    identity = [columns[name] for name in KINDS[kind].identity]
    if own := KINDS[kind].own_id:
        # Most sources name their events: then no other column has to be read.
        named = F.when(~is_missing(own, sources), F.xxhash64(*identity[:-1], F.col(own)))
        keys = _more_than_once(bronze.select(named.alias(KEY)), partitions)
        if keys.where(F.col(KEY).isNull()).isEmpty():
            return keys
    return _more_than_once(bronze.select(F.xxhash64(*identity).alias(KEY)), partitions)


def _more_than_once(keys: DataFrame, partitions: int) -> DataFrame:
    """The keys that stand in several rows, once each, and null where one is null; computed now."""
    with session_settings(keys.sparkSession, LARGE_BATCHES):
        return keys.repartition(partitions, KEY).mapInArrow(_twins, f"{KEY} long").localCheckpoint()


def _twins(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    columns = [batch.column(0) for batch in batches]
    has_null = any(column.null_count for column in columns)
    keys = np.sort(np.concatenate([column.drop_null().to_numpy() for column in columns] or [_NONE]))
    twins = np.unique(keys[1:][keys[1:] == keys[:-1]])
    nulls = pa.nulls(int(has_null), pa.int64())
    yield pa.RecordBatch.from_arrays([pa.concat_arrays([nulls, pa.array(twins, pa.int64())])], [KEY])
