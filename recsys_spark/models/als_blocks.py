"""The pairs of one side as CSR blocks in Spark's cache, and runs of a function over them.

Row i belongs to block i mod blocks, whatever the cluster; its pairs are sorted by column. A block is held
in chunks, so that no record comes near the 2 GB that a JVM array can hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import RDD, StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.errors import ConfigError
from recsys_spark.lake.workers import settle
from recsys_spark.models.als_solve import Rows

CHUNK_PAIRS = 1 << 20
CHUNK_SCHEMA = "block int, first int, indptr binary, indices binary, data binary"
BATCH_ROWS = "100000"  # pairs are small rows: the session's 1,024 would spend the time on batches
BATCH = "spark.sql.execution.arrow.maxRecordsPerBatch"


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a block: those with index block + blocks · (first, first + 1, …)."""

    block: int
    first: int
    rows: Rows

    @property
    def n_rows(self) -> int:
        return int(self.rows.indptr.size) - 1


@dataclass(frozen=True)
class Blocks:
    """One side's pairs by rows: n_rows rows over n_blocks blocks, cached until `release()`.

    held: all chunks, where they are so few that the driver works on them itself, in its own threads.
    """

    spark: SparkSession
    chunks: RDD[Any] | None
    n_rows: int
    n_blocks: int
    held: list[Any] | None = None

    def run(self, work: Callable[[Chunk], Any], *, bytes_per_row: int) -> Iterator[list[Any]]:
        """work(chunk) of all chunks, ordered by row, in as many jobs as the driver's result limit asks for.

        bytes_per_row: of a result. ConfigError where a single block's results pass the limit.
        """
        if self.held is not None:
            with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as threads:
                found = list(threads.map(lambda record: next(_each(work)([record])), self.held))
            yield [result for _, result in sorted(found, key=lambda one: one[0])]
            return
        if self.chunks is None:
            raise RuntimeError("blocks that nobody holds")
        per_block = -(-self.n_rows // self.n_blocks) * bytes_per_row
        limit = _result_limit(self.spark)
        if limit and per_block > limit:
            raise ConfigError(
                f"als: the factors of one block take {per_block / 1e9:.2f} GB ({self.n_rows:,} rows over "
                f"{self.n_blocks} blocks), spark.driver.maxResultSize is {limit / 1e9:.2f} GB. "
                "Next: raise als.user_blocks and als.item_blocks."
            )
        at_once = max(1, limit // max(per_block, 1)) if limit else self.n_blocks
        n_partitions = self.chunks.getNumPartitions()
        for first in range(0, n_partitions, at_once):
            partitions = list(range(first, min(first + at_once, n_partitions)))
            context = self.spark.sparkContext
            found = context.runJob(self.chunks, _on_worker(work), partitions)
            yield [result for _, result in sorted(found, key=lambda one: one[0])]

    def release(self) -> None:
        if self.chunks is not None:
            self.chunks.unpersist()


def blocks_of(
    pairs: DataFrame,
    *,
    row: str,
    column: str,
    value: str,
    n_rows: int,
    n_blocks: int,
) -> Blocks:
    """Cut pairs (row int, column int, value float; unique) into blocks by row, and cache them."""
    n_blocks = min(n_blocks, n_rows)
    by_block = pairs.select(row, column, value).repartitionById(
        n_blocks, F.pmod(F.col(row), F.lit(n_blocks)).cast("int")
    )
    with _large_batches(pairs.sparkSession):
        frame = by_block.mapInArrow(_cutting(n_blocks), CHUNK_SCHEMA)
        chunks = frame.rdd.map(_chunk, preservesPartitioning=True)
        chunks.persist(StorageLevel.MEMORY_AND_DISK)
    return Blocks(pairs.sparkSession, chunks, n_rows, n_blocks)


def blocks_held(
    spark: SparkSession, pairs: pa.Table, *, row: str, column: str, value: str, n_rows: int, n_blocks: int
) -> Blocks:
    """The same blocks of pairs that the driver has, for it to work on itself."""
    n_blocks = min(n_blocks, n_rows)
    rows, columns, values = (pairs.column(name).to_numpy() for name in (row, column, value))
    batches = _blocks_cut(rows, columns, values, n_blocks)
    records = [record for batch in batches for record in zip(*batch.to_pydict().values(), strict=True)]
    return Blocks(spark, None, n_rows, n_blocks, records)


def _each(work: Callable[[Chunk], Any]) -> Callable[[Iterable[Any]], Iterator[Any]]:
    def of_partition(records: Iterable[Any]) -> Iterator[Any]:
        for block, first, indptr, indices, data in records:
            rows = Rows(
                np.frombuffer(indptr, np.int64),
                np.frombuffer(indices, np.int32),
                np.frombuffer(data, np.float32),
            )
            yield (block, first), work(Chunk(block, first, rows))

    return of_partition


def _on_worker(work: Callable[[Chunk], Any]) -> Callable[[Iterable[Any]], Iterator[Any]]:
    each = _each(work)

    def of_partition(records: Iterable[Any]) -> Iterator[Any]:
        settle()
        return each(records)

    return of_partition


def _chunk(row: Any) -> tuple[int, int, bytes, bytes, bytes]:
    return row[0], row[1], bytes(row[2]), bytes(row[3]), bytes(row[4])


def _cutting(n_blocks: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """All pairs of a partition (a block, or several) to the chunks of its blocks."""

    def cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        settle()
        parts = [[column.to_numpy(zero_copy_only=False) for column in batch.columns] for batch in batches]
        parts = [part for part in parts if part[0].size]
        if not parts:
            return
        row, column, value = (np.concatenate([part[n] for part in parts]) for n in range(3))
        parts.clear()
        yield from _blocks_cut(row, column, value, n_blocks)

    return cut


def _blocks_cut(row: Any, column: Any, value: Any, n_blocks: int) -> Iterator[pa.RecordBatch]:
    block_of = row % n_blocks
    for block in np.unique(block_of):
        own = block_of == block
        yield from _chunks_of(int(block), row[own] // n_blocks, column[own], value[own])


def _chunks_of(block: int, row: Any, column: Any, value: Any) -> Iterator[pa.RecordBatch]:
    order = np.argsort((row.astype(np.int64) << 32) | column)  # unique keys: any sort gives the same order
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row))]).astype(np.int64)
    first = 0
    while first < indptr.size - 1:
        last = int(np.searchsorted(indptr, indptr[first] + CHUNK_PAIRS, side="right")) - 1
        last = max(last, first + 1)
        here = order[indptr[first] : indptr[last]]
        columns = (
            (indptr[first : last + 1] - indptr[first]).tobytes(),
            column[here].astype(np.int32).tobytes(),
            value[here].astype(np.float32).tobytes(),
        )
        yield pa.RecordBatch.from_arrays(
            [
                pa.array([block], pa.int32()),
                pa.array([first], pa.int32()),
                *(pa.array([one], pa.binary()) for one in columns),
            ],
            names=["block", "first", "indptr", "indices", "data"],
        )
        first = last


@contextmanager
def _large_batches(spark: SparkSession) -> Iterator[None]:
    before = str(spark.conf.get(BATCH))
    spark.conf.set(BATCH, BATCH_ROWS)
    try:
        yield
    finally:
        spark.conf.set(BATCH, before)


def _result_limit(spark: SparkSession) -> int:
    """Bytes that a job may send to the driver, with room for what goes with them; 0: no limit."""
    context = spark.sparkContext
    text = str(context.getConf().get("spark.driver.maxResultSize", "1g"))
    jvm: Any = context._jvm  # noqa: SLF001 - Spark's own units
    return int(jvm.org.apache.spark.network.util.JavaUtils.byteStringAsBytes(text)) * 8 // 10
