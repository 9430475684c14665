"""The pairs of one side as CSR blocks in Spark's cache, and runs of a function over them.

Row i belongs to block i mod blocks, whatever the cluster; its pairs are sorted by column. A block is held
in chunks, so that no record comes near the 2 GB that a JVM array can hold.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import RDD, CPickleSerializer, StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.errors import ConfigError
from recsys_spark.models.als.solve import Rows
from recsys_spark.runtime.batches import gathered
from recsys_spark.runtime.session_settings import LARGE_BATCHES, session_settings
from recsys_spark.runtime.workers import warm_worker

CHUNK_PAIRS = 1 << 20
PIECE_PAIRS = 1 << 20  # of a task, split together
PIECE_SCHEMA = "part int, pickled binary"
Record = tuple[int, int, bytes, bytes, bytes]  # a chunk: block, first, indptr, indices, data


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

    first: the partition of `chunks` that holds the side's first block; the others follow. held: all chunks,
    where they are so few that the driver works on them itself, in its own threads.
    """

    spark: SparkSession
    chunks: RDD[Any] | None
    n_rows: int
    n_blocks: int
    first: int = 0
    held: list[Any] | None = None

    def run(self, work: Callable[[Chunk], Any], *, bytes_per_row: int) -> Iterator[list[Any]]:
        """work(chunk) of all chunks, ordered by row, in as many jobs as the driver's result limit asks for.

        bytes_per_row: of a result. ConfigError where a single block's results pass the limit.
        """
        if self.held is not None:
            with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as threads:
                results = list(threads.map(lambda record: next(_each(work)([record])), self.held))
            yield [result for _, result in sorted(results, key=lambda one: one[0])]
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
        end = self.first + self.n_blocks
        for start in range(self.first, end, at_once):
            partitions = list(range(start, min(start + at_once, end)))
            context = self.spark.sparkContext
            results = context.runJob(self.chunks, _on_worker(work), partitions)
            yield [result for _, result in sorted(results, key=lambda one: one[0])]

    def release(self) -> None:
        if self.chunks is not None:
            self.chunks.unpersist()


@dataclass(frozen=True)
class Cut:
    """How pairs are cut: by this column's rows (0 … n_rows − 1, each with a pair), into so many blocks."""

    row: str
    column: str
    n_rows: int
    n_blocks: int


def blocks_of(pairs: DataFrame, cuts: Sequence[Cut], *, value: str) -> list[Blocks]:
    """Cut pairs (int, int, value float; unique) into blocks, once for each of `cuts`, and cache them.

    The pairs are read once for all cuts, and travel as columns in pieces of some megabytes: row by row their
    shuffle took half of the time of a training of ten iterations.
    """
    spark = pairs.sparkSession
    cuts = [replace(cut, n_blocks=min(cut.n_blocks, cut.n_rows)) for cut in cuts]
    first = [sum(cut.n_blocks for cut in cuts[:n]) for n in range(len(cuts) + 1)]
    names = list(dict.fromkeys(name for cut in cuts for name in (cut.row, cut.column)))
    with session_settings(spark, LARGE_BATCHES):
        pieces = pairs.select(*names, value).mapInArrow(
            _splitting(cuts, first, value, PIECE_PAIRS), PIECE_SCHEMA
        )
        by_block = _unpickled(pieces.repartitionById(first[-1], F.col("part")).select("pickled"))
    # Piece by piece and not by Arrow, whose batches know no limit here: one would hold a whole block.
    chunks = by_block.mapPartitions(_cutting(first), preservesPartitioning=True)
    chunks.persist(StorageLevel.MEMORY_AND_DISK)
    return [
        Blocks(spark, chunks, cut.n_rows, cut.n_blocks, at) for cut, at in zip(cuts, first[:-1], strict=True)
    ]


def blocks_held(spark: SparkSession, pairs: pa.Table, cut: Cut, *, value: str) -> Blocks:
    """The same blocks of pairs that the driver has, for it to work on itself."""
    n_blocks = min(cut.n_blocks, cut.n_rows)
    rows, columns, values = (pairs.column(name).to_numpy() for name in (cut.row, cut.column, value))
    blocks = _by_block(rows, columns, values, n_blocks)
    records = [record for block in blocks for record in _chunks_of(*block)]
    return Blocks(spark, None, cut.n_rows, n_blocks, held=records)


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
        warm_worker()
        return each(records)

    return of_partition


def _unpickled(frame: DataFrame) -> RDD[Any]:
    """What the frame's only column holds, pickled by Python; as an RDD that hands the bytes on as they are.

    DataFrame.rdd would pickle each row in the JVM, bytes as text, for Python to read and pickle once more.
    """
    spark = frame.sparkSession
    frames: Any = frame._jdf  # noqa: SLF001 - the JVM's frame
    jvm: Any = spark.sparkContext._jvm  # noqa: SLF001
    as_bytes = getattr(frames, "as")(jvm.org.apache.spark.sql.Encoders.BINARY())
    return RDD(as_bytes.toJavaRDD(), spark.sparkContext, CPickleSerializer())


def _splitting(
    cuts: Sequence[Cut], first: Sequence[int], value: str, at_once: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Pairs to pieces: of so many at once those of each block, its rows counted within the block."""

    def split(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        warm_worker()
        for some in gathered(batches, at_once):
            for cut, start in zip(cuts, first, strict=False):
                rows, columns, values = (
                    some.column(name).to_numpy() for name in (cut.row, cut.column, value)
                )
                pieces = [
                    (start + block, *(one.tobytes() for one in own))
                    for block, *own in _by_block(rows, columns, values, cut.n_blocks)
                ]
                parts = pa.array([piece[0] for piece in pieces], pa.int32())
                pickled = pa.array([pickle.dumps(piece, pickle.HIGHEST_PROTOCOL) for piece in pieces])
                yield pa.RecordBatch.from_arrays([parts, pickled], names=["part", "pickled"])

    return split


def _by_block(row: Any, column: Any, value: Any, n_blocks: int) -> Iterator[tuple[int, Any, Any, Any]]:
    """Of each block that has pairs (block, row within it, column, value); int32, int32, float32."""
    within, block = np.divmod(row, n_blocks)
    small = block.astype(np.uint16 if n_blocks < 1 << 16 else np.int64)  # sorted by counting
    order = np.argsort(small, kind="stable")
    ends = np.cumsum(np.bincount(block, minlength=n_blocks))
    begins = np.concatenate([[0], ends[:-1]])
    kinds = (within, np.int32), (column, np.int32), (value, np.float32)
    ordered = [one[order].astype(kind, copy=False) for one, kind in kinds]
    for number in np.flatnonzero(ends > begins):
        here = slice(begins[number], ends[number])
        yield int(number), ordered[0][here], ordered[1][here], ordered[2][here]


def _cutting(first: Sequence[int]) -> Callable[[Iterable[Any]], Iterator[Record]]:
    """All pieces of a partition (those of a block) to its chunks."""

    def cut(records: Iterable[Any]) -> Iterator[Record]:
        warm_worker()
        pieces: dict[int, list[tuple[Any, Any, Any]]] = {}
        for part, row, column, data in records:
            arrays = (np.frombuffer(row, np.int32), np.frombuffer(column, np.int32))
            pieces.setdefault(part, []).append((*arrays, np.frombuffer(data, np.float32)))
        for part in sorted(pieces):
            row, column, value = (np.concatenate(arrays) for arrays in zip(*pieces.pop(part), strict=True))
            block = part - max(start for start in first if start <= part)
            yield from _chunks_of(block, row, column, value)

    return cut


def _chunks_of(block: int, row: Any, column: Any, value: Any) -> Iterator[Record]:
    # Counted into columns, then into rows: a third of the time of a sort. The pairs are unique.
    pairs = sparse.coo_matrix((value, (row, column)))
    pairs.has_canonical_format = True
    matrix = pairs.tocsc().tocsr()
    indptr = matrix.indptr.astype(np.int64)
    first = 0
    while first < indptr.size - 1:
        last = int(np.searchsorted(indptr, indptr[first] + CHUNK_PAIRS, side="right")) - 1
        last = max(last, first + 1)
        here = slice(indptr[first], indptr[last])
        yield (
            block,
            first,
            (indptr[first : last + 1] - indptr[first]).tobytes(),
            matrix.indices[here].astype(np.int32, copy=False).tobytes(),
            matrix.data[here].tobytes(),
        )
        first = last


def _result_limit(spark: SparkSession) -> int:
    """Bytes that a job may send to the driver, with room for what goes with them; 0: no limit."""
    context = spark.sparkContext
    text = str(context.getConf().get("spark.driver.maxResultSize", "1g"))
    jvm: Any = context._jvm  # noqa: SLF001 - Spark's own units
    return int(jvm.org.apache.spark.network.util.JavaUtils.byteStringAsBytes(text)) * 8 // 10
