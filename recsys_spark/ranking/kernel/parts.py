"""What the kernel is given: items, users and sparse rows, and the checks on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bits = NDArray[np.uint8]
ROWS_AT_ONCE = 1 << 14
COMMON = 1 / 16  # of the lanes: a term that more users have is added to all of them by vector instructions


@dataclass(frozen=True)
class Csr:
    """Sparse rows: row r holds indices[indptr[r]:indptr[r+1]]. values may be None for a mask."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[Any] | None = None

    @property
    def n_rows(self) -> int:
        return int(self.indptr.size) - 1

    @property
    def row(self) -> NDArray[np.int64]:
        """The row of each stored entry."""
        return np.repeat(np.arange(self.n_rows), np.diff(self.indptr))

    def rows(self, start: int, stop: int) -> Csr:
        """Rows start to stop, the arrays shared; indptr then need not begin at 0."""
        return replace(self, indptr=self.indptr[start : stop + 1])

    def take(self, rows: NDArray[Any]) -> Csr:
        """These rows, in this order, copied; nothing else of the arrays is touched."""
        starts, lengths = self.indptr[rows], self.indptr[np.asarray(rows) + 1] - self.indptr[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        at = np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])
        return Csr(indptr, self.indices[at], None if self.values is None else self.values[at])

    def joined(self, other: Csr) -> Csr:
        """A mask of what either mask holds, row by row."""
        row = np.concatenate([self.row, other.row])
        stored = [m.indices[int(m.indptr[0]) : int(m.indptr[-1])] for m in (self, other)]
        order = np.argsort(row, kind="stable")
        indptr = np.concatenate([[0], np.cumsum(np.diff(self.indptr) + np.diff(other.indptr))])
        return Csr(indptr.astype(np.int64), np.concatenate(stored)[order])

    def checked(self, name: str, n_rows: int, n_columns: int) -> Csr:
        """This matrix with each row sorted. ValueError: shape, range, NaN, a column twice in a row."""
        mask = self.checked_mask(name, n_rows, n_columns)
        stored = slice(int(self.indptr[0]), int(self.indptr[-1]))
        row = mask.row
        if self.values is None or self.values[stored].size != mask.indices.size:
            raise ValueError(f"{name}: expected one value per index")
        values = self.values[stored]
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{name} row {row[int(np.argmin(np.isfinite(values)))]} holds NaN or infinity")
        tidy = Csr(mask.indptr, mask.indices, values).with_sorted_rows()
        twice = (tidy.indices[1:] == tidy.indices[:-1]) & (row[1:] == row[:-1])
        if np.any(twice):
            at = int(np.argmax(twice))
            raise ValueError(f"{name} row {row[at]}: column {tidy.indices[at]} is stored twice")
        return tidy

    def checked_mask(self, name: str, n_rows: int, n_columns: int) -> Csr:
        """The places alone, in any order and any number of times. ValueError: shape, range."""
        if self.n_rows != n_rows or np.any(np.diff(self.indptr) < 0):
            raise ValueError(f"{name}: indptr describes {self.n_rows} rows, expected {n_rows}, ascending")
        indices = self.indices[int(self.indptr[0]) : int(self.indptr[-1])]
        if indices.size != int(self.indptr[-1] - self.indptr[0]):
            raise ValueError(f"{name}: {indices.size} indices, but indptr ends at {int(self.indptr[-1])}")
        outside = (indices < 0) | (indices >= n_columns)
        if np.any(outside):
            at = int(np.argmax(outside))
            raise ValueError(f"{name} row {self.row[at]}: column {indices[at]} is not in [0, {n_columns})")
        return Csr(self.indptr - self.indptr[0], indices)

    def with_sorted_rows(self) -> Csr:
        """The columns of each row ascending; the same object where they are."""
        row = self.row
        if not np.any((self.indices[1:] < self.indices[:-1]) & (row[1:] == row[:-1])):
            return self
        key = (row << 32) | self.indices  # one sort of integers is many times faster than a lexsort
        if self.values is None:
            return Csr(self.indptr, (np.sort(key) & 0x7FFFFFFF).astype(np.int32))
        order = np.argsort(key, kind="stable")
        return Csr(self.indptr, self.indices[order], self.values[order])


@dataclass(frozen=True)
class ItemParts:
    """The catalogue: I items in ascending item_id order (the caller guarantees the order).

    dense: float32 [I, D], may be memory-mapped; D may be 0. sparse: float32 [I, V], terms ascending in
    each row. allowed: which items a user of group g may get, bool [G, I], or eight to a byte as `packed`
    gives them; None allows all. blocks: widths of the parts that the D dimensions consist of, in order:
    parts of different scale make narrower bounds each by itself; () is one block.
    """

    dense: NDArray[np.float32]
    sparse: Csr | None = None
    allowed: NDArray[Any] | None = None
    blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.dense.ndim != 2 or self.dense.dtype != np.float32:
            raise ValueError(f"items.dense: {self.dense.dtype} {self.dense.shape}, expected float32 [I, D]")
        if self.sparse is not None and getattr(self.sparse.values, "dtype", None) != np.float32:
            # The engines would round them at different places.
            raise ValueError(f"items.sparse: {getattr(self.sparse.values, 'dtype', None)}, expected float32")
        if self.blocks and (sum(self.blocks) != self.dense.shape[1] or min(self.blocks) < 0):
            raise ValueError(
                f"items.blocks: {self.blocks}, expected widths that sum to {self.dense.shape[1]}"
            )
        if self.allowed is None:
            return
        width = self.n_items if self.allowed.dtype == np.bool_ else -(-self.n_items // 8)
        known = self.allowed.dtype in (np.bool_, np.uint8)
        if not known or self.allowed.ndim != 2 or self.allowed.shape[1] != width:
            got = f"{self.allowed.dtype} {self.allowed.shape}"
            packed_width = -(-self.n_items // 8)
            raise ValueError(
                f"items.allowed: {got}, expected bool [G, {self.n_items}] or packed uint8 [G, {packed_width}]"
            )

    @property
    def n_items(self) -> int:
        return int(self.dense.shape[0])

    @property
    def n_groups(self) -> int:
        """0 where everything is allowed."""
        return 0 if self.allowed is None else int(self.allowed.shape[0])

    @cached_property
    def norms(self) -> Floats:
        """Euclidean norms [I, B + 1] of each block of an item's row, then of its sparse row.

        Computed, and all values checked, once per ItemParts.
        """
        widths = self.blocks or (int(self.dense.shape[1]),)
        ends = np.cumsum(widths)
        norms = np.zeros((self.n_items, len(widths) + 1))
        for rows in slices(self.n_items, ROWS_AT_ONCE):
            block = self.dense[rows].astype(np.float64)
            for b, (end, width) in enumerate(zip(ends, widths, strict=True)):
                part = block[:, end - width : end]
                norms[rows, b] = np.sqrt(np.einsum("id,id->i", part, part))
        refuse_nonfinite("items.dense", norms)
        if self.sparse is not None:
            norms[:, -1] = _checked_sparse_norms(self.sparse, self.n_items)
        return norms


def _checked_sparse_norms(sparse: Csr, n_items: int) -> Floats:
    terms = sparse.checked("items.sparse", n_items, int(sparse.indices.max(initial=0)) + 1)
    stored = sparse.indices[int(sparse.indptr[0]) : int(sparse.indptr[-1])]
    if np.any(terms.indices != stored):
        raise ValueError("items.sparse: terms must be ascending in each row")
    squares = np.square(np.asarray(terms.values, np.float64))
    return np.sqrt(np.bincount(terms.row, squares, minlength=n_items))


def packed(allowed: NDArray[np.bool_]) -> Bits:
    """A mask [G, I] with eight items to a byte, [G, ceil(I / 8)]: item i is bit i % 8 of byte i // 8."""
    return np.packbits(allowed, axis=1, bitorder="little")


@dataclass(frozen=True)
class UserParts:
    """A batch of U users, against the items they are ranked over.

    dense: float64 [U, D], already scaled and weighted. sparse: float64 [U, V], likewise. additive:
    float64 [U, I], a value to add at given items (may be negative). excluded: [U, I], items this user may
    not get, in any order (two masks become one by `Csr.joined`). group: int32 [U], the row of
    items.allowed that holds for the user.
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

    def take(self, rows: NDArray[Any]) -> UserParts:
        """These users, copied."""
        return UserParts(
            self.dense[rows],
            sparse=self.sparse and self.sparse.take(rows),
            additive=self.additive and self.additive.take(rows),
            excluded=self.excluded and self.excluded.take(rows),
            group=None if self.group is None else self.group[rows],
        )

    def checked(self, *, n_items: int, n_dims: int, n_groups: int) -> UserParts:
        """These users with sorted sparse rows. ValueError names the part and the row at fault."""
        n_users = self.n_users
        if self.dense.ndim != 2 or self.dense.shape[1] != n_dims:
            raise ValueError(f"users.dense: {self.dense.shape}, expected [U, {n_dims}] as items.dense")
        dense = np.ascontiguousarray(self.dense, np.float64)
        refuse_nonfinite("users.dense", dense)
        n_terms = np.iinfo(np.int32).max
        return UserParts(
            dense,
            sparse=self.sparse and self.sparse.checked("users.sparse", n_users, n_terms),
            additive=self.additive and self.additive.checked("users.additive", n_users, n_items),
            excluded=self.excluded and self.excluded.checked_mask("users.excluded", n_users, n_items),
            group=self._checked_group(n_groups),
        )

    def _checked_group(self, n_groups: int) -> NDArray[np.int32] | None:
        if n_groups == 0:
            return None
        if self.group is None or self.group.shape != (self.n_users,):
            raise ValueError(f"users.group: items.allowed has groups, expected int32 [{self.n_users}]")
        outside = (self.group < 0) | (self.group >= n_groups)
        if np.any(outside):
            at = int(np.argmax(outside))
            raise ValueError(f"users.group row {at}: {self.group[at]} is not in [0, {n_groups})")
        return self.group.astype(np.int32)


def refuse_nonfinite(name: str, values: Floats) -> None:
    """ValueError names the first row that holds NaN or infinity."""
    if not np.all(np.isfinite(values)):
        bad = ~np.isfinite(values)
        row = int(np.argmax(bad if bad.ndim == 1 else bad.any(axis=1)))
        raise ValueError(f"{name} row {row} holds NaN or infinity")


def slices(n: int, step: int) -> Iterator[slice]:
    """0 … n in steps."""
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


@dataclass(frozen=True)
class Profiles:
    """The sparse parts of the users of a tile, by term: what one term of an item adds to all of them.

    number int32 [V]: a term's own number, -1 for a term that no user has. Numbers below the rows of common
    [C, lanes] are of terms that many users have, whose weights stand there for every lane; number C + s is of
    a term with the weights rare_values, of the lanes rare_lanes, from rare_ptr[s] to rare_ptr[s + 1].
    """

    number: NDArray[np.int32]
    common: NDArray[np.float32]
    rare_ptr: NDArray[np.int64]
    rare_lanes: NDArray[np.int32]
    rare_values: NDArray[np.float32]

    @classmethod
    def of(cls, users: Csr, exponent: NDArray[np.int64], *, n_terms: int, lanes: int) -> Profiles:
        """users: one a lane; their weights are multiplied by 2^exponent, terms from n_terms on fall away."""
        known = users.indices < n_terms
        lane, term, values = users.row[known], users.indices[known], np.asarray(users.values)[known]
        order = np.argsort(term, kind="stable")
        lane, term = lane[order], term[order]
        value = np.ldexp(values[order], exponent[lane]).astype(np.float32)
        used, at, counts = np.unique(term, return_inverse=True, return_counts=True)
        is_common = counts > lanes * COMMON
        n_common = int(is_common.sum())
        own = np.where(is_common, np.cumsum(is_common), n_common + np.cumsum(~is_common)) - 1
        number = np.full(n_terms, -1, np.int32)
        number[used] = own
        common = np.zeros((n_common, lanes), np.float32)
        often = is_common[at]
        common[own[at[often]], lane[often]] = value[often]
        rare_ptr = np.concatenate([[0], np.cumsum(counts[~is_common], dtype=np.int64)])
        return cls(number, common, rare_ptr, lane[~often].astype(np.int32), value[~often])
