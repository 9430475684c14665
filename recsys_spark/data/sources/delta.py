"""Delta tables that others write, taken once a version."""

from __future__ import annotations

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Source
from recsys_spark.data.sources.columns import Layout
from recsys_spark.data.sources.files import SourceFile
from recsys_spark.data.sources.lines import Numbered, numbered
from recsys_spark.data.sources.mapping import FILE, MALFORMED, ROW, their_columns
from recsys_spark.lake.outside import outside_rows, outside_version
from recsys_spark.lake.schema import column
from recsys_spark.runtime.rows import frame_of

_BEFORE = "__recsys_before"


def look_at_delta(spark: SparkSession, name: str, source: Source, path: str) -> Layout:
    """The table at its newest or the configured version; the version is the content's key."""
    version = outside_version(spark, name, path, source.version)
    place = f"{path.rstrip('/')}@v{version.number}"
    table = SourceFile(place, place, 0, version.committed_ms, f"delta-{version.table_id}-v{version.number}")
    schema = outside_rows(spark, path, version.number).schema
    return Layout(table, tuple((field.name, field.dataType.simpleString()) for field in schema))


def scan_delta(spark: SparkSession, source: Source, path: str, layout: Layout, number: int) -> Numbered:
    """The version's rows; a row's number is its place among the table's data files in the order of names.

    spark: the session.
    source: its section; only the columns that it maps are read.
    path: of the table.
    layout: as `look_at_delta` gives it; its file is what all rows are said to be of.
    number: of the version.
    """
    scanned = numbered(outside_rows(spark, path, number))
    before, starts = 0, []
    for file, rows in sorted(scanned.rows.items()):
        starts.append((file, before))
        before += rows
    files = F.broadcast(frame_of(spark, starts, f"{FILE} string, {_BEFORE} long"))
    placed = scanned.frame.join(files, on=FILE, how="left").select(
        F.lit(layout.file.uri).alias(FILE),
        (F.col(_BEFORE) + F.col(ROW)).alias(ROW),
        F.lit(None).cast("string").alias(MALFORMED),
        *[column(theirs) for theirs in their_columns(source)],
    )
    return Numbered(placed, scanned.rows)
