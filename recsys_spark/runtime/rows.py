"""Rows that the driver has in hand, as a frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.conversion import LocalDataToArrowConversion
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType


def frame_of(spark: SparkSession, rows: Iterable[tuple[Any, ...]], schema: StructType | str) -> DataFrame:
    """A few rows (values in the schema's order) as a frame of one partition, carried in its plan.

    `spark.createDataFrame(rows, schema)` sends the same rows through a Python worker on an executor: a task
    with an interpreter to start for each small table of the night. This is the way of Spark Connect's
    createDataFrame, and like it takes a value that Arrow can convert to its column's type (1.7 becomes a long
    1); any other is refused here, on the driver.
    """
    wanted = schema if isinstance(schema, StructType) else cast("StructType", StructType.fromDDL(schema))
    if given := list(rows):
        table = LocalDataToArrowConversion.convert(given, wanted, use_large_var_types=False)
    else:
        table = to_arrow_schema(wanted).empty_table()
    return spark.createDataFrame(cast("Any", table), schema=wanted).coalesce(1)
