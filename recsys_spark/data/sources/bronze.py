"""Bronze rows: the payload as it came, tied to its file, content and delivery."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.sources.files import SourceFile
from recsys_spark.runtime.rows import frame_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def bronze_rows(
    rows: DataFrame, *, name: str, files: Sequence[SourceFile], run_date: date, payload: Iterable[str]
) -> DataFrame:
    """Bronze rows of one source: the payload as strings, tied to file, content and delivery.

    rows: source_file, row (from 0 in its file), malformed, and mapped fields.
    name: of the source.
    files: all files that the rows may be of; a row of another one stops the job that reads it.
    run_date: the night that takes the files in.
    payload: bronze's own columns of the kind; those that `rows` lack are null.
    """
    return _with_file(rows, files).select(
        F.lit(name).alias("source"),
        F.col("uri").alias("source_file"),
        "content_hash",
        "row",
        F.timestamp_millis("modified_ms").alias("delivered_at"),
        F.current_timestamp().alias("ingested_at"),
        F.lit(run_date).alias("ingest_date"),
        "malformed",
        *_texts(rows, payload),
    )


def rows_by_file(rows: DataFrame, *, files: Sequence[SourceFile], payload: Iterable[str]) -> DataFrame:
    """The same rows without what all rows of a file share: `part` is the file's number among `files`."""
    return _with_file(rows, files).select("part", "row", "malformed", *_texts(rows, payload))


def shared_by_file(
    *, name: str, files: Sequence[SourceFile], run_date: date
) -> dict[str, dict[str, date | datetime | str]]:
    """part -> what all bronze rows of that file share (OF_THE_FILE)."""
    now = datetime.now(UTC)
    return {
        f"{number}": {
            "ingest_date": run_date,
            "source": name,
            "source_file": file.uri,
            "content_hash": file.content_hash,
            "delivered_at": _EPOCH + timedelta(milliseconds=file.modified_ms),
            "ingested_at": now,
        }
        for number, file in enumerate(files)
    }


def _with_file(rows: DataFrame, files: Sequence[SourceFile]) -> DataFrame:
    """The rows with part (the file's number), uri, content_hash and modified_ms of their file."""
    deliveries = frame_of(
        rows.sparkSession,
        [
            (spelling, number, file.uri, file.content_hash, file.modified_ms)
            for number, file in enumerate(files)
            for spelling in sorted(_spellings(file.uri))
        ],
        "source_file string, part int, uri string, content_hash string, modified_ms long",
    )
    # A row whose file is unknown would be lost in silence by an inner join; this stops instead.
    unknown = F.raise_error(F.concat(F.lit("unlisted file "), "source_file"))
    known = rows.join(F.broadcast(deliveries), on="source_file", how="left")
    return known.withColumns(
        {
            "part": F.coalesce("part", unknown.cast("int")),
            "uri": F.coalesce("uri", unknown.cast("string")),
        }
    )


def _texts(rows: DataFrame, payload: Iterable[str]) -> list[Column]:
    have = set(rows.columns)
    return [(F.col(field) if field in have else F.lit(None)).cast("string").alias(field) for field in payload]


def _spellings(uri: str) -> set[str]:
    """Spark writes file:/x in some readers and file:///x in others."""
    short = one_slash(uri)
    return {uri, short, short.replace(":/", ":///", 1)}


def one_slash(uri: str) -> str:
    """`file:/x` for `file:///x`: one spelling of each file."""
    return re.sub(r"^(\w+):/+", r"\1:/", uri)
