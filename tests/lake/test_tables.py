"""What a table keeps of its files for readers to pass them over."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import (
    BRONZE_INTERACTIONS,
    INT,
    SILVER_INTERACTIONS,
    SILVER_USERS,
    STRING,
    Table,
)
from recsys_spark.runtime.rows import frame_of
from tests.tables import rows_for


def bounds_of(lake: Lake, table: Table) -> set[str]:
    """The columns of whose values the table's log names the smallest."""
    files = DeltaTable(lake.path(table)).get_add_actions(flatten=True)
    return {name.removeprefix("min.") for name in files.schema.names if name.startswith("min.")}


def test_files_are_told_apart_by_what_reads_narrow_by_and_by_no_more(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = Lake(spark, str(tmp_path))
    known = {"event_date": date(2024, 1, 1), "event_at": datetime(2024, 1, 1, tzinfo=UTC), "quantity": -1.0}
    for table in (SILVER_INTERACTIONS, BRONZE_INTERACTIONS, SILVER_USERS):
        values = {"ingest_date": date(2024, 1, 1), "user_id": "u"} | known
        row = {name: value for name, value in values.items() if name in table.columns}
        for _ in range(2):  # the second commit finds the table there
            lake.append(table, rows_for(spark, table, row))
    assert bounds_of(lake, SILVER_INTERACTIONS) == {"event_at", "quantity", "cancels_event_id"}
    assert bounds_of(lake, BRONZE_INTERACTIONS) == set()
    assert "user_id" in bounds_of(lake, SILVER_USERS)


def test_what_seldom_repeats_is_written_without_a_dictionary(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake(spark, str(tmp_path))
    given = {"event_date": date(2024, 1, 1), "event_at": datetime(2024, 1, 1, tzinfo=UTC), "row_hash": 1}
    given |= {"event_id": "e", "user_id": "u", "basket_id": "b", "event_type": "view"}
    lake.append(SILVER_INTERACTIONS, rows_for(spark, SILVER_INTERACTIONS, *[given] * 9))
    assert {"event_id", "event_at", "basket_id", "row_hash"} <= plain_columns(lake.path(SILVER_INTERACTIONS))
    assert "user_id" not in plain_columns(lake.path(SILVER_INTERACTIONS))
    # Of a large batch each file is of many users.
    lake.write_files(
        SILVER_INTERACTIONS, lake.read(SILVER_INTERACTIONS), f"{tmp_path}/large", by="event_date"
    )
    assert {"event_id", "user_id"} <= plain_columns(f"{tmp_path}/large")
    assert "event_type" not in plain_columns(f"{tmp_path}/large")


def plain_columns(path: str) -> set[str]:
    """The columns of a table's first file that have no dictionary."""
    group = pq.ParquetFile(DeltaTable(path).file_uris()[0]).metadata.row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    return {column.path_in_schema for column in columns if not column.has_dictionary_page}


def test_the_newest_version_and_its_rows_are_those_that_the_history_tells(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = Lake(spark, str(tmp_path))
    assert (lake.version(SILVER_USERS), lake.rows_written(SILVER_USERS)) == (-1, 0)
    for users in (1, 3, 2):
        lake.append(
            SILVER_USERS, rows_for(spark, SILVER_USERS, *({"user_id": f"u{n}"} for n in range(users)))
        )
    newest = DeltaTable(lake.path(SILVER_USERS)).history(1)[0]
    assert lake.version(SILVER_USERS) == newest["version"] == 2
    assert lake.rows_written(SILVER_USERS) == int(newest["operationMetrics"]["numOutputRows"]) == 2


def test_a_column_declared_since_is_null_in_what_was_written_before_and_written_from_then_on(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = Lake(spark, str(tmp_path))
    key = {"key": ("name",), "partition_by": ("name",)}
    before = Table("ops.grown", {"name": STRING, "size": INT}, **key)
    now = Table("ops.grown", {"name": STRING, "size": INT, "days": INT}, **key)
    lake.append(before, frame_of(spark, [("a", 1), ("b", 2)], before.schema))
    assert sorted(map(tuple, lake.read(now).collect())) == [("a", 1, None), ("b", 2, None)]
    lake.overwrite_partition(now, frame_of(spark, [("b", 3, 4)], now.schema), name="b")
    lake.append(now, frame_of(spark, [("c", 5, 6)], now.schema))
    assert sorted(map(tuple, lake.read(now).collect())) == [("a", 1, None), ("b", 3, 4), ("c", 5, 6)]
