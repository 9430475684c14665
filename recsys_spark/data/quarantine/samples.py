"""What was rejected, and why; and the way of repaired rows out of the quarantine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import SILVER_QUARANTINE

KEY = SILVER_QUARANTINE.key
_SAMPLE_LENGTH = 160
_PERSONAL = ("user_id",)


@dataclass(frozen=True)
class Rejected:
    """Rows of one source rejected for one reason, with a few of them as they came."""

    kind: str
    source: str
    reason: str
    rows: int
    samples: tuple[str, ...]


def by_reason(
    lake: Lake,
    *,
    samples: int,
    run_date: date | None = None,
    personal: Mapping[str, Iterable[str]] | None = None,
    is_masked: bool = True,
) -> list[Rejected]:
    """Counts by kind, source and reason, most rows first; a row with two reasons counts under both.

    lake: whose quarantine is read.
    samples: how many rows of each kind, source and reason are shown, from 0.
    run_date: only rows taken in by that night; None: all.
    personal: the fields of each source that hold a user id; user_id for a source that is not named.
    is_masked: samples show only the shape (see `shape`) of those fields, and of lines that could not be
        split.
    """
    rows = lake.read(SILVER_QUARANTINE)
    if run_date is not None:
        rows = rows.where(F.col("ingest_date") == F.lit(run_date))
    one = ("kind", "source", "reason")
    exploded = rows.select(*KEY, F.explode("reject_reasons").alias("reason"), "raw")
    counts = exploded.groupBy(*one).count().orderBy(F.desc("count"), *one).collect()
    first = Window.partitionBy(*one).orderBy("content_hash", "row")
    chosen = exploded.withColumn("_place", F.row_number().over(first)).where(F.col("_place") <= samples)
    shown: dict[tuple[str, ...], list[str]] = {}
    for row in chosen.orderBy(*one, "_place").collect() if samples else []:
        fields = (personal or {}).get(row["source"], _PERSONAL)
        text = masked(row["raw"], fields=fields) if is_masked else row["raw"]
        shown.setdefault(tuple(row[name] for name in one), []).append(_printable(text)[:_SAMPLE_LENGTH])
    return [
        Rejected(
            row["kind"],
            row["source"],
            row["reason"],
            row["count"],
            tuple(shown.get(tuple(row[name] for name in one), ())),
        )
        for row in counts
    ]


def masked(raw: str, *, fields: Iterable[str]) -> str:
    """The row as JSON with only the shape of the named fields; only the shape of what is no JSON."""
    try:
        values = json.loads(raw)
    except ValueError:
        return shape(raw)
    if not isinstance(values, dict):
        return shape(raw)
    hidden = {name: shape(str(values[name])) for name in fields if values.get(name) is not None}
    return json.dumps(values | hidden, ensure_ascii=False, separators=(",", ":"))


def shape(text: str) -> str:
    """Letters as a or A, digits as 9, all else as it is: what a format fault looks like, not whose it is."""
    return "".join(
        "9" if sign.isdigit() else ("A" if sign.isupper() else "a") if sign.isalpha() else sign
        for sign in text
    )


def _printable(text: str) -> str:
    """Control characters escaped, so that a delivered line cannot command the terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def bronze_of(bronze: DataFrame, waiting: DataFrame) -> DataFrame:
    """The bronze rows of quarantined rows of one kind."""
    keys = waiting.select(*KEY[1:]).distinct()
    return bronze.join(keys, on=list(KEY[1:]), how="left_semi")


def repaired_keys(judged: DataFrame, still: DataFrame) -> DataFrame:
    """The keys (silver.quarantine's) of rows that were judged again and are rejected no more."""
    return judged.select(*KEY).join(still.select(*KEY), on=list(KEY), how="left_anti")


def repairs_by_reason(waiting: DataFrame, repaired: DataFrame) -> dict[str, tuple[int, int]]:
    """reason -> (rows repaired, rows still rejected), by the reasons that rows were quarantined for."""
    marked = waiting.join(repaired.withColumn("_good", F.lit(True)), on=list(KEY), how="left")
    per_reason = marked.select(F.explode("reject_reasons").alias("reason"), "_good").groupBy("reason")
    counted = per_reason.agg(F.count("_good").alias("repaired"), F.count(F.lit(1)).alias("rows"))
    counts = {row["reason"]: (row["repaired"], row["rows"] - row["repaired"]) for row in counted.collect()}
    return dict(sorted(counts.items()))
