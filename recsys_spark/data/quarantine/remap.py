"""Delivered files read again: what their rows are under today's mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Source
from recsys_spark.data.pseudonyms import without_plain_ids
from recsys_spark.data.sources import (
    SourceFile,
    bronze_rows,
    content_of,
    file_at,
    read_source,
    with_content_hash,
)
from recsys_spark.errors import RecsysError
from recsys_spark.lake.tables import FIELDS_BY_KIND

_FILE_FORMATS = ("csv", "jsonl", "parquet")


def rows_again(
    spark: SparkSession,
    name: str,
    source: Source,
    *,
    taken: Mapping[str, tuple[str, int]],
    key: bytes | None,
) -> tuple[DataFrame | None, str]:
    """Bronze rows of the source's files that still lie unchanged where they were taken from, and a note.

    The note says in words why there are no rows (None), or how many of the files were read; it is empty where
    all of them were. A file that has another number of rows under today's mapping is left out. Its rows are
    others, and what stood in row 7 cannot be found again by its number. Nothing is raised for a file that
    cannot be read.

    spark: the session.
    name: of the source.
    source: its section, with today's mapping.
    taken: content key -> (file, its rows in bronze).
    key: for pseudonyms of user ids; None where they are off.
    """
    if source.format not in _FILE_FORMATS:
        return None, f"{source.format} sources are not read again"
    files = [file for content, (place, _) in taken.items() if (file := _unchanged(spark, place, content))]
    if not files:
        return None, f"none of {len(taken)} files lies unchanged where it was taken from"
    try:
        rows = _mapped_again(spark, name, source, files, key)
        counts = {row["content_hash"]: row["count"] for row in rows.groupBy("content_hash").count().collect()}
    except RecsysError as error:
        return None, f"not read again, because {error}"
    same = [content for content, count in counts.items() if count == taken[content][1]]
    if not same:
        return (
            None,
            "its files have another number of rows under today's mapping; deliver their rows in a new file",
        )
    note = "" if len(same) == len(taken) else f"{len(same)} of {len(taken)} files read again"
    return rows.where(F.col("content_hash").isin(same)), note


def remapped(bronze: DataFrame, again: DataFrame, *, payload: Sequence[str]) -> DataFrame:
    """Bronze rows with the payload of `again` where it has them, and the boolean `is_changed`.

    again: bronze rows of some of the same files under another mapping. All that tells of the delivery
    (file, time, night) stays as it was.
    """
    names = ("malformed", *payload)
    key = ["source", "content_hash", "row"]
    fresh = again.select(*key, F.struct(*names).alias("_fresh"))
    joined = bronze.withColumn("_stored", F.struct(*names)).join(fresh, on=key, how="left")
    is_fresh = F.col("_fresh").isNotNull()
    changed = is_fresh & ~F.col("_fresh").eqNullSafe(F.col("_stored"))
    values = {
        name: F.when(is_fresh, F.col(f"_fresh.{name}")).otherwise(F.col(f"_stored.{name}")) for name in names
    }
    return joined.withColumns({**values, "is_changed": changed}).select(*bronze.columns, "is_changed")


def _unchanged(spark: SparkSession, place: str, key: str) -> SourceFile | None:
    """The file where it still lies at its place with the same content."""
    try:
        file = file_at(spark, place)
        is_same = file is not None and with_content_hash(spark, file).content_hash == content_of(key)
    except RecsysError:
        return None
    return replace(file, content_hash=key) if file is not None and is_same else None


def _mapped_again(
    spark: SparkSession, name: str, source: Source, files: Sequence[SourceFile], key: bytes | None
) -> DataFrame:
    # A file that was taken twice, with another content in between, is read once and has two keys.
    once = list({file.uri: file for file in files}.values())
    mapped = without_plain_ids(read_source(spark, name, source, once), source, key)
    never_used = date(1970, 1, 1)
    payload = FIELDS_BY_KIND[source.kind]
    return bronze_rows(mapped, name=name, files=files, run_date=never_used, payload=payload)
