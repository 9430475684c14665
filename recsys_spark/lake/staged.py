"""Rows written beside a table before they belong to it, and taken in by one commit when they are found good.

A batch of millions of rows that is judged, kept somewhere, and then written is encoded twice and read three
times. Here its files are written once, under the table's own folder; what is said of the batch is read from
them; and the table's log then names them, by the actions of Delta's protocol
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md#add-file-and-remove-file). Until then no reader
sees them. A partition of the table is a value in that action, so what all rows of a file share need not be
written with each row.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import uuid4

from pyspark.sql import DataFrame

from recsys_spark.lake.store import Lake, located
from recsys_spark.lake.tables import Table

# The column that a batch is written apart by: of any type that partitions may have, or null.
PART = "part"
_PREFIX = "batch-"
_ABANDONED_SECONDS = 86_400.0
_DEFAULT_PARTITION = "__HIVE_DEFAULT_PARTITION__"

# part -> the partition of the table that it is
Partitions = Mapping[str, Mapping[str, date | datetime | str]]


@dataclass
class Staged:
    """A batch of one table: where its files lie, and the `add` action of each, its path from `folder` on."""

    lake: Lake
    table: Table
    folder: str
    files: tuple[Mapping[str, Any], ...]
    is_taken: bool = False

    def read(self) -> DataFrame:
        """The rows with all the columns they were written with, PART among them."""
        return self.lake.spark.read.format("delta").load(self._path)

    @property
    def rows(self) -> dict[str | None, int]:
        """How many there are of each part, as the files themselves say."""
        found: dict[str | None, int] = {}
        for file in self.files:
            part = file["partitionValues"][PART]
            found[part] = found.get(part, 0) + int(json.loads(file["stats"])["numRecords"])
        return found

    def discard(self) -> None:
        """Delete all that was written, but never a file that the table names, whatever was raised since."""
        if not self.is_taken and self.folder not in _folders_named(self.lake, self.table):
            self.lake.remove(self._path)

    def actions(self, partitions: Partitions) -> list[dict[str, Any]]:
        """The files of these parts as `add` actions of the table, with the partition that each part is."""
        return [
            {
                **file,
                "path": f"{self.folder}/{file['path']}",
                "partitionValues": {
                    name: _text(value) for name, value in partitions[file["partitionValues"][PART]].items()
                },
            }
            for file in self.files
            if file["partitionValues"][PART] in partitions
        ]

    def tidy(self) -> None:
        """Delete what the table did not take: rows of no part, and the batch's own log."""
        self.is_taken = True
        self.lake.remove(f"{self._path}/_delta_log")
        self.lake.remove(f"{self._path}/{PART}={_DEFAULT_PARTITION}")

    @property
    def _path(self) -> str:
        return f"{self.lake.path(self.table)}/{self.folder}"


def stage(lake: Lake, table: Table, rows: DataFrame) -> Staged:
    """Write rows beside the table, their files apart by PART; parts are named as texts from then on.

    Columns of the table must have its types; those of its partitions may be missing, and there may be others,
    which the table's readers do not see.
    """
    _require_types(rows, table)
    _remove_abandoned(lake, table)
    folder = f"{_PREFIX}{uuid4().hex}"
    path = f"{lake.path(table)}/{folder}"
    try:
        lake.write_files(table, rows, path, by=PART)
        return Staged(lake, table, folder, tuple(lake.files_of_first_commit(path)))
    except BaseException:
        lake.remove(path)
        raise


def take_in(*batches: tuple[Staged, Partitions]) -> None:
    """Make the files of some parts of these batches, of one table, files of the table: in one commit."""
    staged, _ = batches[0]
    staged.lake.take_in(
        staged.table, [action for one, partitions in batches for action in one.actions(partitions)]
    )
    for one, _ in batches:
        one.tidy()


def _require_types(rows: DataFrame, table: Table) -> None:
    found = {field.name: field.dataType for field in rows.schema.fields}
    missing = [name for name in table.columns if name not in found and name not in table.partition_by]
    retyped = [name for name, kind in table.columns.items() if found.get(name, kind) != kind]
    if missing or retyped or PART not in found:
        raise TypeError(f"{table.name}: missing={missing} retyped={retyped}, {PART}={PART in found}")


def _remove_abandoned(lake: Lake, table: Table) -> None:
    """Delete batches of processes that were killed: such as no commit names, a day after they were begun.

    A younger one may be another night's that is being written, where nothing keeps two apart.
    """
    root, system = located(lake.spark, lake.path(table))
    if not system.exists(root):
        return
    old = [
        status.getPath().getName()
        for status in system.listStatus(root)
        if status.isDirectory()
        and status.getPath().getName().startswith(_PREFIX)
        and status.getModificationTime() / 1000 < time.time() - _ABANDONED_SECONDS
    ]
    if old:
        for folder in set(old) - _folders_named(lake, table):
            lake.remove(f"{lake.path(table)}/{folder}")


def _folders_named(lake: Lake, table: Table) -> set[str]:
    """The batches of which the table has files."""
    paths = lake.paths(table) if lake.exists(table) else []
    return {path.split("/", maxsplit=1)[0] for path in paths}


def _text(value: date | datetime | str) -> str:
    """As Delta's protocol writes values of partitions; points in time are of UTC."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    return value.isoformat() if isinstance(value, date) else value
