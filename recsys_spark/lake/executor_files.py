"""Matrices as files in every executor's local folder, mapped into memory there.

A broadcast would be unpickled into each Python worker; a file is fetched once per executor, its pages are
shared by all workers of the machine, and it may be larger than their memory. The driver serves the files
(SparkContext.addFile), so that executors need no folder in common with it.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from pyspark import SparkFiles
from pyspark.sql import SparkSession

from recsys_spark.errors import ConfigError

_mapped: dict[str, tuple[str, NDArray[Any]]] = {}  # the newest of each series in this worker process


@dataclass(frozen=True)
class SharedMatrix:
    """A small handle to a float32 matrix [rows, columns]; pickle it into a task and `load()` there.

    series: matrices of one series replace each other, and a worker that loads one drops those before it.
    earlier: the file that this one replaces, deleted from the executor's folder when this one is loaded.
    is_local: not offered to executors; only the driver can load it.
    """

    name: str
    series: str
    earlier: str | None
    is_local: bool = False

    def load(self) -> NDArray[np.float32]:
        """The matrix, memory-mapped, read-only. RuntimeError: it was released before its last use."""
        known = _mapped.get(self.series)
        if known is None or known[0] != self.name:
            path = _folder() / self.name if self.is_local else Path(SparkFiles.get(self.name))
            if not path.exists() or path.stat().st_size == 0:
                raise RuntimeError(f"shared file {self.name} is gone: released before its last use?")
            known = (self.name, np.asarray(np.load(path, mmap_mode="r")))
            _mapped[self.series] = known
            if self.earlier is not None and not self.is_local:
                Path(SparkFiles.get(self.earlier)).unlink(missing_ok=True)
        return known[1]

    def release(self) -> None:
        """Free the driver's disk space; call it after the last action that loads the matrix.

        Spark offers a file to every executor that starts later and cannot take the offer back; a missing
        file would fail that executor's tasks. So an empty one takes its place.
        """
        served = _folder() / self.name
        served.unlink(missing_ok=True)  # not truncated: somebody may still have it mapped
        if not self.is_local:
            Path(SparkFiles.get(self.name)).unlink(missing_ok=True)
            served.touch()


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
        self._count = 0
        self._next = ""

    def begin(self) -> NDArray[np.float32]:
        """A writable matrix on the driver's disk; fill it, then `share()` it."""
        self._next = f"{self.series}-{self._count}.npy"
        self._count += 1
        needed, free = 4 * self.rows * self.columns, shutil.disk_usage(_folder()).free
        if needed > free:
            raise ConfigError(
                f"{self.label} of {self.rows:,} rows x {self.columns} take {needed / 1e9:.1f} GB of the "
                f"driver's temporary folder, which has {free / 1e9:.1f} GB free. "
                "Next: set TMPDIR to a larger disk, or lower als.rank."
            )
        shape = (self.rows, self.columns)
        return np.lib.format.open_memmap(_folder() / self._next, mode="w+", dtype=np.float32, shape=shape)

    def share(self, matrix: NDArray[np.float32]) -> SharedMatrix:
        """Offer the matrix of `begin()` to all executors and release the one before."""
        if isinstance(matrix, np.memmap):
            matrix.flush()
        earlier = self.current
        before = None if earlier is None else earlier.name
        self.current = SharedMatrix(self._next, self.series, before, self.is_local)
        if not self.is_local:
            self.spark.sparkContext.addFile(str(_folder() / self._next))
        if earlier is not None:
            earlier.release()
        return self.current

    def offer(self) -> SharedMatrix:
        """The current matrix, for executors too."""
        if self.current is None:
            raise RuntimeError(f"{self.label}: nothing to offer yet")
        if self.current.is_local:
            self.spark.sparkContext.addFile(str(_folder() / self.current.name))
            self.current = SharedMatrix(self.current.name, self.series, None)
        return self.current

    def close(self) -> None:
        if self.current is not None:
            self.current.release()
            self.current = None


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="recsys-files-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
