"""What a stage is handed, and what it hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config.load import resolve_path
from recsys_spark.config.sections import Settings
from recsys_spark.lake.runs import Run, find_run
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import OPS_METRICS, Table
from recsys_spark.runtime.rows import frame_of


@dataclass(frozen=True)
class Job:
    """One stage of one night: read, write, nothing else.

    models: where models are kept if not in the lake, for trials that leave none behind.
    """

    spark: SparkSession
    settings: Settings
    run_date: date
    models: str | None = None

    @property
    def lake(self) -> Lake:
        return Lake(self.spark, resolve_path(self.settings, self.settings.lake.path), self.models)

    @property
    def output(self) -> Path:
        """The folder for reports, Data Docs, exports and mails; on the driver."""
        return Path(resolve_path(self.settings, self.settings.output.path))

    @cached_property
    def run(self) -> Run:
        """The run that the environment's first stage opened for this date; looked up once per stage."""
        return find_run(self.lake, self.run_date, self.settings.env)

    def read(self, table: Table) -> DataFrame:
        return self.lake.read(table)

    def append(self, table: Table, rows: DataFrame) -> None:
        self.lake.append(table, rows)

    def merge(self, table: Table, rows: DataFrame, *, newer: str | None = None, touched: str = "") -> None:
        self.lake.merge(table, rows, newer=newer, touched=touched)

    def overwrite_partition(
        self, table: Table, rows: DataFrame, *, note: Mapping[str, Any] | None = None, **partition: date | str
    ) -> None:
        self.lake.overwrite_partition(table, rows, note=note, **partition)

    def record(self, stage: str, figures: Mapping[tuple[str, str], float]) -> None:
        """Append a stage's figures, (metric, label) -> value, to ops.metrics: all of them or none."""
        now, run_id = datetime.now(UTC), self.run.run_id
        rows = [
            (run_id, self.run_date, stage, metric, label, float(value), now)
            for (metric, label), value in figures.items()
        ]
        self.append(OPS_METRICS, frame_of(self.spark, rows, OPS_METRICS.schema))


@dataclass(frozen=True)
class Summary:
    """What a stage did: rows taken and given, where they went, and its own figures.

    `figures` maps (metric, label) to a value; `notes` are sentences for people. is_recorded: the figures
    stand in ops.metrics already, because they had to be there in one commit with something else.
    """

    rows_in: int
    rows_out: int
    wrote: str
    figures: dict[tuple[str, str], float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_recorded: bool = False
