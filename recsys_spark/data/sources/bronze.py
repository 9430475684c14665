"""Bronze rows: the payload as it came, tied to its file, content and delivery."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.sources.files import SourceFile
from recsys_spark.lake.rows import frame_of


def bronze_rows(
    rows: DataFrame, *, name: str, files: Sequence[SourceFile], run_date: date, payload: Iterable[str]
) -> DataFrame:
    """Bronze rows of one source: the payload as strings, tied to file, content and delivery."""
    spark = rows.sparkSession
    deliveries = frame_of(
        spark,
        [
            (spelling, file.content_hash, file.modified_ms)
            for file in files
            for spelling in sorted(_spellings(file.uri))
        ],
        "source_file string, content_hash string, modified_ms long",
    )
    have = set(rows.columns)
    # A row whose file is unknown would be lost in silence by an inner join; this stops instead.
    unknown = F.raise_error(F.concat(F.lit("unlisted file "), "source_file"))
    return rows.join(F.broadcast(deliveries), on="source_file", how="left").select(
        F.lit(name).alias("source"),
        "source_file",
        F.coalesce("content_hash", unknown).alias("content_hash"),
        "row",
        F.timestamp_millis("modified_ms").alias("delivered_at"),
        F.current_timestamp().alias("ingested_at"),
        F.lit(run_date).alias("ingest_date"),
        "malformed",
        *[(F.col(field) if field in have else F.lit(None)).cast("string").alias(field) for field in payload],
    )


def _spellings(uri: str) -> set[str]:
    """Spark writes file:/x in some readers and file:///x in others."""
    short = one_slash(uri)
    return {uri, short, short.replace(":/", ":///", 1)}


def one_slash(uri: str) -> str:
    """`file:/x` for `file:///x`: one spelling of each file."""
    return re.sub(r"^(\w+):/+", r"\1:/", uri)
