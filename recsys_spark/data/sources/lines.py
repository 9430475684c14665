"""The lines of text files, numbered within their file, and read to the end before anything is written."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from recsys_spark.data.sources.mapping import FILE, ROW
from recsys_spark.runtime.rows import frame_of

_BLOCKS = f"{FILE} string, _block long, _first long, _rows long, _before long"


@dataclass(frozen=True)
class Numbered:
    """A scan with its file and row; `rows` counts its rows by file, or those that `is_row` holds for."""

    frame: DataFrame
    rows: dict[str, int]


def numbered(scan: DataFrame, *, is_row: Column | None = None) -> Numbered:
    """Adds the file and the row's place in it from 0, whatever the splits.

    Text formats have no row index. A row's place in its Spark partition is known for free; a count
    by file and block, run here, turns it into the place in the file. That pass also reads every file
    to its end, so a cut-off or vanished one is found before anything is written. The second pass
    stops should Spark split the files otherwise than the first did.
    """
    placed = scan.select(
        "*",
        F.col("_metadata.file_path").alias(FILE),
        F.col("_metadata.file_block_start").alias("_block"),
        F.monotonically_increasing_id().alias("_at"),
    )
    counted = placed.groupBy(FILE, "_block").agg(
        F.min("_at").alias("_first"),
        F.count(F.lit(1)).alias("_rows"),
        (F.count(F.lit(1)) if is_row is None else F.count_if(is_row)).alias("_counted"),
    )
    blocks, rows = _cumulated(counted.collect())
    if len(blocks) == 1:
        [(file, _, first, count, _)] = blocks
        known = placed.withColumn("_first", F.lit(first)).withColumn("_rows", F.lit(count))
        known = known.withColumn("_before", F.when(F.col(FILE) == file, F.lit(0)))
    else:
        starts = F.broadcast(frame_of(scan.sparkSession, blocks, _BLOCKS))
        known = placed.join(starts, on=[FILE, "_block"], how="left")
    return Numbered(known.withColumn(ROW, _row()).drop("_block", "_at", "_first", "_rows", "_before"), rows)


def _row() -> Column:
    place = F.col("_at") - F.col("_first")
    is_known = F.col("_before").isNotNull() & (place >= 0) & (place < F.col("_rows"))
    moved = F.raise_error(F.concat(F.lit("Spark split this file in two ways: "), FILE))
    return F.when(is_known, place + F.col("_before")).otherwise(moved.cast("long"))


def _cumulated(counted: list[Row]) -> tuple[list[tuple[str, int, int, int, int]], dict[str, int]]:
    """Each block with the rows before it in its file, and the counted rows of each file."""
    before: dict[str, int] = {}
    rows: dict[str, int] = {}
    blocks = []
    for file, block, first, count, rows_of_block in sorted(map(tuple, counted)):
        blocks.append((file, block, first, count, before.get(file, 0)))
        before[file] = before.get(file, 0) + count
        rows[file] = rows.get(file, 0) + rows_of_block
    return blocks, rows
