"""The exact top-K: the best k items of each user over the whole catalogue, under masks.

Scores are defined in float64 with a fixed order of summation (see `kernel_exact`), ties go to the lower
item index, and so the result depends on nothing else: not on tiles, partitions, cores or the engine.

For U users, I items and D dense dimensions the work is a float32 product, 2·U·I·D FLOP, tile by tile into
a reused buffer. float32 alone is not exact: by the usual bound on an inner product of n terms in any order
(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1) a float32 score is within

    margin = γ_n · (‖u‖·max‖v‖ + ‖p‖·max‖t‖),   γ_n = n·2⁻²⁴ / (1 − n·2⁻²⁴),   n = D + item terms + 2

of the exact one, the 2 being the rounding of the user's and the sparse weights to float32. A user keeps
every item whose score plus margin reaches the k-th best score minus margin; these are scored again in
float64. Memory: tile_items × tile_users float32, (2k + 64) candidates per user of a tile, the profiles of
a tile of users; independent of the number of users.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.ranking.kernel_engine import Engine, engine_for
from recsys_spark.ranking.kernel_exact import dense_scores, looked_up, sparse_scores

Floats = NDArray[np.float64]
ROWS_AT_ONCE = 1 << 14
LARGEST_SCORE = 1e300  # beyond it a sum of finite float64 may be infinite


@dataclass(frozen=True)
class Csr:
    """Sparse rows: row r holds indices[indptr[r]:indptr[r+1]]. values may be None for a mask."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[Any] | None = None

    @property
    def n_rows(self) -> int:
        return int(self.indptr.size) - 1

    def rows(self, start: int, stop: int) -> Csr:
        """Rows start to stop, the arrays shared; indptr then need not begin at 0."""
        return replace(self, indptr=self.indptr[start : stop + 1])

    def checked(self, name: str, n_rows: int, n_columns: int, *, needs_values: bool = True) -> Csr:
        """This matrix with each row sorted. ValueError: shape, range, NaN, a column twice in a row."""
        if self.n_rows != n_rows or np.any(np.diff(self.indptr) < 0):
            raise ValueError(f"{name}: indptr describes {self.n_rows} rows, expected {n_rows}, ascending")
        stored = slice(int(self.indptr[0]), int(self.indptr[-1]))
        indices = self.indices[stored]
        row = np.repeat(np.arange(n_rows), np.diff(self.indptr))
        if indices.size != row.size:
            raise ValueError(f"{name}: {indices.size} indices, but indptr ends at {int(self.indptr[-1])}")
        outside = (indices < 0) | (indices >= n_columns)
        if np.any(outside):
            at = int(np.argmax(outside))
            raise ValueError(f"{name} row {row[at]}: column {indices[at]} is not in [0, {n_columns})")
        if not needs_values:
            return _with_sorted_rows(Csr(self.indptr - self.indptr[0], indices), row)
        if self.values is None or self.values[stored].size != indices.size:
            raise ValueError(f"{name}: expected one value per index")
        values = self.values[stored]
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{name} row {row[int(np.argmin(np.isfinite(values)))]} holds NaN or infinity")
        tidy = _with_sorted_rows(Csr(self.indptr - self.indptr[0], indices, values), row)
        twice = (tidy.indices[1:] == tidy.indices[:-1]) & (row[1:] == row[:-1])
        if np.any(twice):
            at = int(np.argmax(twice))
            raise ValueError(f"{name} row {row[at]}: column {tidy.indices[at]} is stored twice")
        return tidy


def _with_sorted_rows(matrix: Csr, row: NDArray[np.int64]) -> Csr:
    indices = matrix.indices
    if not np.any((indices[1:] < indices[:-1]) & (row[1:] == row[:-1])):
        return matrix
    order = np.lexsort((indices, row))
    values = None if matrix.values is None else matrix.values[order]
    return Csr(matrix.indptr, indices[order], values)


@dataclass(frozen=True)
class ItemParts:
    """The catalogue: I items in ascending item_id order (the caller guarantees the order).

    dense: float32 [I, D], may be memory-mapped; D may be 0. sparse: float32 [I, V], terms ascending in
    each row. allowed: [G, I] bool or uint8, which items a user of group g may get; None allows all.
    """

    dense: NDArray[np.float32]
    sparse: Csr | None = None
    allowed: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.dense.ndim != 2 or self.dense.dtype != np.float32:
            raise ValueError(f"items.dense: {self.dense.dtype} {self.dense.shape}, expected float32 [I, D]")
        if self.allowed is not None and (
            self.allowed.ndim != 2
            or self.allowed.shape[1] != self.n_items
            or self.allowed.dtype not in (np.bool_, np.uint8)
        ):
            got = f"{self.allowed.dtype} {self.allowed.shape}"
            raise ValueError(f"items.allowed: {got}, expected bool or uint8 [G, {self.n_items}]")

    @property
    def n_items(self) -> int:
        return int(self.dense.shape[0])

    @cached_property
    def norms(self) -> ItemNorms:
        """Row norms; computed, and all values checked, once per ItemParts."""
        dense = np.empty(self.n_items)
        for rows in _slices(self.n_items, ROWS_AT_ONCE):
            block = self.dense[rows].astype(np.float64)
            dense[rows] = np.sqrt(np.einsum("id,id->i", block, block))
        _refuse_nonfinite("items.dense", dense)
        sparse, most_terms = np.zeros(self.n_items), 0
        if self.sparse is not None:
            n_terms = int(self.sparse.indices.max(initial=0)) + 1
            terms = self.sparse.checked("items.sparse", self.n_items, n_terms)
            if terms.indices is not self.sparse.indices and np.any(terms.indices != self.sparse.indices):
                raise ValueError("items.sparse: terms must be ascending in each row")
            row = np.repeat(np.arange(self.n_items), np.diff(terms.indptr))
            squares = np.square(np.asarray(terms.values, np.float64))
            sparse = np.sqrt(np.bincount(row, squares, minlength=self.n_items))
            most_terms = int(np.diff(terms.indptr).max(initial=0))
        return ItemNorms(dense, sparse, most_terms)


@dataclass(frozen=True)
class ItemNorms:
    """Euclidean norms of the items' dense and sparse rows, float64 [I]; the longest sparse row."""

    dense: Floats
    sparse: Floats
    most_terms: int


@dataclass(frozen=True)
class UserParts:
    """A batch of U users, against the items they are ranked over.

    dense: float64 [U, D], already scaled and weighted. sparse: float64 [U, V], likewise. additive:
    float64 [U, I], a value to add at given items (may be negative). excluded: [U, I], items this user may
    not get. group: int32 [U], the row of items.allowed that holds for the user.
    """

    dense: Floats
    sparse: Csr | None = None
    additive: Csr | None = None
    excluded: Csr | None = None
    group: NDArray[np.int32] | None = None

    @property
    def n_users(self) -> int:
        return int(self.dense.shape[0])

    def rows(self, start: int, stop: int) -> UserParts:
        """The users start to stop."""
        return UserParts(
            self.dense[start:stop],
            sparse=self.sparse and self.sparse.rows(start, stop),
            additive=self.additive and self.additive.rows(start, stop),
            excluded=self.excluded and self.excluded.rows(start, stop),
            group=None if self.group is None else self.group[start:stop],
        )

    def checked(self, items: ItemParts) -> UserParts:
        """These users with sorted sparse rows. ValueError names the part and the row at fault."""
        n_users, n_items = self.n_users, items.n_items
        if self.dense.ndim != 2 or self.dense.shape[1] != items.dense.shape[1]:
            raise ValueError(
                f"users.dense: {self.dense.shape}, expected [U, {items.dense.shape[1]}] as items.dense"
            )
        dense = np.ascontiguousarray(self.dense, np.float64)
        _refuse_nonfinite("users.dense", dense)
        n_terms = np.iinfo(np.int32).max
        return UserParts(
            dense,
            sparse=self.sparse and self.sparse.checked("users.sparse", n_users, n_terms),
            additive=self.additive and self.additive.checked("users.additive", n_users, n_items),
            excluded=self.excluded
            and self.excluded.checked("users.excluded", n_users, n_items, needs_values=False),
            group=self._checked_group(items),
        )

    def _checked_group(self, items: ItemParts) -> NDArray[np.int32] | None:
        if items.allowed is None:
            return None
        if self.group is None or self.group.shape != (self.n_users,):
            raise ValueError(f"users.group: items.allowed has groups, expected int32 [{self.n_users}]")
        outside = (self.group < 0) | (self.group >= items.allowed.shape[0])
        if np.any(outside):
            at = int(np.argmax(outside))
            n_groups = items.allowed.shape[0]
            raise ValueError(f"users.group row {at}: {self.group[at]} is not in [0, {n_groups})")
        return self.group.astype(np.int32)


def _refuse_nonfinite(name: str, values: Floats) -> None:
    if not np.all(np.isfinite(values)):
        bad = ~np.isfinite(values)
        row = int(np.argmax(bad if bad.ndim == 1 else bad.any(axis=1)))
        raise ValueError(f"{name} row {row} holds NaN or infinity")


def _slices(n: int, step: int) -> Iterator[slice]:
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


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
    items: ItemParts, users: UserParts, k: int, *, tile_users: int = 512, tile_items: int = 1024
) -> tuple[NDArray[np.int32], Floats]:
    """The best k items of each user: index int32 [U, k], padded with -1, and score float64 [U, k], with nan.

    score = (Σ_d users.dense·items.dense + Σ_t users.sparse·items.sparse) + users.additive, in float64, d and
    t ascending. Best first; of equal scores the lower index. Excluded and not allowed items never count
    towards k; a user with fewer than k items left gets a short list. The tiles change the time, nothing else.

    ValueError: k or a tile below 1, NaN or infinity in any part, scores that overflow float64, shapes
    that do not fit.
    """
    if min(k, tile_users, tile_items) < 1:
        raise ValueError(f"k={k}, tile_users={tile_users}, tile_items={tile_items}: expected 1 or more")
    users = users.checked(items)
    index = np.full((users.n_users, k), -1, np.int32)
    score = np.full((users.n_users, k), np.nan)
    if items.n_items == 0 or users.n_users == 0:
        return index, score
    scales = Scales.of(items, users)
    width = min(k, items.n_items)
    with one_blas_thread():
        buffer = np.empty(
            (min(tile_items, items.n_items), -(-min(tile_users, users.n_users) // 64) * 64), np.float32
        )
        for rows in _slices(users.n_users, tile_users):
            part = users.rows(rows.start, rows.stop)
            engine = engine_for(items, part, width, scales.unit[rows])
            _feed(engine, items, part, scales.rows(rows), buffer)
            index[rows, :width], score[rows, :width] = engine.best()
    return index, score


@dataclass(frozen=True)
class Scales:
    """Powers of two that bring the float32 product near 1 from any magnitude, and what it may be off by.

    unit [U]: score = float32 score · unit. dense, sparse: exponents by which the items' values are scaled
    (0 unless they are extreme). norm, profile_norm [U]: of the users' rows. n_terms: of the inner product.
    """

    unit: Floats
    exponent: NDArray[np.int64]
    dense: int
    sparse: int
    norm: Floats
    profile_norm: Floats
    n_terms: int

    def rows(self, rows: slice) -> Scales:
        return replace(
            self,
            unit=self.unit[rows],
            exponent=self.exponent[rows],
            norm=self.norm[rows],
            profile_norm=self.profile_norm[rows],
        )

    @classmethod
    def of(cls, items: ItemParts, users: UserParts) -> Scales:
        norms = items.norms
        norm = _row_norms(users.dense)
        profile_norm = np.zeros(users.n_users)
        if items.sparse is not None and users.sparse is not None:
            profile_norm = _csr_row_norms(users.sparse)
        largest, largest_terms = norms.dense.max(initial=0.0), norms.sparse.max(initial=0.0)
        _refuse_overflow(users, norm, profile_norm, largest, largest_terms)
        exponent = np.maximum(_exponents(norm, largest), _exponents(profile_norm, largest_terms))
        exponent = np.where(exponent < -(1 << 20), 0, np.clip(exponent, -1000, 1000))
        return cls(
            unit=np.ldexp(1.0, exponent),
            exponent=exponent,
            dense=_item_scale(largest),
            sparse=_item_scale(largest_terms),
            norm=norm,
            profile_norm=profile_norm,
            n_terms=int(items.dense.shape[1]) + norms.most_terms + 2,
        )

    def margin(self, dense_norm: float, sparse_norm: float) -> Floats:
        """How far a float32 score may be from the exact one, for items of at most these norms.

        The relative part is Higham's bound, a millionth added for the float64 roundings in the norms, in
        the bound and in the definition of the score itself. The absolute parts are for underflow, of the
        scaled float32 product and of the float64 score. A user of zero norm has no error at all.
        """
        gamma = self.n_terms * 2.0**-24 / (1 - self.n_terms * 2.0**-24)
        relative = gamma * (self.norm * dense_norm + self.profile_norm * sparse_norm) * (1 + 1e-6)
        absolute = self.n_terms * (2.0**-90 * self.unit + 2.0**-1072)
        return np.where((self.norm > 0) | (self.profile_norm > 0), relative + absolute, 0.0)


def _row_norms(dense: Floats) -> Floats:
    """Norms without overflow or underflow of the squares."""
    largest = np.abs(dense).max(axis=1, initial=0.0)
    safe = np.where(largest > 0, largest, 1.0)
    return largest * np.sqrt(np.square(dense / safe[:, None]).sum(axis=1))


def _csr_row_norms(matrix: Csr) -> Floats:
    row = np.repeat(np.arange(matrix.n_rows), np.diff(matrix.indptr))
    values = np.abs(np.asarray(matrix.values, np.float64))
    largest = np.zeros(matrix.n_rows)
    np.maximum.at(largest, row, values)
    safe = np.where(largest > 0, largest, 1.0)
    return largest * np.sqrt(np.bincount(row, np.square(values / safe[row]), minlength=matrix.n_rows))


def _refuse_overflow(
    users: UserParts, norm: Floats, profile_norm: Floats, largest: float, largest_terms: float
) -> None:
    with np.errstate(over="ignore"):
        bound = norm * largest + profile_norm * largest_terms
    if np.any(~(bound < LARGEST_SCORE)):
        raise ValueError(
            f"users.dense row {int(np.argmin(bound < LARGEST_SCORE))}: its scores overflow float64"
        )
    if users.additive is not None and users.additive.values is not None:
        large = np.abs(users.additive.values) >= LARGEST_SCORE
        if np.any(large):
            row = int(np.searchsorted(users.additive.indptr, int(np.argmax(large)), side="right")) - 1
            raise ValueError(f"users.additive row {row}: its scores overflow float64")


def _exponents(norm: Floats, largest: float) -> NDArray[np.int64]:
    """e with norm · largest < 2^e, far below any other where the product is 0."""
    e = np.frexp(norm)[1].astype(np.int64) + int(np.frexp(largest)[1])
    return np.where((norm > 0) & (largest > 0), e, -(1 << 30))


def _item_scale(largest: float) -> int:
    """0 in the usual range: then the items need no scaled copy."""
    e = int(np.frexp(largest)[1])
    return 0 if abs(e) <= 32 else -e


def _feed(
    engine: Engine, items: ItemParts, users: UserParts, scales: Scales, buffer: NDArray[np.float32]
) -> None:
    """Score the users of a tile against all items, tile by tile."""
    lanes = -(-users.n_users // 64) * 64
    vectors = np.zeros((items.dense.shape[1], lanes), np.float32)
    vectors[:, : users.n_users] = np.ldexp(users.dense, -scales.exponent[:, None] - scales.dense).T
    terms = _profiles(items, users, scales, lanes)
    tiles = buffer.reshape(-1)
    for columns in _slices(items.n_items, buffer.shape[0]):
        n_items = columns.stop - columns.start
        tile = tiles[: n_items * lanes].reshape(n_items, lanes)
        np.matmul(_scaled(items.dense[columns], scales.dense), vectors, out=tile)
        sparse_norm = 0.0
        if terms is not None:
            engine.add_sparse(tile, columns.start, *terms, np.ldexp(1.0, scales.sparse))
            sparse_norm = items.norms.sparse[columns].max()
        engine.take(tile, columns.start, scales.margin(items.norms.dense[columns].max(), sparse_norm))


def _scaled(dense: NDArray[np.float32], exponent: int) -> NDArray[np.float32]:
    if exponent == 0:
        return dense
    return np.ldexp(dense.astype(np.float64), exponent).astype(np.float32)


def _profiles(
    items: ItemParts, users: UserParts, scales: Scales, lanes: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]] | None:
    """The users' sparse parts as dense rows, one per term that any of them has: (row of a term, rows)."""
    if items.sparse is None or users.sparse is None or users.sparse.values is None:
        return None
    stored = slice(int(users.sparse.indptr[0]), int(users.sparse.indptr[-1]))
    n_terms = int(items.sparse.indices.max(initial=-1)) + 1
    row = np.repeat(np.arange(users.n_users), np.diff(users.sparse.indptr))
    known = users.sparse.indices[stored] < n_terms
    row, term = row[known], users.sparse.indices[stored][known]
    value = np.ldexp(users.sparse.values[stored][known], -scales.exponent[row] - scales.sparse)
    used, at = np.unique(term, return_inverse=True)
    row_of_term = np.full(n_terms, -1, np.int32)
    row_of_term[used] = np.arange(used.size, dtype=np.int32)
    profiles = np.zeros((used.size, lanes), np.float32)
    profiles[at, row] = value
    return row_of_term, profiles


def component_scores(
    items: ItemParts, users: UserParts, index: NDArray[np.int32], slices: Mapping[str, slice]
) -> dict[str, Floats]:
    """What each part gave to the chosen items index [U, k] (-1 for none), float64 [U, k], nan where none.

    One entry per named slice of the dense dimensions, and 'sparse' and 'additive' (0 where absent).
    """
    users = users.checked(items)
    rows, places = np.nonzero(index >= 0)
    columns = index[rows, places].astype(np.int64)
    parts = {name: dense_scores(items, users, rows, columns, part) for name, part in slices.items()}
    parts["sparse"] = sparse_scores(items.sparse, users.sparse, rows, columns)
    parts["additive"] = looked_up(users.additive, rows, columns)
    scores = {}
    for name, values in parts.items():
        scores[name] = np.full(index.shape, np.nan)
        scores[name][rows, places] = values
    return scores
