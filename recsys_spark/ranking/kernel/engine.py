"""Two engines for one tile of users: compiled (numba) and plain (numpy), with identical results.

Both are given shard after shard by `begin(shard)`, the shard's items tile by tile in order of place by
`take`, and `settle()` before the shard goes; they end with `best()`. What they hold is bounded by the tile
of users and k, never by users or items: candidates and thresholds travel from shard to shard.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_spark.ranking.kernel.bounds import Bounds
from recsys_spark.ranking.kernel.codes import CodedTile, CodedUsers
from recsys_spark.ranking.kernel.exact import LOOPS, allowed, holds, part_scores
from recsys_spark.ranking.kernel.parts import Csr, Profiles
from recsys_spark.ranking.kernel.shards import PlacedUsers, Shard
from recsys_spark.runtime.compiled import compiled, frozen

CODE_LOOPS = "recsys_spark.ranking.kernel.code_loops"
Floats = NDArray[np.float64]
Tile = NDArray[np.float32]
Best = tuple[NDArray[np.int32], Floats]


class Engine(Protocol):
    """The running best k of one tile of users."""

    floor: Floats
    """[U], at most the k-th best exact score so far; -inf while there are fewer than k."""

    def begin(self, shard: Shard) -> None:
        """Take up a shard: first what needs no product, items with an additive value and users of zeros."""

    def add_sparse(self, tile: Tile, start: int, profiles: Profiles, scale: float) -> None:
        """Add the sparse part of the shard's items from start on, their weights times scale."""

    def take(self, tile: Tile, start: int, users: NDArray[np.int64], margin: Floats) -> None:
        """Take float32 scores [items, lanes] of these users, each within margin [users] of the exact one."""

    def settle(self) -> None:
        """Score exactly what is still in play of this shard."""

    def best(self) -> Best:
        """The exact best k of each user, all settled: item index (-1) and score (nan), best first."""


def compiled_loops() -> ModuleType | None:
    """The compiled loops, or None where numba is missing."""
    return compiled(LOOPS)


@cache
def code_loops() -> ModuleType | None:
    """The compiled scan of codes, or None where numba or the processor's instruction is missing."""
    if compiled_loops() is None:
        return None
    vnni = importlib.import_module("recsys_spark.ranking.kernel.vnni")
    return compiled(CODE_LOOPS) if vnni.is_supported() else None


def _csr_arrays(matrix: Csr | None, dtype: Any) -> tuple[Any, Any, Any]:
    if matrix is None:
        return frozen([], np.int64), frozen([], np.int32), frozen([], dtype)
    values: Any = [] if matrix.values is None else matrix.values
    return frozen(matrix.indptr, np.int64), frozen(matrix.indices, np.int32), frozen(values, dtype)


class CompiledEngine:
    """numba: a scan in blocks of 64 users against their running thresholds."""

    def __init__(self, loops: Any, users: PlacedUsers, k: int, bounds: Bounds) -> None:
        n_users = users.n_users
        capacity = 2 * k + 64  # more makes exact rescoring rarer where many scores are almost equal
        self._loops = loops
        self._is_zero = bounds.is_zero
        self._scored = loops.Scored(
            frozen(users.dense, np.float64),
            frozen(bounds.norms, np.float64),
            *_csr_arrays(users.sparse, np.float64),
            *_csr_arrays(users.additive, np.float64),
        )
        self._masks = loops.Masks(
            *_csr_arrays(users.excluded, np.float64)[:2],
            *_csr_arrays(users.masked, np.float64)[:2],
            frozen([] if users.group is None else users.group, np.int32),
        )
        self.floor = np.full(n_users, -np.inf)
        self._best = loops.Best(
            lows=np.empty((n_users, k)),
            n_lows=np.zeros(n_users, np.int64),
            floor=self.floor,
            entry=np.empty((n_users, capacity, 4)),
            n=np.zeros(n_users, np.int64),
            unit=frozen(bounds.unit, np.float64),
            absolute=frozen(bounds.absolute, np.float64),
            next_masked=self._masks.masked_ptr[:-1].copy(),
            next_additive=self._scored.additive_ptr[:-1].copy(),
        )

    def begin(self, shard: Shard) -> None:
        no_groups = np.empty((0, 0), np.uint8)
        self._items = self._loops.Items(
            shard.first,
            frozen(shard.item, np.int32),
            frozen(shard.dense, np.float32),
            frozen(shard.norms, np.float64),
            *_csr_arrays(shard.sparse, np.float32),
            frozen(no_groups if shard.allowed is None else shard.allowed, np.uint8),
        )
        if self._scored.additive_ptr.size:
            self._loops.take_additive(self._best, self._scored, self._items, self._masks)
        if np.any(self._is_zero):
            by_item = np.argsort(shard.item)
            for u in np.flatnonzero(self._is_zero):
                self._loops.take_zero(u, by_item, self._best, self._scored, self._items, self._masks)

    def add_sparse(self, tile: Tile, start: int, profiles: Profiles, scale: float) -> None:
        items = self._items
        terms = items.terms_ptr, items.terms, items.term_values
        rare = profiles.rare_ptr, profiles.rare_lanes, profiles.rare_values
        self._loops.add_sparse(tile, start, *terms, scale, profiles.number, profiles.common, *rare)

    def take(self, tile: Tile, start: int, users: NDArray[np.int64], margin: Floats) -> None:
        bar = np.empty(tile.shape[1], np.float32)
        state = self._best, self._scored, self._items, self._masks
        self._loops.take_tile(tile, start, users, margin, bar, *state)

    def take_codes(
        self, tile: CodedTile, columns: slice, users: NDArray[np.int64], coded: CodedUsers, fine: Floats
    ) -> int:
        """Take the shard's items `columns` by their codes; how many scores were near enough to look at.

        Only where `code_loops` are.

        tile: the items' codes.
        columns: the items' places within the shard.
        users: int64 [n], which of the engine's users.
        coded: their codes, in the same order.
        fine: [n], how far a float32 score may be from the exact one.
        """
        loops: Any = code_loops()
        unit = self._best.unit[users]
        panels = loops.Panels(
            users,
            -(-coded.vectors.shape[1] // 4),
            coded.codes,
            coded.vectors,
            unit * coded.step * tile.step,
            unit * coded.margin(tile),
            fine,
        )
        codes = loops.TileCodes(tile.codes, tile.starts)
        state = self._best, self._scored, self._items, self._masks
        near: int = loops.take_codes(codes, columns.start, columns.stop - columns.start, panels, *state)
        return near

    def settle(self) -> None:
        self._loops.settle(self._best, self._scored, self._items)

    def best(self) -> Best:
        n_users, k = self._best.lows.shape
        index, score = np.empty((n_users, k), np.int32), np.empty((n_users, k))
        self._loops.finish(self._best, index, score)
        return index, score


@dataclass
class Pool:
    """Candidates of all users of a tile: user row, item, its place, lower and upper bound of the score."""

    row: NDArray[np.int64]
    item: NDArray[np.int64]
    place: NDArray[np.int64]
    low: Floats
    high: Floats

    @classmethod
    def of(cls, row: Any, places: Any, shard: Shard, low: Floats, high: Floats) -> Pool:
        """Pairs of a user and an item of the shard as candidates.

        row: int64 [P], the user of each pair.
        places: int64 [P], the item's place in the catalogue.
        shard: that holds the items.
        low: [P], lower bounds of the exact scores.
        high: [P], upper bounds; where the two are equal the score is exact.
        """
        return cls(row, shard.item[places - shard.first].astype(np.int64), places, low, high)

    def where(self, chosen: NDArray[Any]) -> Pool:
        return Pool(*(values[chosen] for values in vars(self).values()))

    def joined(self, other: Pool) -> Pool:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Pool(*(np.concatenate(pair) for pair in pairs))

    def ranked(self, by: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The order by (row, by descending, item), and the rank of each in its row, from 0."""
        order = np.lexsort((self.item, -by, self.row))
        rows = self.row[order]
        starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]]) if rows.size else np.empty(0, np.int64)
        lengths = np.diff(np.r_[starts, rows.size])
        return order, np.arange(rows.size) - np.repeat(starts, lengths)


def _empty_pool() -> Pool:
    none = np.empty(0, np.int64)
    return Pool(none, none, none, np.empty(0), np.empty(0))


@dataclass
class PlainEngine:
    """numpy only: the same bounds, the same exact scores, several times slower."""

    users: PlacedUsers
    k: int
    bounds: Bounds
    pool: Pool = field(default_factory=_empty_pool)

    def __post_init__(self) -> None:
        self.floor = np.full(self.users.n_users, -np.inf)

    def begin(self, shard: Shard) -> None:
        self.shard = shard
        row, place = _entries(self.users.additive, shard.first, shard.n_items)
        free = ~holds(self.users.excluded, row, place)
        row, place = row[free], place[free]
        exact = part_scores(shard, self.users, row, place).total
        self._offer(Pool.of(row, place, shard, exact, exact.copy()))
        for u in np.flatnonzero(self.bounds.is_zero):
            places = shard.first + np.arange(shard.n_items)
            row = np.full(places.size, u)
            free = ~holds(self.users.masked, row, places)
            zeros = np.zeros(int(free.sum()))
            self._offer(Pool.of(row[free], places[free], shard, zeros, zeros.copy()))

    def add_sparse(self, tile: Tile, start: int, profiles: Profiles, scale: float) -> None:
        terms = self.shard.sparse
        if terms is None or terms.values is None:
            return
        n_common, ptr = len(profiles.common), profiles.rare_ptr
        for j in range(tile.shape[0]):
            entries = slice(terms.indptr[start + j], terms.indptr[start + j + 1])
            number = profiles.number[terms.indices[entries]]
            weights = (terms.values[entries] * scale).astype(np.float32)
            is_common = (number >= 0) & (number < n_common)
            tile[j] += weights[is_common] @ profiles.common[number[is_common]]
            for at in np.flatnonzero(number >= n_common):
                rare = slice(ptr[number[at] - n_common], ptr[number[at] - n_common + 1])
                tile[j, profiles.rare_lanes[rare]] += weights[at] * profiles.rare_values[rare]

    def take(self, tile: Tile, start: int, users: NDArray[np.int64], margin: Floats) -> None:
        first, unit = self.shard.first + start, self.bounds.unit[users]
        lane_of = np.full(self.users.n_users, -1)
        lane_of[users] = np.arange(users.size)
        row, place = _entries(self.users.masked, first, tile.shape[0])
        here = lane_of[row] >= 0
        tile[place[here] - first, lane_of[row[here]]] = -np.inf
        with np.errstate(over="ignore"):
            bar = ((self.floor[users] - margin) / unit).astype(np.float32)
        bar = np.nextafter(bar, np.float32(-np.inf))
        scores = tile[:, : users.size]
        j, lane = np.nonzero((scores > bar) & np.isfinite(scores))
        score = scores[j, lane].astype(np.float64) * unit[lane]
        around = margin[lane]
        self._offer(Pool.of(users[lane], first + j, self.shard, score - around, score + around))

    def _offer(self, pool: Pool) -> None:
        pool = pool.where(allowed(self.shard, self.users.group, pool.row, pool.place - self.shard.first))
        self.pool = self.pool.joined(pool)
        order, rank = self.pool.ranked(self.pool.low)
        kth = order[rank == self.k - 1]
        self.floor[self.pool.row[kth]] = np.maximum(self.floor[self.pool.row[kth]], self.pool.low[kth])
        self.pool = self.pool.where(self.pool.high >= self.floor[self.pool.row])
        if self.pool.row.size > self.users.n_users * (2 * self.k + 64):
            self.settle()

    def settle(self) -> None:
        vague = np.flatnonzero(self.pool.low != self.pool.high)
        exact = part_scores(self.shard, self.users, self.pool.row[vague], self.pool.place[vague]).total
        self.pool.low[vague] = exact
        self.pool.high[vague] = exact
        order, rank = self.pool.ranked(self.pool.low)
        self.pool = self.pool.where(order[rank < self.k])

    def best(self) -> Best:
        index = np.full((self.users.n_users, self.k), -1, np.int32)
        score = np.full((self.users.n_users, self.k), np.nan)
        rank = self.pool.ranked(self.pool.low)[1]
        index[self.pool.row, rank] = self.pool.item
        score[self.pool.row, rank] = self.pool.low
        return index, score


def _entries(matrix: Csr | None, first: int, n_items: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The stored (row, place) with first <= place < first + n_items."""
    if matrix is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    place = matrix.indices[int(matrix.indptr[0]) : int(matrix.indptr[-1])].astype(np.int64)
    chosen = (place >= first) & (place < first + n_items)
    return matrix.row[chosen], place[chosen]


def engine_for(users: PlacedUsers, k: int, bounds: Bounds) -> Engine:
    """The compiled engine where numba is, else the plain one."""
    loops = compiled_loops()
    if loops is None:
        return PlainEngine(users, k, bounds)
    return CompiledEngine(loops, users, k, bounds)
