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
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from recsys_spark.lake.store import Lake, located
from recsys_spark.lake.tables import Table

# The column that a batch is written apart by: of any type that partitions may have, or null.
PART = "part"
_PREFIX = "batch-"
_ABANDONED_SECONDS = 86_400.0
_FAULTS = (Py4JJavaError, PySparkException, OSError)  # of deleting
_DEFAULT_PARTITION = "__HIVE_DEFAULT_PARTITION__"

# part -> the partition of the table that it is
Partitions = Mapping[str, Mapping[str, date | datetime | str]]


@dataclass
class Staged:
    """A batch of one table: where its files lie, and the `add` action of each, its path from `folder` on.

    Close it at the end, whatever that is. is_taken: whether the table has files of it.
    """

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
        counts: dict[str | None, int] = {}
        for file in self.files:
            part = file["partitionValues"][PART]
            counts[part] = counts.get(part, 0) + int(json.loads(file["stats"])["numRecords"])
        return counts

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

    def close(self) -> None:
        """Delete what the table did not take: rows of no part and the batch's own log, or all of it.

        Never a file that the table names, whatever was raised since the commit. What cannot be deleted is
        left for a later batch to delete; it must not stand in the way of what is to be told.
        """
        with suppress(*_FAULTS):
            if self.is_taken or self.folder in _folders_named(self.lake, self.table):
                _tidy(self.lake, self._path)
            else:
                self.lake.remove(self._path)

    @property
    def _path(self) -> str:
        return f"{self.lake.path(self.table)}/{self.folder}"


def write_beside(lake: Lake, table: Table, rows: DataFrame) -> Staged:
    """Write rows beside the table, their files apart by PART; parts are named as texts from then on.

    Columns of the table must have its types; those of its partitions may be missing, and there may be others,
    which the table's readers do not see.
    """
    _require_types(rows, table)
    _remove_abandoned(lake, table)
    folder = f"{_PREFIX}{int(time.time())}-{uuid4().hex}"
    path = f"{lake.path(table)}/{folder}"
    try:
        lake.write_files(table, rows, path, by=PART)
        return Staged(lake, table, folder, tuple(lake.files_of_first_commit(path)))
    except BaseException:
        with suppress(*_FAULTS):
            lake.remove(path)
        raise


def take_in(*batches: tuple[Staged, Partitions]) -> None:
    """Make the files of some parts of these batches, of one table, files of the table: in one commit."""
    actions = [one.actions(partitions) for one, partitions in batches]
    staged, _ = batches[0]
    staged.lake.take_in(staged.table, [action for of_one in actions for action in of_one])
    for (one, _), of_one in zip(batches, actions, strict=True):
        one.is_taken = bool(of_one)


def _require_types(rows: DataFrame, table: Table) -> None:
    given = {field.name: field.dataType for field in rows.schema.fields}
    missing = [name for name in table.columns if name not in given and name not in table.partition_by]
    retyped = [name for name, kind in table.columns.items() if given.get(name, kind) != kind]
    if missing or retyped or PART not in given:
        raise TypeError(f"{table.name}: missing={missing} retyped={retyped}, {PART}={PART in given}")


def _tidy(lake: Lake, path: str) -> None:
    """The log at last: it marks a batch whose end nobody has seen to."""
    lake.remove(f"{path}/{PART}={_DEFAULT_PARTITION}")
    lake.remove(f"{path}/_delta_log")


def _remove_abandoned(lake: Lake, table: Table) -> None:
    """See to the end of batches of processes that were killed, a day after they were begun.

    A younger one may be another night's that is being written, where nothing keeps two apart. When it was
    begun its name says; not all stores know it of a folder.
    """
    root, system = located(lake.spark, lake.path(table))
    if not system.exists(root):
        return
    names = [status.getPath().getName() for status in system.listStatus(root) if status.isDirectory()]
    open_ones = [
        f"{lake.path(table)}/{name}"
        for name in names
        if (begun := re.match(rf"{_PREFIX}(\d+)-", name))
        and int(begun[1]) < time.time() - _ABANDONED_SECONDS
        and system.exists(located(lake.spark, f"{lake.path(table)}/{name}/_delta_log")[0])
    ]
    named = _folders_named(lake, table) if open_ones else set()
    for path in open_ones:
        if path.rsplit("/", maxsplit=1)[1] in named:
            _tidy(lake, path)
        else:
            lake.remove(path)


def _folders_named(lake: Lake, table: Table) -> set[str]:
    return lake.folders(table) if lake.exists(table) else set()


def _text(value: date | datetime | str) -> str:
    """As Delta's protocol writes values of partitions."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.isoformat() if isinstance(value, date) else value
