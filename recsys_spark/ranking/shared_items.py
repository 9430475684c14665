"""Item data as files in every executor's local folder, mapped into memory there.

A broadcast would be unpickled into every Python worker; a file is fetched once per executor and its pages
are shared by all workers of the machine. The driver serves the files (SparkContext.addFile), so workers
need no folder in common with it.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkFiles
from pyspark.sql import SparkSession

from recsys_spark.ranking.kernel import Csr, ItemNorms, ItemParts

KEPT_OPEN = 4  # item sets a worker process keeps mapped; Spark reuses the process for later jobs

_loaded: OrderedDict[str, tuple[ItemParts, pa.Array]] = OrderedDict()


@dataclass(frozen=True)
class SharedItems:
    """A small handle to shared item data; pickle it into a task and `load()` there.

    name: unique per call of share_items. parts: which arrays there are.
    """

    name: str
    parts: tuple[str, ...]
    n_items: int

    def load(self) -> tuple[ItemParts, pa.Array]:
        """The items and their ids, memory-mapped from this executor's folder, once per process.

        RuntimeError: the files were released before the last task that needed them.
        """
        if self.name not in _loaded:
            _loaded[self.name] = self._mapped()
            while len(_loaded) > KEPT_OPEN:
                _loaded.popitem(last=False)
        _loaded.move_to_end(self.name)
        return _loaded[self.name]

    def release(self) -> None:
        """Free the disk space on the driver; call it after the last action that ranks these items.

        Spark offers a file to every executor that starts later, with no way to take the offer back, and a
        missing file would fail that executor's tasks, whatever they do. So it is emptied, not deleted.
        Executors remove their copies when the application ends.
        """
        for part in self.parts:
            Path(SparkFiles.get(self._file(part))).unlink(missing_ok=True)  # the driver's own copy
            served = _driver_folder(self.name) / self._file(part)
            if served.exists():
                served.write_bytes(b"")
        _loaded.pop(self.name, None)

    def _file(self, part: str) -> str:
        return f"{self.name}-{part}"

    def _mapped(self) -> tuple[ItemParts, pa.Array]:
        def array(part: str) -> NDArray[Any]:
            path = self._path(part)
            try:
                return np.load(path, mmap_mode="r")
            except ValueError:  # an array without elements cannot be mapped
                return np.load(path)

        sparse, allowed = None, None
        if "indptr.npy" in self.parts:
            sparse = Csr(array("indptr.npy"), array("indices.npy"), array("values.npy"))
        if "allowed.npy" in self.parts:
            allowed = array("allowed.npy")
        items = ItemParts(array("dense.npy"), sparse, allowed)
        most_terms = int(array("most_terms.npy"))
        # The driver has checked all values and taken the norms: no worker reads the whole matrix for that.
        items.__dict__["norms"] = ItemNorms(array("dense_norm.npy"), array("sparse_norm.npy"), most_terms)
        with pa.memory_map(str(self._path("ids.arrow"))) as source:
            ids = pa.ipc.open_file(source).read_all().column(0).combine_chunks()
        return items, ids

    def _path(self, part: str) -> Path:
        path = Path(SparkFiles.get(self._file(part)))
        if not path.exists() or path.stat().st_size == 0:
            raise RuntimeError(
                f"shared item file {path.name} is gone: released before its last use? Share the items again."
            )
        return path


def _driver_folder(name: str) -> Path:
    return Path(tempfile.gettempdir()) / name


def share_items(spark: SparkSession, parts: ItemParts, item_ids: Any) -> SharedItems:
    """Ship item data to all executors; item_ids [I] (strings, ascending) name the rows of parts.

    Cost: one write, and one transfer per executor. The files are emptied by `release()` and removed when
    the driver's Python ends. ValueError: ids that do not fit the parts, NaN or infinity in the parts.
    """
    if len(item_ids) != parts.n_items:
        raise ValueError(f"item_ids: {len(item_ids)} ids for {parts.n_items} items")
    folder = Path(tempfile.mkdtemp(prefix="recsys-items-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shared_parts = []
    for part, values in _files(parts):
        np.save(folder / f"{folder.name}-{part}", values)
        shared_parts.append(part)
    _write_ids(folder / f"{folder.name}-ids.arrow", item_ids)
    shared = SharedItems(folder.name, (*shared_parts, "ids.arrow"), parts.n_items)
    for part in shared.parts:
        spark.sparkContext.addFile(str(folder / f"{shared.name}-{part}"))
    return shared


def _files(parts: ItemParts) -> Iterator[tuple[str, NDArray[Any]]]:
    norms = parts.norms
    yield "dense.npy", parts.dense
    yield "dense_norm.npy", norms.dense
    yield "sparse_norm.npy", norms.sparse
    yield "most_terms.npy", np.array(norms.most_terms)
    if parts.sparse is not None and parts.sparse.values is not None:
        yield "indptr.npy", parts.sparse.indptr.astype(np.int64)
        yield "indices.npy", parts.sparse.indices.astype(np.int32)
        yield "values.npy", parts.sparse.values.astype(np.float32)
    if parts.allowed is not None:
        yield "allowed.npy", parts.allowed.astype(np.uint8)


def _write_ids(path: Path, item_ids: Any) -> None:
    ids = item_ids.combine_chunks() if isinstance(item_ids, pa.ChunkedArray) else pa.array(item_ids)
    table = pa.table({"item_id": ids.cast(pa.string())})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
