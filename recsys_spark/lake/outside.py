"""Delta tables that others write: looked at and read, never written."""

from __future__ import annotations

from dataclasses import dataclass

from delta.tables import DeltaTable
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.errors import ConfigError
from recsys_spark.lake.store import java_reason


@dataclass(frozen=True)
class OutsideVersion:
    """One version of a table: the table's own id, the version's number, when it was committed (epoch ms)."""

    table_id: str
    number: int
    committed_ms: int


def outside_version(spark: SparkSession, name: str, path: str, number: int | None) -> OutsideVersion:
    """The given version, or the newest; ConfigError where there is no such table or version."""
    try:
        table = DeltaTable.forPath(spark, path)
        history = table.history(1) if number is None else table.history().where(F.col("version") == number)
        chosen = history.select("version", F.unix_millis("timestamp").alias("at")).first()
        table_id = table.detail().select("id").first()
    except PySparkException as error:
        raise ConfigError(f"source {name!r}: cannot read {path} as delta: {java_reason(error)}") from None
    if chosen is None or table_id is None:
        raise ConfigError(
            f"source {name!r}: {path} has no version {number}. Next: correct sources.{name}.version, "
            "or leave it out for the newest."
        )
    return OutsideVersion(str(table_id[0]), int(chosen["version"]), int(chosen["at"]))


def outside_rows(spark: SparkSession, path: str, number: int) -> DataFrame:
    """The table's rows as of the version."""
    return spark.read.format("delta").option("versionAsOf", number).load(path)
