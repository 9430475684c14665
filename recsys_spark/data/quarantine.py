"""What was rejected, and why."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import functions as F

from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import SILVER_QUARANTINE

_SAMPLE_LENGTH = 160


@dataclass(frozen=True)
class Rejected:
    """Rows of one source rejected for one reason, with a few of them as they came."""

    kind: str
    source: str
    reason: str
    rows: int
    samples: tuple[str, ...]


def by_reason(lake: Lake, *, samples: int) -> list[Rejected]:
    """Counts by kind, source and reason, most rows first; a row with two reasons counts under both."""
    exploded = lake.read(SILVER_QUARANTINE).select(
        "kind",
        "source",
        F.explode("reject_reasons").alias("reason"),
        F.substring("raw", 1, _SAMPLE_LENGTH).alias("raw"),
    )
    counted = exploded.groupBy("kind", "source", "reason").agg(
        F.count(F.lit(1)).alias("rows"), F.array_sort(F.collect_set("raw")).alias("raws")
    )
    ordered = counted.orderBy(F.desc("rows"), "kind", "source", "reason")
    chosen = ordered.withColumn("raws", F.slice("raws", 1, max(samples, 1)))
    return [
        Rejected(row["kind"], row["source"], row["reason"], row["rows"], tuple(row["raws"][:samples]))
        for row in chosen.collect()
    ]
