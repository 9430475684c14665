"""Tables of a database by JDBC: read once, partition by partition, each known by its content."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DecimalType
from pyspark.storagelevel import StorageLevel

from recsys_spark.config.sections import Source
from recsys_spark.data.sources.columns import Layout
from recsys_spark.data.sources.files import SourceFile
from recsys_spark.data.sources.mapping import FILE, MALFORMED, ROW, mapped, their_columns
from recsys_spark.errors import ConfigError
from recsys_spark.lake.schema import column
from recsys_spark.runtime.checkpoints import checkpointed

# PostgreSQL's driver otherwise holds a partition's whole result in memory.
_FETCH_ROWS = "10000"
_POSTGRES = "jdbc:postgresql:"


@dataclass(frozen=True)
class TableRead:
    """The table's rows as mapped texts, and one `SourceFile` for each partition that holds any."""

    rows: DataFrame
    parts: list[SourceFile]


def look_at_table(spark: SparkSession, name: str, source: Source) -> Layout:
    """The table's columns and types; no row is read."""
    schema = _rows(spark, name, source)[0].schema
    columns = tuple((field.name, field.dataType.simpleString()) for field in schema)
    return Layout(SourceFile(_place(source), _place(source), 0, 0), columns)


def read_table(spark: SparkSession, name: str, source: Source) -> TableRead:
    """All rows, read from the database once and kept on the executors' disks until they are written.

    A second read could find other rows than those that were hashed. A partition's content is a hash
    over its rows in any order; a row's place is its rank in its partition's content.
    """
    table, decimals = _rows(spark, name, source)
    wanted = [column(theirs) for theirs in their_columns(source)]
    part = F.concat(F.lit(f"{_place(source)}#"), F.spark_partition_id())
    scanned = table.select(
        *wanted, part.alias(FILE), F.lit(0).alias(ROW), F.lit(None).cast("string").alias(MALFORMED)
    )
    rows = mapped(scanned, source, decimals=decimals)
    payload = [field for field in rows.columns if field not in {"source_file", "row", "malformed"}]
    # Within the partition, so the place in Spark's partition is the place in the content's order.
    in_order = rows.sortWithinPartitions(*payload).withColumn(
        "row", F.monotonically_increasing_id().bitwiseAND((1 << 33) - 1)
    )
    fetched = checkpointed(in_order, StorageLevel.DISK_ONLY)
    return TableRead(fetched, _parts(fetched, payload))


def _parts(rows: DataFrame, payload: list[str]) -> list[SourceFile]:
    now = int(time.time() * 1000)
    # Sums do not depend on the order; two hashes of different seeds make 128 bits of it.
    sums = [
        F.sum(F.xxhash64(*payload, *seed).cast("decimal(38,0)")).cast("string").alias(f"sum{place}")
        for place, seed in enumerate(([], [F.lit("second")]))
    ]
    contents = rows.groupBy("source_file").agg(F.count(F.lit(1)).alias("rows"), *sums)
    hashed = contents.select(
        "source_file", "rows", F.sha2(F.concat_ws(":", "rows", "sum0", "sum1"), 256).alias("hash")
    )
    return sorted(
        (
            SourceFile(row["source_file"], row["source_file"], row["rows"], now, row["hash"])
            for row in hashed.collect()
        ),
        key=lambda part: part.path,
    )


def _rows(spark: SparkSession, name: str, source: Source) -> tuple[DataFrame, list[str]]:
    """The table, and those of its columns that are decimals there and texts here."""
    options = {
        "url": source.url,
        "dbtable": source.table,
        "fetchsize": _FETCH_ROWS,
        # Zone-less times are taken as UTC, not as times of the driver's zone.
        "preferTimestampNTZ": "true",
        **_credentials(name, source, os.environ),
    }
    if source.url.startswith(_POSTGRES):
        options["driver"] = "org.postgresql.Driver"
    if source.partition_column:
        options |= {
            "partitionColumn": source.partition_column,
            "lowerBound": str(source.lower),
            "upperBound": str(source.upper),
            "numPartitions": str(source.num_partitions),
        }
    table = spark.read.format("jdbc").options(**options).load()
    # One NaN in a numeric column would end the night; as texts they are judged row by row.
    numeric = [
        field.name
        for field in table.schema
        if isinstance(field.dataType, DecimalType) and field.name != source.partition_column
    ]
    if not numeric:
        return table, []
    texts = ", ".join(f"`{column_name}` STRING" for column_name in numeric)
    return spark.read.format("jdbc").options(**options, customSchema=texts).load(), numeric


def _credentials(name: str, source: Source, environment: Mapping[str, str]) -> dict[str, str]:
    credentials = {}
    for option, variable in (("user", source.user_env), ("password", source.password_env)):
        if not variable:
            continue
        if variable not in environment:
            raise ConfigError(
                f"source {name!r} needs the environment variable {variable} ({option}). "
                f"Next: export {variable}=…"
            )
        credentials[option] = environment[variable]
    return credentials


def _place(source: Source) -> str:
    """`jdbc:postgresql://host/db/orders`: the table without the URL's options."""
    return f"{source.url.split('?')[0].rstrip('/')}/{source.table}"
