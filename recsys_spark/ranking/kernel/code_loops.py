"""The compiled scan of 8-bit codes (numba). `engine.code_loops` imports it, nothing else may.

What it finds is decided by the helpers of `loops`, as in the scan of float32. Sums may be reassociated
here, and only here: they are screened by a bound that holds for any order, and scored exactly afterwards.
Of `_nrt` see `loops`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recsys_spark.ranking.kernel.loops import (
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
from recsys_spark.ranking.kernel.vnni import LANES, ROWS, block_above, block_largest, fetch, lowest_bit

WAITING = 16  # items whose factors are fetched before any is scored
NEVER, ALWAYS = 2147483647, -2147483648  # bars that no sum, and that every sum exceeds


class TileCodes(NamedTuple):
    """The codes of a tile of items, in blocks of ROWS, the last one filled up."""

    codes: NDArray[np.int8]  # [blocks · steps · ROWS · 4]
    starts: NDArray[np.int32]  # [blocks · ROWS]


class Panels(NamedTuple):
    """The users of a tile, one a lane, in panels of LANES, the last one filled up."""

    users: NDArray[np.int64]  # [n]
    steps: int  # fours of dimensions
    codes: NDArray[np.uint8]  # [panels · steps · LANES · 4]
    vectors: NDArray[np.float32]  # [n, D]: a score is unit · (vector · item)
    step: NDArray[np.float64]  # [n]: a sum times this is about a score
    coarse: NDArray[np.float64]  # [n]: how far that may be from the exact score
    fine: NDArray[np.float64]  # [n]: how far the float32 score may be from it


class Room(NamedTuple):
    """What a scan of codes works in."""

    bars: NDArray[np.int32]  # [LANES]
    above: NDArray[np.uint32]  # [ROWS]
    largest: NDArray[np.int32]  # [whole blocks of the tile, LANES]
    wanted: NDArray[np.int32]  # [LANES]
    reached: NDArray[np.int32]  # [3, LANES]
    lanes: NDArray[np.int64]  # what waits to be looked at: lanes and items
    places: NDArray[np.int64]


@njit(forceinline=True, nogil=True, fastmath={"reassoc", "contract"}, _nrt=False)
def _float32_score(vectors, lane, dense, j):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = np.float32(0.0)
    for d in range(dense.shape[1]):
        total += vectors[lane, d] * dense[j, d]
    return np.float64(total)


@njit(forceinline=True, nogil=True, _nrt=False)
def _bar(floor, coarse, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """What a sum must exceed to matter: one less than rounded down, so that what equals the floor does."""
    exact = (floor - coarse) / step
    if exact > 2147483000.0:
        return np.int32(NEVER)
    if not exact > -2147483000.0:
        return np.int32(ALWAYS)
    return np.int32(np.floor(exact) - 1.0)


@njit(forceinline=True, nogil=True, _nrt=False)
def _is_masked(next_masked, ptr, places, u, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Whether the user may not get the item. A user's items are asked for in ascending order of place."""
    if ptr.size == 0:
        return False
    at, end = next_masked[u], ptr[u + 1]
    while at < end and places[at] < place:
        at += 1
    next_masked[u] = at
    return at < end and places[at] == place


@njit(forceinline=True, nogil=True, _nrt=False)
def _reach(values, wanted, low, high, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Set low to what at least wanted [LANES] of each column of values [n, LANES] reach, hardly more.

    Halving of the range; each step counts for all columns at once, which vectorises.
    """
    for lane in range(LANES):
        low[lane] = high[lane] = values[0, lane]
    for v in range(values.shape[0]):
        for lane in range(LANES):
            low[lane], high[lane] = min(low[lane], values[v, lane]), max(high[lane], values[v, lane])
    for _ in range(12):
        count[:] = 0
        for v in range(values.shape[0]):
            for lane in range(LANES):
                middle = np.int32(low[lane] + ((high[lane] - low[lane]) >> 1))
                count[lane] = np.int32(count[lane] + np.int32(values[v, lane] >= middle))
        for lane in range(LANES):
            middle = np.int32(low[lane] + ((high[lane] - low[lane]) >> 1))
            if count[lane] >= wanted[lane]:
                low[lane] = middle
            else:
                high[lane] = middle


@njit(forceinline=True, nogil=True, _nrt=False)
def _is_primable(panels, first, width, floor, k, n_blocks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Whether the largest sums of so many blocks say anything, to users who have no floor yet."""
    if 2 * k > n_blocks:
        return False
    for lane in range(first, first + width):  # noqa: SIM110  # numba knows no all()
        if floor[panels.users[lane]] != -np.inf:
            return False
    return True


@njit(forceinline=True, nogil=True, _nrt=False)
def _prime(tile, panels, first, width, stop, room, best, masks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Raise the floors of a panel by the largest sum of each block of the tile, whose items end at `stop`.

    The largest sums of two blocks belong to two items, so if m items of the tile are masked for a user, at
    least k others reach the (k + m)-th of these sums.
    """
    n_blocks, steps = room.largest.shape[0], panels.steps
    for block in range(n_blocks):
        at = block * ROWS
        block_largest(
            tile.codes,
            at * steps * 4,
            tile.starts,
            at,
            panels.codes,
            first * steps * 4,
            steps,
            room.largest,
            block,
        )
    room.wanted[:] = best.lows.shape[1]
    if masks.masked_ptr.size > 0:
        for lane in range(first, first + width):
            u = panels.users[lane]
            at = best.next_masked[u]
            masked = _bisect(masks.masked_places, at, masks.masked_ptr[u + 1], stop) - at
            room.wanted[lane - first] += masked
    _reach(room.largest, room.wanted, room.reached[0], room.reached[1], room.reached[2])
    for lane in range(first, first + width):
        if room.wanted[lane - first] <= n_blocks:
            u, kth = panels.users[lane], room.reached[0, lane - first]
            best.floor[u] = max(best.floor[u], kth * panels.step[lane] - panels.coarse[lane])


@njit(forceinline=True, nogil=True, _nrt=False)
def _note(above, lanes, places, lane, j, dense, waiting, n_rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Note the block's sums above their bars, and have their items' factors fetched; how many wait now.

    lane, j: the block's first user and first item.
    """
    for r in range(n_rows):
        bits = above[r]
        while bits != 0:
            lanes[waiting] = lane + lowest_bit(bits)
            places[waiting] = j + r
            fetch(dense, j + r)
            waiting += 1
            bits &= bits - np.uint32(1)
    return waiting


@njit(forceinline=True, nogil=True, _nrt=False)
def _look(room, waiting, first, panels, best, scored, items, masks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Score what waits in float32, and keep what may still be among the best."""
    entry, n, lows, n_lows, floor, unit = best.entry, best.n, best.lows, best.n_lows, best.floor, best.unit
    users, vectors, step = panels.users, panels.vectors, panels.step
    coarse, fine = panels.coarse, panels.fine
    dense, item, allowed, group = items.dense, items.item, items.allowed, masks.group
    ptr, places, next_masked = masks.masked_ptr, masks.masked_places, best.next_masked
    lanes, waits, bars = room.lanes, room.places, room.bars
    for w in range(waiting):
        lane, j = lanes[w], waits[w]
        u, place = users[lane], items.first + j
        if not _is_allowed(allowed, group, u, j):
            continue
        if _is_masked(next_masked, ptr, places, u, place):
            continue
        score = _float32_score(vectors, lane, dense, j) * unit[u]
        low, high = score - fine[lane], score + fine[lane]
        if high < floor[u]:
            continue
        full = _put(entry, n, u, item[j], place, low, high)
        _raise_floor(lows, n_lows, floor, u, low)
        if full:
            _make_room(best, scored, items, u)
        bars[lane - first] = _bar(floor[u], coarse[lane], step[lane])


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

    Block by block the sums of codes are screened. What may reach the k-th best score is scored in float32,
    and what then still may is kept as a candidate.

    tile: the codes of the items.
    start: the place of the first item within the shard.
    n_items: how many there are, at most those of the tile.
    panels: the users, their codes, and how far codes may be off.
    best: the running best of all users of the tile, changed.
    scored: what the exact scores need.
    items: the shard.
    masks: what a user may not get.
    """
    room = Room(
        np.empty(LANES, np.int32),
        np.empty(ROWS, np.uint32),
        np.empty((n_items // ROWS, LANES), np.int32),
        np.empty(LANES, np.int32),
        np.empty((3, LANES), np.int32),
        np.empty(WAITING + ROWS * LANES, np.int64),
        np.empty(WAITING + ROWS * LANES, np.int64),
    )
    codes, starts, user_codes, steps, dense = tile.codes, tile.starts, panels.codes, panels.steps, items.dense
    bars, above, lanes, places = room.bars, room.above, room.lanes, room.places
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
            if block_above(
                codes, row * steps * 4, starts, row, user_codes, first * steps * 4, steps, bars, above
            ):
                n_rows = min(ROWS, n_items - row)
                waiting = _note(above, lanes, places, first, start + row, dense, waiting, n_rows)
            if waiting >= WAITING or row + ROWS >= n_items:
                _look(room, waiting, first, panels, best, scored, items, masks)
                near += waiting
                waiting = 0
    return near
