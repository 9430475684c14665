"""The slots of lists as arrays: which item of a list stands at which position, and whether it was wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

NEVER = np.int64(1) << 40  # the rank of what was not shown: beyond any that was


@dataclass(frozen=True)
class Slots:
    """The items of whole lists, by list and position; what was not shown comes last, at position 0.

    row: where the item stands among the rows that came; of: the number of its list from 0; looks: popularity
    and novelty of the item by name.
    """

    row: NDArray[np.int64]
    of: NDArray[np.int64]
    position: NDArray[np.int64]
    is_wanted: NDArray[np.bool_]
    wanted_so_far: NDArray[np.int64]
    looks: dict[str, NDArray[np.float64]]


def slots_of(rows: pa.RecordBatch, by: Sequence[str], described: Sequence[str], *, depth: int) -> Slots:
    listed = np.zeros(rows.num_rows, np.int64)
    for name in (*by, "user_id"):
        codes, distinct = codes_of(rows.column(name))
        listed = dense(listed * distinct + codes)
    item, _ = codes_of(rows.column("item_id"))
    given = rows.column("rank")
    rank = np.where(
        given.is_valid().to_numpy(zero_copy_only=False),
        pc.fill_null(given, 0).to_numpy().astype(np.int64),
        NEVER,
    )
    # Each item of a list once, with its best rank.
    order = np.lexsort((rank, item, listed))
    is_first = changes(listed[order], item[order])
    at = np.flatnonzero(is_first)
    is_wanted = np.logical_or.reduceat(rank[order] == NEVER, at)
    row = order[at]
    order = np.lexsort((item[row], rank[row], listed[row]))
    row, is_wanted = row[order], is_wanted[order]
    best, starts = rank[row], changes(listed[row])
    of = np.cumsum(starts) - 1
    start = np.flatnonzero(starts)[of]
    number = np.arange(row.size) - start + 1
    # The recursion position_i = max(rank_i, position_(i-1) + 1) is i + running maximum of (rank_j - j).
    apart = of * (4 * NEVER)
    pushed = number + np.maximum.accumulate(best - number + apart) - apart
    so_far = np.cumsum(is_wanted)
    return Slots(
        row=row,
        of=of,
        position=np.where((best < NEVER) & (pushed <= depth), pushed, 0),
        is_wanted=is_wanted,
        wanted_so_far=so_far - so_far[start] + is_wanted[start],
        looks={name: rows.column(name).to_numpy(zero_copy_only=False)[row] for name in described},
    )


def codes_of(column: pa.Array) -> tuple[NDArray[np.int64], int]:
    """Numbers in the order of the values, and how many there are."""
    encoded = column.dictionary_encode()
    places = np.empty(len(encoded.dictionary), np.int64)
    places[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(places.size)
    return places[encoded.indices.to_numpy()], max(places.size, 1)


def dense(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same order with numbers from 0 on, so that no product of several overflows."""
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def changes(*columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a row differs from the one before it; the first does."""
    changed = np.zeros(columns[0].size, np.bool_)
    changed[0] = True
    for values in columns:
        changed[1:] |= values[1:] != values[:-1]
    return changed
