"""What bronze holds is looked up once, and again when it has changed."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from pyspark.sql import SparkSession

from recsys_spark.lake.runs import delivered_files
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import BRONZE_INTERACTIONS, BRONZE_ITEMS, Table
from tests.tables import bronze


def deliver(lake: Lake, table: Table, file: str, content: str) -> None:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    row = {"source_file": file, "content_hash": content, "delivered_at": now, "ingested_at": now}
    lake.append(table, bronze(lake.spark, [{**row, "ingest_date": now.date()}], table))


def seen(lake: Lake) -> tuple[list[tuple[str, str, str]], int]:
    """What is found, and how many jobs Spark ran for it."""
    context = lake.spark.sparkContext
    context.setJobGroup("delivered", "")
    before = len(context.statusTracker().getJobIdsForGroup("delivered"))
    try:
        files = [(file.kind, file.file, file.content_hash) for file in delivered_files(lake)]
    finally:
        context.setLocalProperty("spark.jobGroup.id", None)
    return files, len(context.statusTracker().getJobIdsForGroup("delivered")) - before


def test_delivered_files_are_read_again_only_when_bronze_has_changed(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = Lake(spark, str(tmp_path))
    assert seen(lake)[0] == []
    deliver(lake, BRONZE_INTERACTIONS, "a.csv", "1")
    deliver(lake, BRONZE_ITEMS, "i.csv", "2")
    first, jobs = seen(lake)
    assert first == [("interactions", "a.csv", "1"), ("items", "i.csv", "2")]
    assert jobs > 0
    assert seen(Lake(spark, str(tmp_path))) == (first, 0)
    deliver(lake, BRONZE_ITEMS, "i.csv", "3")
    assert seen(lake)[0] == [*first, ("items", "i.csv", "3")]
    # The same versions of tables that were made anew are other tables.
    for _ in range(2):
        shutil.rmtree(lake.path(BRONZE_ITEMS))
        deliver(lake, BRONZE_ITEMS, "j.csv", "4")
        deliver(lake, BRONZE_ITEMS, "k.csv", "5")
    assert [name for _, name, _ in seen(lake)[0]] == ["a.csv", "j.csv", "k.csv"]
