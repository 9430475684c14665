"""Matrices as served files (see `served_files`), which may be larger than the memory of those who read them.

A matrix larger than PART_BYTES is several files of consecutive rows. A task maps those that it asks rows of,
one after the other, and holds the rows themselves: its memory is bounded by its own pairs, whatever the size
of the matrix. Not bounded is the disk: Spark sends every executor all files, so each machine needs room for
the newest matrix of a series and for the parts of the one before it, which go as the new ones are mapped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.errors import ConfigError
from recsys_spark.runtime.served_files import (
    drop_copy,
    require_there,
    serve,
    served_path,
    serving_folder,
    withdraw,
)

PART_BYTES = 1 << 30  # 4 million rows at rank 64

Rows = NDArray[np.float32]

# What this process has mapped: (series, part's number) -> (file, its rows), the newest of each.
mapped_parts: dict[tuple[str, int], tuple[str, Rows]] = {}


@dataclass(frozen=True)
class SharedMatrix:
    """A small handle to a float32 matrix [rows, columns]; pickle it into a task and read rows there.

    folder: where its files lie on the driver. series: matrices of one series replace each other, and a worker
    that maps a part drops that before it. earlier: the matrix that this one replaces, whose parts are deleted
    from the executor's folder as those of this one are mapped. is_local: not offered to executors; only the
    driver can read it.
    """

    name: str
    folder: Path
    series: str
    earlier: str | None
    rows: int
    columns: int
    part_rows: int
    is_local: bool = False

    @property
    def files(self) -> list[str]:
        return _files(self.name, self.rows, self.part_rows)

    def read(self, index: NDArray[np.integer]) -> Rows:
        """The rows of these indexes, in their order, copied. RuntimeError: released before its last use."""
        copied = np.empty((index.size, self.columns), np.float32)
        for part, own, at in _by_part(index, self.part_rows):
            copied[own] = self._part(part)[at]
        return copied

    def needed(self, index: NDArray[np.int32]) -> tuple[Rows, NDArray[np.int32]]:
        """A matrix that holds these rows, and their indexes in it: the whole, mapped, where it is one part,
        and else each of the rows once."""
        if len(self.files) == 1:
            return self._part(0), index
        distinct, place = np.unique(index, return_inverse=True)
        return self.read(distinct), place.astype(np.int32)

    def _part(self, part: int) -> Rows:
        file, key = self.files[part], (self.series, part)
        known = mapped_parts.get(key)
        if known is None or known[0] != file:
            path = self.folder / file if self.is_local else served_path(file)
            require_there(path)
            known = (file, np.asarray(np.load(path, mmap_mode="r")))
            mapped_parts[key] = known
            if self.earlier is not None and not self.is_local:
                before = _files(self.earlier, self.rows, self.part_rows)[part]
                drop_copy(before)
        return known[1]

    def release(self) -> None:
        """Free the driver's disk space; call it after the last action that reads the matrix."""
        if self.is_local:
            for file in self.files:
                (self.folder / file).unlink(missing_ok=True)
        else:
            withdraw(self.folder, self.files)


@dataclass
class Draft:
    """A matrix on the driver's disk that is being written: consecutive rows in parts."""

    parts: list[NDArray[np.float32]]
    part_rows: int

    def put(self, index: NDArray[np.integer], rows: Rows) -> None:
        """Write the rows [n, columns] at these indexes, each once."""
        for part, own, at in _by_part(index, self.part_rows):
            self.parts[part][at] = rows[own]

    def blocks(self, at_most: int) -> Iterator[Rows]:
        """The rows from the first to the last, so many at a time whatever the parts."""
        total = sum(len(part) for part in self.parts)
        for first in range(0, total, at_most):
            index = np.arange(first, min(first + at_most, total))
            rows = np.empty((index.size, self.parts[0].shape[1]), np.float32)
            for part, own, at in _by_part(index, self.part_rows):
                rows[own] = self.parts[part][at]
            yield rows


@dataclass
class MatrixSeries:
    """Matrices of one shape that follow each other under a name; at most one is on offer at a time.

    is_local: the driver alone works with them, until `offer()`.
    """

    spark: SparkSession
    label: str
    rows: int
    columns: int
    is_local: bool = False
    current: SharedMatrix | None = None

    def __post_init__(self) -> None:
        self.series = f"{self.label}-{uuid4().hex[:12]}"
        self.folder = serving_folder(self.spark, "recsys-files-")
        self.part_rows = max(1, PART_BYTES // (4 * self.columns))
        self._count = 0
        self._next = ""

    def begin(self) -> Draft:
        """A matrix on the driver's disk to be written; fill it, then `share()` it."""
        self._next = f"{self.series}-{self._count}"
        self._count += 1
        needed, free = 4 * self.rows * self.columns, shutil.disk_usage(self.folder).free
        if needed > free:
            raise ConfigError(
                f"{self.label} of {self.rows:,} rows x {self.columns} take {needed / 1e9:.1f} GB of the "
                f"driver's temporary folder, which has {free / 1e9:.1f} GB free. "
                "Next: set TMPDIR to a larger disk, or lower als.rank."
            )
        parts: list[Rows] = []
        for part, file in enumerate(_files(self._next, self.rows, self.part_rows)):
            shape = (min(self.part_rows, self.rows - part * self.part_rows), self.columns)
            opened = np.lib.format.open_memmap(self.folder / file, mode="w+", dtype=np.float32, shape=shape)
            parts.append(opened)
        return Draft(parts, self.part_rows)

    def share(self, draft: Draft) -> SharedMatrix:
        """Offer the matrix of `begin()` to all executors and release the one before."""
        for part in draft.parts:
            if isinstance(part, np.memmap):
                part.flush()
        earlier = self.current
        before = None if earlier is None else earlier.name
        self.current = self._shared(self._next, before, is_local=self.is_local)
        if not self.is_local:
            self._add(self.current)
        if earlier is not None:
            earlier.release()
        return self.current

    def share_rows(self, matrix: Rows) -> SharedMatrix:
        """Offer a matrix that is at hand."""
        draft = self.begin()
        draft.put(np.arange(self.rows), matrix)
        return self.share(draft)

    def offer(self) -> SharedMatrix:
        """The current matrix, for executors too."""
        if self.current is None:
            raise RuntimeError(f"{self.label}: nothing to offer yet")
        if self.current.is_local:
            self._add(self.current)
            self.current = self._shared(self.current.name, None, is_local=False)
        return self.current

    def close(self) -> None:
        if self.current is not None:
            self.current.release()
            self.current = None

    def _shared(self, name: str, earlier: str | None, *, is_local: bool) -> SharedMatrix:
        return SharedMatrix(
            name, self.folder, self.series, earlier, self.rows, self.columns, self.part_rows, is_local
        )

    def _add(self, matrix: SharedMatrix) -> None:
        serve(self.spark, self.folder, matrix.files)


def _files(name: str, rows: int, part_rows: int) -> list[str]:
    return [f"{name}-{part}.npy" for part in range(max(1, -(-rows // part_rows)))]


def _by_part(
    index: NDArray[np.integer], part_rows: int
) -> Iterator[tuple[int, slice | NDArray[np.integer], NDArray[np.integer]]]:
    """(part, which of the indexes lie in it, and their places in it) of each part that holds one."""
    if index.size == 0:
        return
    if int(index.max()) < part_rows:
        yield 0, slice(None), index
        return
    of_part = index // part_rows
    for part in np.unique(of_part):
        own = np.flatnonzero(of_part == part)
        yield int(part), own, index[own] - part * part_rows
