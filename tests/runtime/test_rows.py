"""Rows of the driver as a frame: the values that went in, and no Python worker to carry them."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from recsys_spark.runtime.rows import frame_of

SCHEMA = """
    id int not null, at timestamp, day date, name string, share double, figures map<string,double>,
    terms array<int>, `from` struct<version: bigint, table: string>
"""
ROWS = [
    (1, datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC), date(2024, 2, 29), "é", 0.1, {"a": 1.0}, [3, 1], (7, "x")),
    (2, None, None, None, None, None, None, None),
    (3, datetime(1969, 7, 20, tzinfo=UTC), date.max, "", float("inf"), {}, [], (None, None)),
]  # fmt: skip


def test_a_frame_of_rows_holds_them_in_one_partition_and_in_its_plan(spark: SparkSession) -> None:
    frame = frame_of(spark, ROWS, SCHEMA)
    assert [tuple(row) for row in frame.selectExpr("* except (at)", "unix_micros(at)").collect()] == [
        (number, *rest, at and round(at.timestamp() * 1_000_000)) for number, at, *rest in ROWS
    ]
    assert [field.nullable for field in frame.schema] == [False, *[True] * 7]
    assert frame.rdd.getNumPartitions() == 1
    plan = frame._jdf.queryExecution().executedPlan().toString()
    assert "LocalTableScan" in plan, "carried in the plan: nothing runs on an executor to make it"


def test_no_rows_are_a_frame_of_the_schema(spark: SparkSession) -> None:
    frame = frame_of(spark, [], SCHEMA)
    assert frame.collect() == []
    assert frame.schema == frame_of(spark, ROWS, SCHEMA).schema


def test_a_value_of_another_type_is_refused_on_the_driver(spark: SparkSession) -> None:
    with pytest.raises(pa.ArrowInvalid, match="Could not convert 'many'"):
        frame_of(spark, [("many",)], "pieces int")
