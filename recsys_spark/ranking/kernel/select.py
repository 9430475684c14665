"""The exact top-K: the best k items of each user over the whole catalogue, under masks.

Scores are defined in float64 with a fixed order of summation (see `exact`), ties go to the lower
item index, and so the result depends on nothing else: not on tiles, shards, partitions, cores or the engine.

For U users, I items and D dense dimensions the work is at most a float32 product, 2·U·I·D FLOP, tile by
tile into a reused buffer; items come by falling norm, and a user who can gain nothing more leaves the tile
(see `shards`). float32 alone is not exact: by the usual bound on an inner product of n terms in any
order (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1) a float32 score is within

    margin = γ_n · Σ_b ‖u_b‖·max‖v_b‖,   γ_n = n·2⁻²⁴ / (1 − n·2⁻²⁴),   n = D + item terms + 2

of the exact one, b being the blocks of dimensions and the sparse part, the 2 the rounding of the user's and
the sparse weights to float32. A user keeps every item whose score plus margin reaches the k-th best score
minus margin; these are scored again in float64.

Where the processor multiplies bytes (AVX-512 VNNI) and there is no sparse part, 8-bit codes of the factors
are screened before that, with a bound of their own (see `codes`), and only what passes is scored in
float32: on normal random factors 0.4 of the time of the bare product, which is otherwise 1.3. A tile of whose
scores more than NEAR_SHARE pass tells too little, and its users go on in float32.

Memory: tile_items × tile_users float32, (2k + 64) candidates of 32 bytes per user of a tile, the profiles
of a tile of users, and one shard of items with its codes, a quarter of it again. With several shards the
candidates of all users of the call are held, since every shard is visited once per call. Nothing grows with
the number of users of a partition.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_spark.ranking.kernel.bounds import Bounds
from recsys_spark.ranking.kernel.codes import MAX_DIMS, CodedItems, CodedUsers, coded_items
from recsys_spark.ranking.kernel.engine import Best, CompiledEngine, Engine, code_loops, engine_for
from recsys_spark.ranking.kernel.exact import dense_scores, looked_up, sparse_scores
from recsys_spark.ranking.kernel.parts import Csr, Floats, ItemParts, Profiles, UserParts, packed, slices
from recsys_spark.ranking.kernel.shards import Outline, PlacedUsers, Shard, Shards, in_memory

__all__ = ["Csr", "ItemParts", "UserParts", "component_scores", "one_blas_thread", "packed", "select"]

TILE_USERS, TILE_ITEMS = 1024, 512
CODED_TILES = 4  # tiles of items that are scanned by codes in one go: the compiled part has no tile to fill
VANISH = -5_000  # the exponent that makes any float64 zero
LANES = 64  # a tile's width is a multiple of it
NEAR_SHARE = 1 / 8  # of a tile's scores: when more pass the codes' bound, float32 is faster


@cache
def _blas() -> Any:
    try:
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415  # optional, and slow to scan
    except ImportError:
        return None
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Within it BLAS uses one thread: Spark already runs one task per core."""
    controller = _blas()
    return nullcontext() if controller is None else controller.limit(limits=1, user_api="blas")


def select(
    items: ItemParts | Shards,
    users: UserParts,
    k: int,
    *,
    tile_users: int = TILE_USERS,
    tile_items: int = TILE_ITEMS,
) -> Best:
    """The best k items of each user: index int32 [U, k], padded with -1, and score float64 [U, k], with nan.

    score = (Σ_d users.dense·items.dense + Σ_t users.sparse·items.sparse) + users.additive, in float64, d and
    t ascending. Best first; of equal scores the lower index. Excluded and not allowed items never count
    towards k. A user with fewer than k items left gets a short list.

    items: I of them, or their shards.
    users: U of them.
    k: how many items, from 1.
    tile_users: users that are scored at a time; it changes the time, nothing else.
    tile_items: items that are scored at a time; likewise.

    Raises ValueError for k or a tile below 1, NaN or infinity in any part, and shapes that do not fit.
    Likewise for a user whose Σ_b ‖u_b‖·max‖v_b‖ or additive value reaches 1e300, since scores might overflow
    float64.
    """
    if min(k, tile_users, tile_items) < 1:
        raise ValueError(f"k={k}, tile_users={tile_users}, tile_items={tile_items}: expected 1 or more")
    shards = in_memory(items) if isinstance(items, ItemParts) else items
    outline = shards.outline
    users = checked(users, outline)
    index = np.full((users.n_users, k), -1, np.int32)
    score = np.full((users.n_users, k), np.nan)
    if outline.n_items == 0 or users.n_users == 0:
        return index, score
    placed = PlacedUsers.of(users, shards.place)
    bounds = Bounds.of(outline, placed)
    width = min(k, outline.n_items)
    lanes = _lanes_for(min(tile_users, users.n_users))
    buffer = np.empty(min(tile_items, outline.n_items) * lanes, np.float32)
    all_rows = list(slices(users.n_users, tile_users))
    # One shard stays where it is while the tiles pass; several are each loaded once for all of them.
    with one_blas_thread():
        for together in [[rows] for rows in all_rows] if outline.n_shards == 1 else [all_rows]:
            tiles = [_Tile.of(placed.rows(r.start, r.stop), width, bounds.rows(r), outline) for r in together]
            for number in range(outline.n_shards):
                shard = shards.load(number)
                ceilings = _ceilings(shard, outline.largest[number + 1], tile_items)
                for tile in tiles:
                    tile.feed(shard, outline, ceilings, buffer, tile_items)
            for rows, tile in zip(together, tiles, strict=True):
                index[rows, :width], score[rows, :width] = tile.engine.best()
    return index, score


def checked(users: UserParts, outline: Outline) -> UserParts:
    """The users, fit for this catalogue; ValueError where they are not."""
    return users.checked(n_items=outline.n_items, n_dims=outline.n_dims, n_groups=outline.n_groups)


@dataclass(frozen=True)
class _Ceilings:
    """Largest norms [tiles, B + 1] of each tile's items, and of those with all that follow anywhere."""

    here: Floats
    onward: Floats


def _ceilings(shard: Shard, after: Floats, tile_items: int) -> _Ceilings:
    starts = np.arange(0, shard.n_items, tile_items)
    here = np.maximum.reduceat(shard.norms, starts, axis=0)
    onward = np.maximum.accumulate(np.vstack([here, after])[::-1], axis=0)[::-1]
    return _Ceilings(here, onward[:-1])


@dataclass
class _Tile:
    """A tile of users on its way through the catalogue; active: who may still gain from what follows.

    coder: the engine, while the users are scanned by codes.
    """

    users: PlacedUsers
    bounds: Bounds
    engine: Engine
    coder: CompiledEngine | None
    active: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.active = np.flatnonzero(~self.bounds.is_zero)

    @classmethod
    def of(cls, users: PlacedUsers, k: int, bounds: Bounds, outline: Outline) -> _Tile:
        engine = engine_for(users, k, bounds)
        coder = engine if isinstance(engine, CompiledEngine) and _Codes.fit(bounds, outline) else None
        return cls(users, bounds, engine, coder)

    def feed(
        self,
        shard: Shard,
        outline: Outline,
        ceilings: _Ceilings,
        buffer: NDArray[np.float32],
        tile_items: int,
    ) -> None:
        """Score the users against the items of a shard, tile by tile.

        shard: the items.
        outline: of the catalogue.
        ceilings: the largest norms of each tile of the shard.
        buffer: float32, room for the scores of a tile.
        tile_items: items of a tile.
        """
        self.engine.begin(shard)
        scan: _Scan | None = None
        start = 0
        while start < shard.n_items:
            number = start // tile_items
            self.active = self._hopeful(ceilings.onward[number])
            if self.active.size == 0:
                break
            if scan is None or _lanes_for(self.active.size) <= _lanes_for(scan.users.size) // 2:
                if self.coder is None:
                    scan = _Products.of(self, shard, tile_items, outline, buffer)
                else:
                    scan = _Codes.of(self, shard, CODED_TILES * tile_items, self.coder)
            columns = slice(start, min(start + scan.n_items, shard.n_items))
            here = ceilings.here[number : number + scan.n_items // tile_items].max(axis=0)
            if not scan.take(columns, self.bounds.margin(here)[scan.users]):
                self.coder, scan = None, None
            start = columns.stop
        self.engine.settle()

    def near_one(self) -> Floats:
        """The active users' vectors [active, D], scaled so that their float32 scores are near 1."""
        exponent = -self.bounds.exponent[self.active][:, None] - self.bounds.dense
        exponent[:, self.bounds.idle] = VANISH  # of any size, which float32 may not hold
        return np.ldexp(self.users.dense[self.active], exponent)

    def _hopeful(self, norms: Floats) -> NDArray[np.int64]:
        """Those of the active users whom an item of at most these norms may still help."""
        active = self.active
        ceiling = self.bounds.ceiling(norms)[active]
        return active[ceiling >= self.engine.floor[active]]


def _lanes_for(n_users: int) -> int:
    return -(-n_users // LANES) * LANES


class _Scan(Protocol):
    """Some users of a tile, one a lane, ready to meet the items of a shard, n_items of them at a time."""

    users: NDArray[np.int64]
    n_items: int

    def take(self, columns: slice, margin: Floats) -> bool:
        """Take the shard's items `columns`, n_items of them or the last ones; whether to go on in this way.

        margin [users]: how far a float32 score may be from the exact one.
        """


@dataclass
class _Products:
    """By a float32 product: vectors [D, lanes], and the profiles of the sparse part."""

    users: NDArray[np.int64]
    n_items: int
    bounds: Bounds
    engine: Engine
    shard: Shard
    buffer: NDArray[np.float32]
    vectors: NDArray[np.float32]
    profiles: Profiles | None

    @classmethod
    def of(
        cls, tile: _Tile, shard: Shard, n_items: int, outline: Outline, buffer: NDArray[np.float32]
    ) -> _Products:
        """The tile's active users, ready for the shard.

        tile: of users.
        shard: the items.
        n_items: how many of them are taken at a time.
        outline: of the catalogue.
        buffer: float32, room for the scores of n_items items and all lanes.
        """
        chosen, bounds = tile.active, tile.bounds
        vectors = np.zeros((outline.n_dims, _lanes_for(chosen.size)), np.float32)
        vectors[:, : chosen.size] = tile.near_one().T
        profiles = None
        if bounds.has_words and tile.users.sparse is not None:
            exponent = -bounds.exponent[chosen] - bounds.sparse
            sparse, lanes = tile.users.sparse.take(chosen), vectors.shape[1]
            profiles = Profiles.of(sparse, exponent, n_terms=outline.n_terms, lanes=lanes)
        return cls(chosen, n_items, bounds, tile.engine, shard, buffer, vectors, profiles)

    def take(self, columns: slice, margin: Floats) -> bool:
        shape = columns.stop - columns.start, self.vectors.shape[1]
        tile = self.buffer[: shape[0] * shape[1]].reshape(shape)
        dense = self.shard.dense[columns]
        if self.bounds.is_scaled:
            dense = np.ldexp(dense.astype(np.float64), self.bounds.dense).astype(np.float32)
        np.matmul(dense, self.vectors, out=tile)
        if self.profiles is not None:
            self.engine.add_sparse(tile, columns.start, self.profiles, np.ldexp(1.0, self.bounds.sparse))
        self.engine.take(tile, columns.start, self.users, margin)
        return True


@dataclass
class _Codes:
    """By a product of 8-bit codes, several times faster than float32, where the processor has one."""

    users: NDArray[np.int64]
    n_items: int
    engine: CompiledEngine
    items: CodedItems
    coded: CodedUsers

    @staticmethod
    def fit(bounds: Bounds, outline: Outline) -> bool:
        """Whether these users can be scanned so: dense parts only, of ordinary size."""
        ordinary = not bounds.is_scaled and np.abs(bounds.exponent).max(initial=0) <= 200
        fits = ordinary and not bounds.has_words and 0 < outline.n_dims <= MAX_DIMS
        return bool(fits) and code_loops() is not None

    @classmethod
    def of(cls, tile: _Tile, shard: Shard, n_items: int, engine: CompiledEngine) -> _Codes:
        loops: Any = code_loops()
        items = coded_items(shard, n_items, loops.ROWS)
        coded = CodedUsers.of(tile.near_one().astype(np.float32), items.exponent, loops.LANES)
        return cls(tile.active, n_items, engine, items, coded)

    def take(self, columns: slice, margin: Floats) -> bool:
        is_full = bool(np.all(np.isfinite(self.engine.floor[self.users])))
        tile = self.items.tiles[columns.start // self.n_items]
        near = self.engine.take_codes(tile, columns, self.users, self.coded, margin)
        return not is_full or near <= NEAR_SHARE * self.users.size * (columns.stop - columns.start)


def component_scores(
    items: ItemParts | Shards, users: UserParts, index: NDArray[np.int32], parts: Mapping[str, slice]
) -> dict[str, Floats]:
    """What each part gave to the chosen items index [U, k] (-1 for none), float64 [U, k], nan where none.

    One entry per named slice of the dense dimensions, and 'sparse' and 'additive' (0 where absent).
    """
    shards = in_memory(items) if isinstance(items, ItemParts) else items
    placed = PlacedUsers.of(checked(users, shards.outline), shards.place)
    scores = {name: np.full(index.shape, np.nan) for name in (*parts, "sparse", "additive")}
    row, rank = np.nonzero(index >= 0)
    place = shards.place[index[row, rank]].astype(np.int64)
    scores["additive"][row, rank] = looked_up(placed.additive, row, place)
    for number, (start, stop) in enumerate(zip(shards.outline.cuts, shards.outline.cuts[1:], strict=False)):
        here = np.flatnonzero((place >= start) & (place < stop))
        if here.size == 0:
            continue
        shard, rows, local = shards.load(number), row[here], place[here] - start
        for name, part in parts.items():
            scores[name][rows, rank[here]] = dense_scores(shard, placed, rows, local, part)
        scores["sparse"][rows, rank[here]] = sparse_scores(shard.sparse, placed.sparse, rows, local)
    return scores
