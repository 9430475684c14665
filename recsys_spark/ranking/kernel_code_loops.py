"""The compiled scan of 8-bit codes (numba). `kernel_engine.code_loops` imports it, nothing else may.

What it finds is decided by the helpers of `kernel_loops`, as in the scan of float32. Sums may be reassociated
here, and only here: they are screened by a bound that holds for any order, and scored exactly afterwards.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recsys_spark.ranking.kernel_loops import (
    Best,
    Items,
    Masks,
    Scored,
    _bisect,
    _is_allowed,
    _make_room,
    _put,
    _raise_floor,
)
from recsys_spark.ranking.kernel_vnni import LANES, ROWS, block_product, fetch, lowest_bit

WAITING = 16  # items whose factors are fetched before any is scored
NEVER, ALWAYS = 2147483647, -2147483648  # bars that no sum, and that every sum exceeds


class TileCodes(NamedTuple):
    """The codes of a tile of items, in blocks of ROWS, the last one filled up."""

    codes: NDArray[np.int8]  # [blocks · steps · ROWS · 4]
    starts: NDArray[np.int32]  # [blocks · ROWS]


class Panels(NamedTuple):
    """The users of a tile, one a lane, in panels of LANES, the last one filled up."""

    users: NDArray[np.int64]  # [n]
    codes: NDArray[np.uint8]  # [panels · steps · LANES · 4]
    vectors: NDArray[np.float32]  # [n, D]: a score is unit · (vector · item)
    step: NDArray[np.float64]  # [n]: a sum times this is about a score
    coarse: NDArray[np.float64]  # [n]: how far that may be from the exact score
    fine: NDArray[np.float64]  # [n]: how far the float32 score may be from it


class Room(NamedTuple):
    """What a scan of codes works in."""

    steps: int  # fours of dimensions
    bars: NDArray[np.int32]  # [LANES]
    sums: NDArray[np.int32]  # [ROWS, LANES]
    above: NDArray[np.uint32]  # [ROWS]
    maxima: NDArray[np.int32]  # [LANES, whole blocks of the tile]
    lanes: NDArray[np.int64]  # what waits to be looked at: lanes and items
    places: NDArray[np.int64]


@njit(forceinline=True, nogil=True, fastmath={"reassoc", "contract"})
def _float32_score(vectors, lane, dense, j):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = np.float32(0.0)
    for d in range(dense.shape[1]):
        total += vectors[lane, d] * dense[j, d]
    return np.float64(total)


@njit(forceinline=True, nogil=True)
def _bar(floor, coarse, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """What a sum must exceed to matter: one less than rounded down, so that what equals the floor does."""
    exact = (floor - coarse) / step
    if exact > 2147483000.0:
        return np.int32(NEVER)
    if not exact > -2147483000.0:
        return np.int32(ALWAYS)
    return np.int32(np.floor(exact) - 1.0)


@njit(forceinline=True, nogil=True)
def _is_masked(next_masked, ptr, places, u, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Whether the user may not get the item. A user's items are asked for in ascending order of place."""
    if ptr.size == 0:
        return False
    at, end = next_masked[u], ptr[u + 1]
    while at < end and places[at] < place:
        at += 1
    next_masked[u] = at
    return at < end and places[at] == place


@njit(forceinline=True, nogil=True)
def _reached(values, wanted):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """What at least `wanted` of the values reach, and hardly more do. Each step is a vectorised count."""
    low, high = values[0], values[0]
    for value in values:
        low, high = min(low, value), max(high, value)
    for _ in range(12):
        middle = low + (high - low) // 2
        count = np.int32(0)
        for value in values:
            count = np.int32(count + np.int32(value >= middle))
        if count >= wanted:
            low = middle
        else:
            high = middle
    return low


@njit(forceinline=True, nogil=True)
def _multiply(tile, row, panels, first, room):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Whether any of the ROWS items from `row` on is above the bar of a user of the panel at `first`."""
    return block_product(
        tile.codes, row * room.steps * 4, tile.starts, row, panels.codes, first * room.steps * 4,
        room.bars, room.sums, room.above, room.steps,
    )  # fmt: skip


@njit(forceinline=True, nogil=True)
def _is_primable(panels, first, width, floor, k, n_blocks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Whether the largest sums of so many blocks say anything, to users who have no floor yet."""
    if 2 * k > n_blocks:
        return False
    for lane in range(first, first + width):  # noqa: SIM110  # numba knows no all()
        if floor[panels.users[lane]] != -np.inf:
            return False
    return True


@njit(forceinline=True, nogil=True)
def _prime(tile, panels, first, width, stop, room, best, masks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Raise the floors of a panel by the largest sum of each block of the tile, whose items end at `stop`.

    The largest sums of two blocks belong to two items, so if m items of the tile are masked for a user, at
    least k others reach the (k + m)-th of these sums.
    """
    n_blocks = room.maxima.shape[1]
    room.bars[:] = ALWAYS
    for block in range(n_blocks):
        _multiply(tile, block * ROWS, panels, first, room)
        for lane in range(LANES):
            largest = room.sums[0, lane]
            for r in range(1, ROWS):
                largest = max(largest, room.sums[r, lane])
            room.maxima[lane, block] = largest
    for lane in range(first, first + width):
        u = panels.users[lane]
        wanted = best.lows.shape[1]
        if masks.masked_ptr.size > 0:
            at = best.next_masked[u]
            wanted += _bisect(masks.masked_places, at, masks.masked_ptr[u + 1], stop) - at
        if wanted <= n_blocks:
            kth = _reached(room.maxima[lane - first], wanted)
            best.floor[u] = max(best.floor[u], kth * panels.step[lane] - panels.coarse[lane])


@njit(forceinline=True, nogil=True)
def _note(room, lane, j, dense, waiting, n_rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Note the block's sums above their bars, and have their items' factors fetched; how many wait now.

    lane, j: the block's first user and first item.
    """
    for r in range(n_rows):
        bits = room.above[r]
        while bits != 0:
            room.lanes[waiting] = lane + lowest_bit(bits)
            room.places[waiting] = j + r
            fetch(dense, j + r)
            waiting += 1
            bits &= bits - np.uint32(1)
    return waiting


@njit(forceinline=True, nogil=True)
def _look(room, waiting, first, panels, best, scored, items, masks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Score what waits in float32, and keep what may still be among the best."""
    entry, n, lows, n_lows, floor = best.entry, best.n, best.lows, best.n_lows, best.floor
    for w in range(waiting):
        lane, j = room.lanes[w], room.places[w]
        u, place = panels.users[lane], items.first + j
        if not _is_allowed(items.allowed, masks.group, u, j):
            continue
        if _is_masked(best.next_masked, masks.masked_ptr, masks.masked_places, u, place):
            continue
        score = _float32_score(panels.vectors, lane, items.dense, j) * best.unit[u]
        low, high = score - panels.fine[lane], score + panels.fine[lane]
        if high < floor[u]:
            continue
        full = _put(entry, n, u, items.item[j], place, low, high)
        _raise_floor(lows, n_lows, floor, u, low)
        if full:
            _make_room(best, scored, items, u)
        room.bars[lane - first] = _bar(floor[u], panels.coarse[lane], panels.step[lane])


@njit(cache=True, nogil=True)
def take_codes(
    tile: TileCodes,
    start: int,
    n_items: int,
    panels: Panels,
    best: Best,
    scored: Scored,
    items: Items,
    masks: Masks,
) -> int:
    """Take the shard's items start … start + n_items into the running best of the users; how many were near.

    Block by block the sums of codes are screened; what may reach the k-th best score is scored in float32,
    and what then still may is kept as a candidate.
    """
    room = Room(
        (items.dense.shape[1] + 3) // 4,
        np.empty(LANES, np.int32),
        np.empty((ROWS, LANES), np.int32),
        np.empty(ROWS, np.uint32),
        np.empty((LANES, n_items // ROWS), np.int32),
        np.empty(WAITING + ROWS * LANES, np.int64),
        np.empty(WAITING + ROWS * LANES, np.int64),
    )
    near = 0
    for first in range(0, panels.users.size, LANES):
        width = min(LANES, panels.users.size - first)
        is_open = items.allowed.shape[0] == 0
        if is_open and _is_primable(panels, first, width, best.floor, best.lows.shape[1], n_items // ROWS):
            _prime(tile, panels, first, width, items.first + start + n_items, room, best, masks)
        room.bars[:] = NEVER
        for lane in range(first, first + width):
            room.bars[lane - first] = _bar(
                best.floor[panels.users[lane]], panels.coarse[lane], panels.step[lane]
            )
        waiting = 0
        for row in range(0, n_items, ROWS):
            if _multiply(tile, row, panels, first, room):
                waiting = _note(room, first, start + row, items.dense, waiting, min(ROWS, n_items - row))
            if waiting >= WAITING or row + ROWS >= n_items:
                _look(room, waiting, first, panels, best, scored, items, masks)
                near += waiting
                waiting = 0
    return near
