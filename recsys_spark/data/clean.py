"""Bronze to silver: typed, judged row by row, deduplicated by meaning. Nothing vanishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.config import Clean, Source
from recsys_spark.data import rules
from recsys_spark.data.kinds import KINDS
from recsys_spark.lake.tables import FIELDS_BY_KIND, SILVER_QUARANTINE

# Rows of the cleaned frame beyond the table's own columns.
JUDGEMENT = ("reject_reasons", "source_file", "content_hash", "row", "raw", "ingest_date")


def cleaned(bronze: DataFrame, kind: str, *, settings: Clean, sources: Mapping[str, Source]) -> DataFrame:
    """The silver columns of `kind` for every bronze row, plus `reject_reasons` (empty = good) and `raw`."""
    columns, broken = KINDS[kind].typed(settings, sources)
    typed = bronze.select(
        *[column.alias(name) for name, column in columns.items()],
        rules.reject_reasons(broken).alias("reject_reasons"),
        "source_file",
        "content_hash",
        "row",
        "ingest_date",
        "delivered_at",
        *(["source"] if "source" not in columns else []),
        raw_row(kind).alias("raw"),
    )
    content = [name for name in columns if name not in {"source", "event_date"}]
    return typed.withColumn("row_hash", F.xxhash64(*[F.col(name) for name in content]))


def raw_row(kind: str) -> Column:
    """The delivered payload as JSON, or the line as it stood where it could not be split."""
    return F.coalesce(F.col("malformed"), F.to_json(F.struct(*FIELDS_BY_KIND[kind])))


def good(rows: DataFrame) -> DataFrame:
    return rows.where(F.size("reject_reasons") == 0)


def quarantined(rows: DataFrame, *, kind: str) -> DataFrame:
    """One row per rejected delivery row, with its reasons and the row as it came."""
    rejected = rows.where(F.size("reject_reasons") > 0)
    return rejected.withColumn("kind", F.lit(kind)).select(*SILVER_QUARANTINE.columns)


def deduplicate(rows: DataFrame, *, key: Sequence[str]) -> DataFrame:
    """One row per key: the latest delivery, ties by a hash of the content, never by partitioning."""
    newest_first = Window.partitionBy(*key).orderBy(
        F.desc("delivered_at"), F.desc("row_hash"), F.desc("content_hash"), F.desc("row")
    )
    return rows.withColumn("_place", F.row_number().over(newest_first)).where("_place = 1").drop("_place")


# A matched row is replaced by a later delivery only, so any order of deliveries ends in the same table.
NEWER = "s.delivered_at > t.delivered_at OR (s.delivered_at = t.delivered_at AND s.row_hash > t.row_hash)"
