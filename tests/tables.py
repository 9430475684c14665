"""Tables for tests: rows that name only what matters, and tables as another reader than Spark sees them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import BRONZE_INTERACTIONS, Table
from recsys_spark.runtime.rows import frame_of

ARRIVED = datetime(2024, 5, 1)
DELIVERY = {
    "source": "shop",
    "source_file": "f",
    "content_hash": "h",
    "delivered_at": ARRIVED,
    "ingested_at": ARRIVED,
    "ingest_date": ARRIVED.date(),
}
# When a run wrote a row: all that two runs of the same night may differ in.
CLOCKS = ("ingested_at",)


def rows_for(spark: SparkSession, table: Table, *rows: dict[str, Any]) -> DataFrame:
    """Rows of the table, over three partitions; null in the columns that a row does not name."""
    unknown = {name for row in rows for name in row} - set(table.columns)
    assert not unknown, f"{table.name} has no columns {sorted(unknown)}"
    return frame_of(spark, rows, table.schema).repartition(3)


def bronze(
    spark: SparkSession, rows: Iterable[dict[str, Any]], table: Table = BRONZE_INTERACTIONS
) -> DataFrame:
    """Rows of one delivery, numbered, as `ingest` leaves them; events are purchases unless they say."""
    usual = DELIVERY | ({"event_type": "purchase"} if table == BRONZE_INTERACTIONS else {})
    return rows_for(spark, table, *({**usual, "row": place, **row} for place, row in enumerate(rows)))


def rows_of(lake: Lake, table: Table) -> list[dict[str, Any]]:
    """All rows of the table."""
    return rows_at(lake.path(table))


def rows_at(path: object) -> list[dict[str, Any]]:
    """All rows of the table in that folder."""
    return DeltaTable(str(path)).to_pyarrow_table().to_pylist()


def content(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The rows in an order of their own, without clocks: the same for whoever wrote the same."""
    return sorted(
        json.dumps({name: row[name] for name in row if name not in CLOCKS}, default=str) for row in rows
    )
