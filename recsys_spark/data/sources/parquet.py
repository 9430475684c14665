"""Parquet as frames, read by the types of its footers rather than by Spark's guess from one file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    ShortType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from recsys_spark.config.sections import Source
from recsys_spark.data.sources.columns import Layout
from recsys_spark.data.sources.files import literal, read_options
from recsys_spark.data.sources.mapping import FILE, MALFORMED, ROW, their_columns
from recsys_spark.lake.schema import column

_SIMPLE: dict[str, DataType] = {
    "int8": ShortType(),
    "int16": ShortType(),
    "uint8": ShortType(),
    "int32": IntegerType(),
    "uint16": IntegerType(),
    "int64": LongType(),
    "uint32": LongType(),
    "uint64": DecimalType(20, 0),
    "float": FloatType(),
    "double": DoubleType(),
    "bool": BooleanType(),
    "string": StringType(),
    "large_string": StringType(),
    "binary": BinaryType(),
    "large_binary": BinaryType(),
    "date32[day]": DateType(),
    "int96": TimestampType(),
}


def scan_parquet(spark: SparkSession, source: Source, layouts: Sequence[Layout]) -> DataFrame:
    """Rows of Parquet files whose columns of interest have the same types.

    Only those are read, so whatever else a file holds cannot stop it. INT96 and zoned timestamps are
    instants; zone-less ones are taken as UTC; nanoseconds are cut to the microsecond.
    """
    types = {name: kind for name, kind in layouts[0].columns if name in their_columns(source)}
    fields = [StructField(name, spark_type(kind) or StringType()) for name, kind in types.items()]
    paths = [layout.file.path for layout in layouts]
    rows = spark.read.options(**read_options(paths)).schema(StructType(fields)).parquet(*literal(paths))
    return rows.select(
        F.col("_metadata.file_path").alias(FILE),
        F.col("_metadata.row_index").alias(ROW),
        F.lit(None).cast("string").alias(MALFORMED),
        *[_value(name, kind).alias(name) for name, kind in types.items()],
    )


def unreadable(source: Source, layout: Layout) -> list[str]:
    """Sentences on mapped columns whose type has no text that a rule could judge."""
    return [
        f"{layout.file.name}: column {name!r} has the type {kind}, which cannot be taken."
        for name, kind in layout.columns
        if name in their_columns(source) and spark_type(kind) is None
    ]


def spark_type(kind: str) -> DataType | None:
    """The Spark type that reads a Parquet column of Arrow's type name; None where there is none."""
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if kind.startswith("timestamp[ns"):
        return LongType()
    if kind.startswith("timestamp["):
        return TimestampType() if "tz=" in kind else TimestampNTZType()
    if decimal := re.fullmatch(r"decimal\d+\((\d+), (\d+)\)", kind):
        return DecimalType(int(decimal[1]), int(decimal[2]))
    if listed := re.fullmatch(r"(?:large_)?list<\w+: (\w+)(?: not null)?>", kind):
        inner = spark_type(listed[1])
        return ArrayType(inner) if inner else None
    return None


def _value(name: str, kind: str) -> Column:
    if not kind.startswith("timestamp[ns"):
        return column(name)
    nanos = column(name)
    # Floor, also before 1970, and in integers: a double cannot hold today's nanoseconds.
    whole = nanos - F.pmod(nanos, F.lit(1000))
    return F.timestamp_micros(F.call_function("div", whole, F.lit(1000)))
