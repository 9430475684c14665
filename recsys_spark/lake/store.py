"""Reading and writing Delta tables by path: the only module that touches Delta."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.classic.dataframe import DataFrame as ClassicDataFrame

from recsys_spark.errors import ConfigError
from recsys_spark.lake.schema import conform
from recsys_spark.lake.tables import Table
from recsys_spark.runtime.rows import frame_of
from recsys_spark.runtime.session_settings import (
    SELDOM_REPEATED_IN_LARGE,
    session_settings,
    without_dictionary,
)

_COMMIT = re.compile(r"\d{20}\.json")
_FIRST = f"{0:020d}.json"
_MAPPING = "spark.databricks.delta.properties.defaults.columnMapping.mode"


@dataclass(frozen=True)
class Lake:
    """One root with tables under it; those of the layer `models` under another root, where one is given."""

    spark: SparkSession
    root: str
    models: str | None = None

    def path(self, table: Table) -> str:
        root = self.models if self.models and table.name.startswith("models.") else self.root
        return f"{root.rstrip('/')}/{table.path}"

    def exists(self, table: Table) -> bool:
        return DeltaTable.isDeltaTable(self.spark, self.path(table))

    def version(self, table: Table) -> int:
        """The table's newest version, or -1 where it does not exist yet."""
        commit = self._newest_commit(table)
        return commit[0] if commit else -1

    def state(self, table: Table) -> str:
        """What names the table's content: its newest commit, "" where it does not exist yet.

        A version alone does not, since a table may be deleted and made again.
        """
        commit = self._newest_commit(table)
        return f"{commit[0]}:{commit[1].get('txnId', '')}:{commit[1].get('timestamp', '')}" if commit else ""

    def read(self, table: Table, *, version: int | None = None) -> DataFrame:
        """The table's rows; none of a table that no stage has written yet.

        A column that was not declared yet when the table was last written is null.
        """
        if not self.exists(table):
            return frame_of(self.spark, [], table.schema)
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        rows = reader.load(self.path(table))
        known = set(rows.columns)
        return rows.select(
            *[
                name if name in known else F.lit(None).cast(kind).alias(name)
                for name, kind in table.columns.items()
            ]
        )

    def append(self, table: Table, rows: DataFrame) -> None:
        writer = conform(rows, table).write.format("delta").mode("append")
        self._save(table, writer)

    def overwrite_partition(
        self, table: Table, rows: DataFrame, *, note: Mapping[str, Any] | None = None, **partition: date | str
    ) -> None:
        """Replace one partition in one commit; `note` goes into the commit's metadata as JSON."""
        only = " AND ".join(f"{column} = {_literal(value)}" for column, value in partition.items())
        writer = conform(rows, table).write.format("delta").mode("overwrite").option("replaceWhere", only)
        if note is not None:
            writer = writer.option("userMetadata", json.dumps(note, sort_keys=True))
        self._save(table, writer)

    def merge(
        self,
        table: Table,
        rows: DataFrame,
        *,
        newer: str | None = None,
        touched: str = "",
        gone: DataFrame | None = None,
    ) -> None:
        """Insert new keys, update known ones, delete those that are gone: in one commit.

        A table that does not exist yet is made of `rows`. Keys must be unique in `rows` and `gone` together.

        table: its key columns say which rows are the same.
        rows: in the table's columns.
        newer: SQL, when a row of `rows` (s) replaces the table's (t); None: known keys stay as they are.
        touched: SQL on the table's side (t), so that only the partitions of a batch are read; empty: all are.
        gone: key columns of the rows to delete; None: no row is.

        Raises SchemaError where the columns of `rows` are not those that the table declares.
        """
        source = conform(rows, table)
        if not self.exists(table):
            self._save(table, source.write.format("delta").mode("append"))
            return
        self._ensure(table)
        if gone is not None:
            leaving = gone.select(*table.key, F.lit(True).alias("_is_gone"))
            staying = source.withColumn("_is_gone", F.lit(False))
            source = staying.unionByName(leaving, allowMissingColumns=True)
        same = " AND ".join(f"t.{column} = s.{column}" for column in table.key)
        condition = f"({same})" + (f" AND {touched}" if touched else "")
        target = DeltaTable.forPath(self.spark, self.path(table)).alias("t")
        merge = target.merge(source.alias("s"), condition)
        values: dict[str, str | Column] = {column: f"s.{column}" for column in table.columns}
        stays = None
        if gone is not None:
            merge, stays = merge.whenMatchedDelete("s._is_gone"), "NOT s._is_gone"
        if newer:
            merge = merge.whenMatchedUpdate(condition=newer, set=values)
        merge.whenNotMatchedInsert(condition=stays, values=values).execute()

    def _ensure(self, table: Table) -> None:
        """Make the table, without rows, where it is not there or lacks a column that is declared."""
        if not self.exists(table) or self._lacks_columns(table):
            self._save(table, frame_of(self.spark, [], table.schema).write.format("delta").mode("append"))

    def _lacks_columns(self, table: Table) -> bool:
        known = self.spark.read.format("delta").load(self.path(table)).columns
        return not set(table.columns) <= set(known)

    def partition_columns(self, table: Table) -> tuple[str, ...]:
        """What the table is partitioned by: as it was made, by an earlier version perhaps."""
        if not self.exists(table):
            return table.partition_by
        named = self._snapshot(table).metadata().partitionColumns().mkString("\n")
        return tuple(str(named).split("\n")) if named else ()

    def is_as_declared(self, table: Table) -> bool:
        """Whether the table is, or will be, partitioned as declared, its columns known to the log by name."""
        return self.partition_columns(table) == table.partition_by and not self._is_mapped(table)

    def _is_mapped(self, table: Table) -> bool:
        """Whether columns have other names in files and log: by Delta's column mapping."""
        if not self.exists(table):
            return self.spark.conf.get(_MAPPING, None) not in {None, "none"}
        return str(self._snapshot(table).metadata().columnMappingMode().name()) != "none"

    def partitions(self, table: Table) -> DataFrame:
        """The values of each partition that has files, once: from the log, no file is opened."""
        values = F.col("partitionValues")
        columns = [
            values[name].cast(table.columns[name]).alias(name) for name in self.partition_columns(table)
        ]
        return self._files(table).select(*columns).distinct()

    def folders(self, table: Table) -> set[str]:
        """The folders under the table's that hold files of its newest version, or of earlier ones."""
        removed = ClassicDataFrame(self._snapshot(table).tombstones().toDF(), self.spark)
        paths = self._files(table).select("path").unionByName(removed.select("path"))
        folders = paths.select(F.substring_index("path", "/", 1).alias("folder")).distinct()
        return {row["folder"] for row in folders.collect()}

    def write_files(self, table: Table, rows: DataFrame, path: str, *, by: str) -> None:
        """Write rows to a new folder that is a table for itself, with the bounds that `table` keeps."""
        with session_settings(self.spark, without_dictionary(*SELDOM_REPEATED_IN_LARGE)):
            rows.write.format("delta").options(**_bounds(table)).partitionBy(by).save(path)

    def files_of_first_commit(self, path: str) -> list[dict[str, Any]]:
        """The `add` actions of a new table's first version."""
        first, system = located(self.spark, f"{path}/_delta_log/{_FIRST}")
        return [action["add"] for action in _actions(first, system) if "add" in action]

    def take_in(self, table: Table, files: Sequence[Mapping[str, Any]]) -> None:
        """Name files that lie under the table's folder, by their `add` actions, in one commit.

        Delta's public interface adds files only by writing them; here its transaction is asked itself.
        """
        self._ensure(table)
        delta = self._jvm.org.apache.spark.sql.delta
        actions = self._jvm.java.util.ArrayList()
        for file in files:
            actions.add(delta.actions.Action.fromJson(json.dumps({"add": file})))
        sequence = self._jvm.scala.jdk.javaapi.CollectionConverters.asScala(actions).toSeq()
        operation = getattr(getattr(delta, "DeltaOperations$ManualUpdate$"), "MODULE$")
        log = delta.DeltaLog.forTable(self._session, self.path(table))
        log.startTransaction().commit(sequence, operation)

    def _files(self, table: Table) -> DataFrame:
        return ClassicDataFrame(self._snapshot(table).allFiles().toDF(), self.spark)

    def _snapshot(self, table: Table) -> Any:
        log = self._jvm.org.apache.spark.sql.delta.DeltaLog
        return log.forTableWithSnapshot(self._session, self.path(table))._2()  # noqa: SLF001 - a Scala pair

    @property
    def _jvm(self) -> Any:
        return self.spark._jvm  # noqa: SLF001 - there is no other door to it

    @property
    def _session(self) -> Any:
        return self.spark._jsparkSession  # noqa: SLF001

    def delete(self, table: Table, where: str | Column) -> None:
        if self.exists(table):
            DeltaTable.forPath(self.spark, self.path(table)).delete(where)

    def has_partition(self, table: Table, **partition: date | str) -> bool:
        """Whether the partition holds a row."""
        if not self.exists(table):
            return False
        rows = self.read(table)
        for column, value in partition.items():
            rows = rows.where(F.col(column) == F.lit(value))
        return not rows.select(table.key[0]).isEmpty()

    def rows_written(self, table: Table) -> int:
        """Rows that the table's newest commit wrote, from its own metrics."""
        commit = self._newest_commit(table)
        return int(commit[1].get("operationMetrics", {}).get("numOutputRows", 0)) if commit else 0

    def _newest_commit(self, table: Table) -> tuple[int, dict[str, Any]] | None:
        """The newest version, and what its commit says of itself: from the log, by Delta's protocol.

        DeltaTable.history tells the same by a Spark job, half a second of planning for one small file.
        """
        folder, system = located(self.spark, f"{self.path(table)}/_delta_log")
        if not system.exists(folder):
            return None
        files = {status.getPath().getName(): status.getPath() for status in system.listStatus(folder)}
        newest = max((name for name in files if _COMMIT.fullmatch(name)), default=None)
        if newest is None:
            return None
        infos = [action["commitInfo"] for action in _actions(files[newest], system) if "commitInfo" in action]
        return int(newest.removesuffix(".json")), infos[0] if infos else {}

    def round_trip(self) -> int:
        """Write a Delta table of three rows under the root, read it back, remove it; the rows read."""
        path = f"{self.root.rstrip('/')}/_round_trip"
        self.spark.range(3).write.format("delta").mode("overwrite").save(path)
        rows = self.spark.read.format("delta").load(path).count()
        self.remove(path)
        return rows

    def remove(self, path: str) -> None:
        """Delete a folder and all in it, if it is there; for what is no table of the lake any more."""
        folder, system = located(self.spark, path)
        system.delete(folder, True)

    def check_writable(self) -> None:
        """Raise ConfigError unless a file can be made under the root (local or remote)."""
        try:
            probe, system = located(self.spark, f"{self.root.rstrip('/')}/_write_check")
            system.create(probe, True).close()
            system.delete(probe, False)
        except (PySparkException, Py4JJavaError) as error:
            raise unwritable(self.root, java_reason(error)) from None

    def _save(self, table: Table, writer: Any) -> None:
        # Only of such tables may there be older ones that are partitioned in another way.
        if partitions := self.partition_columns(table) if table.is_apart else table.partition_by:
            writer = writer.partitionBy(*partitions)
        if table.is_apart:
            writer = writer.option("delta.randomizeFilePrefixes", "true")
        # A table of an earlier version gets the columns that are declared since.
        writer.options(**_bounds(table)).option("mergeSchema", "true").save(self.path(table))


def _bounds(table: Table) -> dict[str, str]:
    """Of which columns bounds are kept, as a property of the table from its first commit on."""
    if table.sought_by is None:
        return {}
    named = ",".join(table.sought_by)
    return {"delta.dataSkippingStatsColumns": named} if named else {"delta.dataSkippingNumIndexedCols": "0"}


def _actions(commit: Any, system: Any) -> list[dict[str, Any]]:
    stream = system.open(commit)
    try:
        return [json.loads(line) for line in bytes(stream.readAllBytes()).splitlines()]
    finally:
        stream.close()


def located(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Hadoop's path, and the file system that serves it; Py4JJavaError where none is installed for it."""
    context: Any = spark.sparkContext
    location = context._jvm.org.apache.hadoop.fs.Path(path)  # noqa: SLF001 - there is no other door to it
    return location, location.getFileSystem(context._jsc.hadoopConfiguration())  # noqa: SLF001


def unwritable(root: str, reason: str) -> ConfigError:
    return ConfigError(
        f"the lake cannot be written: {root} ({reason}). "
        "Next: set lake.path (or RECSYS_LAKE) to a folder this user may write."
    )


def _literal(value: date | str) -> str:
    text = value.isoformat() if isinstance(value, date) else value
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def java_reason(error: PySparkException | Py4JJavaError) -> str:
    """The first line of what Java said: enough for a sentence, never a stack trace."""
    text = str(error.java_exception.getMessage()) if isinstance(error, Py4JJavaError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
