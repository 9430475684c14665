"""Two engines for one tile of users: compiled (numba) and plain (numpy), with identical results.

Both are fed the items tile by tile in ascending order, `take(tile, first, margin)`, and end with
`best()`. What they hold is bounded by the tile of users and k, never by users or items; an engine may be
fed the items of several shards one after the other, its thresholds travelling along.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import os
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_spark.ranking.kernel_exact import part_scores

if TYPE_CHECKING:
    from recsys_spark.ranking.kernel import Csr, ItemParts, UserParts

LOOPS = "recsys_spark.ranking.kernel_loops"
Floats = NDArray[np.float64]
Tile = NDArray[np.float32]
Best = tuple[NDArray[np.int32], Floats]


class Engine(Protocol):
    """The running best k of one tile of users."""

    def add_sparse(
        self, tile: Tile, first: int, rows: NDArray[np.int32], profiles: Tile, scale: float
    ) -> None:
        """Add the items' sparse part; rows maps a term to its row of profiles [terms, users], or -1."""

    def take(self, tile: Tile, first: int, margin: Floats) -> None:
        """Take float32 scores [items, users], each within margin [users] of the exact one."""

    def best(self) -> Best:
        """The exact best k of each user: item index (-1) and score (nan), best first."""


@cache
def compiled_loops() -> ModuleType | None:
    """The compiled loops, or None where numba is missing.

    numba caches compiled code beside the source file. Where that is impossible (the package is in a zip
    or wheel on the path, or no folder is writable) the loops are imported from a private copy.
    """
    if importlib.util.find_spec("numba") is None:
        return None
    spec = importlib.util.find_spec(LOOPS)
    if spec is not None and spec.origin is not None and Path(spec.origin).exists():
        try:
            return importlib.import_module(LOOPS)
        except RuntimeError as error:  # numba: "cannot cache function …: no locator available"
            logging.getLogger(__name__).info("compiled loops are cached in a private folder: %s", error)
    return _import_copy(spec)


def _import_copy(spec: Any) -> ModuleType:
    source = spec.loader.get_source(LOOPS).encode()
    folder = _private_folder() / hashlib.sha256(source).hexdigest()[:16]
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "kernel_loops.py"
    if not path.exists():
        handle, written = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(source)
        Path(written).replace(path)  # atomic: several workers may be here at once
    copy = importlib.util.spec_from_file_location(LOOPS, path)
    if copy is None or copy.loader is None:
        raise ImportError(f"cannot import the compiled loops from {path}")
    module = importlib.util.module_from_spec(copy)
    sys.modules[LOOPS] = module
    try:
        copy.loader.exec_module(module)
    except BaseException:
        del sys.modules[LOOPS]
        raise
    return module


def _private_folder() -> Path:
    """A folder for code that only this user can write to: cached code is executed."""
    base = Path(os.environ.get("NUMBA_CACHE_DIR") or tempfile.gettempdir())
    folder = base / f"recsys-spark-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        return Path(tempfile.mkdtemp(prefix="recsys-spark-"))
    return folder


def _frozen(values: Any, dtype: Any) -> Any:
    """A read-only C-contiguous view: memory-mapped and ordinary arrays are then of one compiled type."""
    view = np.ascontiguousarray(np.asarray(values, dtype=dtype)).view()
    view.flags.writeable = False
    return view


def _csr_arrays(matrix: Csr | None, dtype: Any) -> tuple[Any, Any, Any]:
    if matrix is None:
        return _frozen([], np.int64), _frozen([], np.int32), _frozen([], dtype)
    values: Any = [] if matrix.values is None else matrix.values
    return _frozen(matrix.indptr, np.int64), _frozen(matrix.indices, np.int32), _frozen(values, dtype)


class CompiledEngine:
    """numba: a scan in blocks of 64 users against their running thresholds."""

    def __init__(self, loops: Any, items: ItemParts, users: UserParts, k: int, unit: Floats) -> None:
        n_users, lanes = unit.size, -(-unit.size // loops.BLOCK) * loops.BLOCK
        capacity = 2 * k + 64  # more makes exact rescoring rarer where many scores are almost equal
        self._loops = loops
        self._terms = _csr_arrays(items.sparse, np.float32)
        self._scored = loops.Scored(
            _frozen(users.dense, np.float64),
            _frozen(items.dense, np.float32),
            *_csr_arrays(users.sparse, np.float64),
            *self._terms,
            *_csr_arrays(users.additive, np.float64),
        )
        excluded = _csr_arrays(users.excluded, np.float64)[:2]
        has_groups = items.allowed is not None
        self._masks = loops.Masks(
            *excluded,
            _frozen(items.allowed if has_groups else np.empty((0, 0)), np.uint8),
            _frozen(users.group if has_groups else [], np.int32),
        )
        self._best = loops.Best(
            lows=np.empty((n_users, k)),
            n_lows=np.zeros(n_users, np.int64),
            floor=np.full(n_users, -np.inf),
            entry=np.empty((n_users, capacity, 3)),
            n=np.zeros(n_users, np.int64),
            unit=unit,
            margin=np.zeros(n_users),
            bar=np.full(lanes, np.inf, np.float32),
            next_excluded=excluded[0][:-1].copy(),
            next_additive=self._scored.additive_ptr[:-1].copy(),
            held=np.empty(self._scored.additive_items.size, np.float32),
        )

    def add_sparse(
        self, tile: Tile, first: int, rows: NDArray[np.int32], profiles: Tile, scale: float
    ) -> None:
        self._loops.add_sparse(tile, first, *self._terms, scale, rows, profiles)

    def take(self, tile: Tile, first: int, margin: Floats) -> None:
        self._best.margin[:] = margin
        self._loops.take_tile(tile, first, self._best, self._scored, self._masks)

    def best(self) -> Best:
        n_users, k = self._best.lows.shape
        index, score = np.empty((n_users, k), np.int32), np.empty((n_users, k))
        self._loops.finish(self._best, self._scored, index, score)
        return index, score


@dataclass
class Pool:
    """Candidates of all users of a tile: user row, item, lower and upper bound of the score."""

    row: NDArray[np.int64]
    item: NDArray[np.int64]
    low: Floats
    high: Floats

    def where(self, chosen: NDArray[Any]) -> Pool:
        return Pool(self.row[chosen], self.item[chosen], self.low[chosen], self.high[chosen])

    def joined(self, other: Pool) -> Pool:
        return Pool(
            np.concatenate([self.row, other.row]),
            np.concatenate([self.item, other.item]),
            np.concatenate([self.low, other.low]),
            np.concatenate([self.high, other.high]),
        )

    def place(self, by: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The order by (row, by descending, item), and the place of each in its row, from 0."""
        order = np.lexsort((self.item, -by, self.row))
        rows = self.row[order]
        starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]]) if rows.size else np.empty(0, np.int64)
        lengths = np.diff(np.r_[starts, rows.size])
        return order, np.arange(rows.size) - np.repeat(starts, lengths)


def _empty_pool() -> Pool:
    return Pool(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))


@dataclass
class PlainEngine:
    """numpy only: the same bounds, the same exact scores, several times slower."""

    items: ItemParts
    users: UserParts
    k: int
    unit: Floats
    pool: Pool = field(default_factory=_empty_pool)

    def __post_init__(self) -> None:
        self.floor = np.full(self.unit.size, -np.inf)

    def add_sparse(
        self, tile: Tile, first: int, rows: NDArray[np.int32], profiles: Tile, scale: float
    ) -> None:
        terms = self.items.sparse
        if terms is None or terms.values is None:
            return
        for j in range(tile.shape[0]):
            entries = slice(terms.indptr[first + j], terms.indptr[first + j + 1])
            at = rows[terms.indices[entries]]
            weights = (terms.values[entries] * scale).astype(np.float32)[at >= 0]
            tile[j] += weights @ profiles[at[at >= 0]]

    def take(self, tile: Tile, first: int, margin: Floats) -> None:
        n_items = tile.shape[0]
        scores = tile[:, : self.unit.size]
        row, item = _entries(self.users.excluded, first, n_items)[:2]
        scores[item - first, row] = -np.inf
        row, item, value = _entries(self.users.additive, first, n_items)
        product = scores[item - first, row].astype(np.float64)
        scores[item - first, row] = -np.inf
        possible = np.isfinite(product)
        self._offer_additive(row[possible], item[possible], product[possible], value[possible], margin)
        with np.errstate(over="ignore"):
            bar = ((self.floor - margin) / self.unit).astype(np.float32)
        bar = np.nextafter(bar, np.float32(-np.inf))
        j, row = np.nonzero((scores > bar) & np.isfinite(scores))
        score = scores[j, row].astype(np.float64) * self.unit[row]
        self._offer(Pool(row, j + first, score - margin[row], score + margin[row]))

    def _offer_additive(
        self, row: NDArray[np.int64], item: NDArray[np.int64], product: Floats, value: Floats, margin: Floats
    ) -> None:
        scaled = product * self.unit[row]
        rounding = np.where(margin[row] > 0, (np.abs(scaled) + np.abs(value)) * 1e-15, 0.0)
        around = margin[row] + rounding
        self._offer(Pool(row, item, scaled + value - around, scaled + value + around))

    def _offer(self, pool: Pool) -> None:
        if self.items.allowed is not None and self.users.group is not None:
            pool = pool.where(self.items.allowed[self.users.group[pool.row], pool.item] != 0)
        self.pool = self.pool.joined(pool)
        order, place = self.pool.place(self.pool.low)
        kth = order[place == self.k - 1]
        self.floor[self.pool.row[kth]] = np.maximum(self.floor[self.pool.row[kth]], self.pool.low[kth])
        self.pool = self.pool.where(self.pool.high >= self.floor[self.pool.row])
        if self.pool.row.size > self.unit.size * (2 * self.k + 64):
            self._settle()

    def _settle(self) -> None:
        """Cut the pool to the exact best k so far, in order."""
        vague = np.flatnonzero(self.pool.low != self.pool.high)
        rows, columns = self.pool.row[vague], self.pool.item[vague]
        exact = part_scores(self.items, self.users, rows, columns).total
        self.pool.low[vague] = exact
        self.pool.high[vague] = exact
        order, place = self.pool.place(self.pool.low)
        self.pool = self.pool.where(order[place < self.k])

    def best(self) -> Best:
        self._settle()
        index = np.full((self.unit.size, self.k), -1, np.int32)
        score = np.full((self.unit.size, self.k), np.nan)
        place = self.pool.place(self.pool.low)[1]
        index[self.pool.row, place] = self.pool.item
        score[self.pool.row, place] = self.pool.low
        return index, score


def _entries(
    matrix: Csr | None, first: int, n_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """The stored (row, column, value) with first <= column < first + n_items."""
    if matrix is None:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    here = np.arange(matrix.indptr[0], matrix.indptr[-1])
    column = matrix.indices[here].astype(np.int64)
    row = np.repeat(np.arange(matrix.indptr.size - 1), np.diff(matrix.indptr))
    chosen = (column >= first) & (column < first + n_items)
    values = np.zeros(here.size) if matrix.values is None else matrix.values[here]
    return row[chosen], column[chosen], values[chosen]


def engine_for(items: ItemParts, users: UserParts, k: int, unit: Floats) -> Engine:
    """The compiled engine where numba is, else the plain one."""
    loops = compiled_loops()
    if loops is None:
        return PlainEngine(items, users, k, unit)
    return CompiledEngine(loops, items, users, k, unit)
