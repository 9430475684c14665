"""Item data as served files (see `runtime.served_files`).

What is larger than a share of the executor's memory comes in shards, and a worker maps one at a time.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.ranking.kernel.parts import Csr, ItemParts
from recsys_spark.ranking.kernel.shards import Arrangement, Outline, Shard, Shards, arranged
from recsys_spark.runtime.served_files import serve, served_path, serving_folder, withdraw

KEPT_OPEN = 4  # item sets a worker process keeps mapped; Spark reuses the process for later jobs
MAX_ITEM_SHARE = 0.25

_loaded: OrderedDict[str, LoadedItems] = OrderedDict()


@dataclass(frozen=True)
class LoadedItems:
    """Item data as a task sees them, memory-mapped: shards for the kernel, ids and extra in item order.

    held: the shard that is mapped, and with it what the kernel has made of its items.
    """

    shards: Shards
    ids: pa.Array
    extra: Mapping[str, NDArray[Any]]
    held: OneAtATime


@dataclass(frozen=True)
class SharedItems:
    """A small handle to shared item data; pickle it into a task and `load()` there.

    name: unique per call of share_items. files: what there is. outline: of the kernel's shards.
    """

    name: str
    files: tuple[str, ...]
    outline: Outline

    @property
    def n_items(self) -> int:
        return self.outline.n_items

    def load(self) -> LoadedItems:
        """The items, memory-mapped from this executor's folder, once per process.

        Other items that this process has mapped let go of their shard and its codes, which are its own
        memory; should they be asked for again they are mapped and coded anew. RuntimeError: the files were
        released before the last task that needed them.
        """
        if self.name not in _loaded:
            _loaded[self.name] = self._mapped()
            while len(_loaded) > KEPT_OPEN:
                _loaded.popitem(last=False)
        _loaded.move_to_end(self.name)
        for name, others in _loaded.items():
            if name != self.name:
                others.held.let_go()
        return _loaded[self.name]

    def release(self) -> None:
        """Free the disk space on the driver; call it after the last action that ranks these items."""
        withdraw(_driver_folder(self.name), [self._file(part) for part in self.files])
        _loaded.pop(self.name, None)

    def _file(self, part: str) -> str:
        return f"{self.name}-{part}"

    def _mapped(self) -> LoadedItems:
        with pa.memory_map(str(self._path("ids.arrow"))) as source:
            ids = pa.ipc.open_file(source).read_all().column(0).combine_chunks()
        extra = {unquote(name[6:-4]): self._array(name) for name in self.files if name.startswith("extra-")}
        place = self._array("place.npy")
        held = OneAtATime(self)
        return LoadedItems(Shards(self.outline, place, held.shard), ids, extra, held)

    def shard(self, number: int) -> Shard:
        """Map one shard."""
        sparse, allowed = None, None
        if f"indptr-{number}.npy" in self.files:
            names = (f"{part}-{number}.npy" for part in ("indptr", "indices", "values"))
            sparse = Csr(*(self._array(name) for name in names))
        if f"allowed-{number}.npy" in self.files:
            allowed = self._array(f"allowed-{number}.npy")
        dense, norms, item = (self._array(f"{part}-{number}.npy") for part in ("dense", "norms", "item"))
        return Shard(self.outline.cuts[number], dense, norms, item, sparse, allowed)

    def _array(self, name: str) -> NDArray[Any]:
        path = self._path(name)
        try:
            return np.load(path, mmap_mode="r")
        except ValueError:  # an array without elements cannot be mapped
            return np.load(path)

    def _path(self, part: str) -> Path:
        return served_path(self._file(part))


@dataclass
class OneAtATime:
    """Keeps the shard last asked for, and no other."""

    shared: SharedItems
    number: int = -1
    last: Shard | None = field(default=None)

    def shard(self, number: int) -> Shard:
        if self.last is None or number != self.number:
            self.let_go()  # of the one before the next is mapped
            self.last = self.shared.shard(number)
            self.number = number
        return self.last

    def let_go(self) -> None:
        self.last = None


def _driver_folder(name: str) -> Path:
    return Path(tempfile.gettempdir()) / name


def shard_bytes(spark: SparkSession, share: float) -> int:
    """That share of an executor's memory (of the driver's in local mode, where it is the executor)."""
    context = spark.sparkContext
    local = str(context.master).startswith("local")
    conf = context.getConf()  # the session's would tell what was asked for after the JVM had started, too
    memory = str(conf.get("spark.driver.memory" if local else "spark.executor.memory", "1g"))
    return int(share * memory_bytes(memory))


def memory_bytes(size: str) -> int:
    """Spark's way to write a size: 512m, 4g, 1t; a plain number is in MiB."""
    units = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
    number = size.lower().removesuffix("b") if size[-2:-1].isalpha() else size.lower()
    unit = number[-1] if number[-1].isalpha() else "m"
    return int(float(number.rstrip("bkmgt")) * units[unit])


def share_items(
    spark: SparkSession,
    parts: ItemParts,
    item_ids: Any,
    *,
    extra: Mapping[str, NDArray[Any]] | None = None,
    max_item_share: float = MAX_ITEM_SHARE,
) -> SharedItems:
    """Ship item data to all executors.

    Cost: one write, and one transfer per executor. The files are emptied by `release()`, and removed when the
    driver's Python ends or shares items in a later session.

    spark: the session.
    parts: I items, in ascending order of their ids.
    item_ids: strings [I], ascending, that name the rows of parts.
    extra: further arrays by name, for the task.
    max_item_share: of an executor's memory; items that take more are cut into shards of at most that size, or
        of 64 items.

    Raises ValueError for ids that do not fit the parts, NaN or infinity in the parts.
    """
    if len(item_ids) != parts.n_items:
        raise ValueError(f"item_ids: {len(item_ids)} ids for {parts.n_items} items")
    arrangement = arranged(parts, shard_bytes=shard_bytes(spark, max_item_share))
    folder = serving_folder(spark, "recsys-items-")
    names = []
    for name, values in _files(arrangement, extra or {}):
        np.save(folder / f"{folder.name}-{name}", values)
        names.append(name)
    _write_ids(folder / f"{folder.name}-ids.arrow", item_ids)
    shared = SharedItems(folder.name, (*names, "ids.arrow"), arrangement.outline)
    serve(spark, folder, [f"{shared.name}-{name}" for name in shared.files])
    return shared


def _files(arrangement: Arrangement, extra: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    yield "place.npy", arrangement.place
    for name, values in extra.items():
        yield f"extra-{quote(name, safe='')}.npy", values  # a column may be called anything
    for number in range(arrangement.outline.n_shards):
        shard = arrangement.shard(number)
        yield f"dense-{number}.npy", shard.dense
        yield f"norms-{number}.npy", shard.norms
        yield f"item-{number}.npy", shard.item
        if shard.sparse is not None:
            yield f"indptr-{number}.npy", shard.sparse.indptr.astype(np.int64)
            yield f"indices-{number}.npy", shard.sparse.indices.astype(np.int32)
            yield f"values-{number}.npy", np.asarray(shard.sparse.values, np.float32)
        if shard.allowed is not None:
            yield f"allowed-{number}.npy", shard.allowed


def _write_ids(path: Path, item_ids: Any) -> None:
    ids = item_ids.combine_chunks() if isinstance(item_ids, pa.ChunkedArray) else pa.array(item_ids)
    table = pa.table({"item_id": ids.cast(pa.string())})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
