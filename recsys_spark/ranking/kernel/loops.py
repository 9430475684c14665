"""The compiled inner loops of the top-K kernel (numba). Nothing else may import this module directly:
`engine.compiled_loops` finds it a home where numba can cache, also when the package is zipped.

No function here is compiled with fast-math: the float64 sums are the definition of the score, term by
term in ascending order, and must equal those of `exact` bit by bit.

numba counts the users of an array whenever one is passed or taken from a tuple, by an instruction that locks
the memory: in loops this small a seventh of the time. What allocates nothing is compiled without (`_nrt`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

BLOCK = 64  # users per test "is any of these above its bar": a few vector steps
ITEM, LOW, HIGH, PLACE = 0, 1, 2, 3  # the parts of a candidate


class Scored(NamedTuple):
    """All that the exact score of a user of this tile needs; absent parts are empty arrays."""

    dense: NDArray[np.float64]  # [U, D]
    norms: NDArray[np.float64]  # [U, B + 1]
    profile_ptr: NDArray[np.int64]
    profile_terms: NDArray[np.int32]
    profile_values: NDArray[np.float64]
    additive_ptr: NDArray[np.int64]  # length 0: no additive part
    additive_places: NDArray[np.int32]
    additive_values: NDArray[np.float64]


class Items(NamedTuple):
    """A shard of the catalogue, in order of place."""

    first: int
    item: NDArray[np.int32]  # [n], the index in item order
    dense: NDArray[np.float32]  # [n, D]
    norms: NDArray[np.float64]  # [n, B + 1]
    terms_ptr: NDArray[np.int64]  # length 0: no sparse part
    terms: NDArray[np.int32]
    term_values: NDArray[np.float32]
    allowed: NDArray[np.uint8]  # [G, ceil(n / 8)], packed; G = 0: everything is allowed


class Masks(NamedTuple):
    """What a user of this tile may not get, and what the scan leaves out besides."""

    excluded_ptr: NDArray[np.int64]  # length 0: nothing excluded
    excluded_places: NDArray[np.int32]
    masked_ptr: NDArray[np.int64]  # excluded and additive places
    masked_places: NDArray[np.int32]
    group: NDArray[np.int32]  # [U]


class Best(NamedTuple):
    """Per user of the tile: what may still be among the best k, after the items seen so far.

    `floor` is a lower bound of the k-th best exact score: the root of the min-heap `lows` of the k
    largest lower bounds. A candidate is exact when low equals high.
    """

    lows: NDArray[np.float64]  # [U, k]
    n_lows: NDArray[np.int64]
    floor: NDArray[np.float64]
    entry: NDArray[np.float64]  # [U, C, 4]: item, low, high, place side by side, for the cache
    n: NDArray[np.int64]
    unit: NDArray[np.float64]  # a tile's float32 score times this power of two is a score
    absolute: NDArray[np.float64]  # what underflow may add to a score
    next_masked: NDArray[np.int64]
    next_additive: NDArray[np.int64]


@njit(cache=True, nogil=True)
def add_sparse(
    tile: NDArray[np.float32],
    first: int,
    terms_ptr: NDArray[np.int64],
    terms: NDArray[np.int32],
    term_values: NDArray[np.float32],
    scale: float,
    number: NDArray[np.int32],
    common: NDArray[np.float32],
    rare_ptr: NDArray[np.int64],
    rare_lanes: NDArray[np.int32],
    rare_values: NDArray[np.float32],
) -> None:
    """Add the sparse part to a tile: for each term of an item, the users who have it.

    Most terms are those of few users, and a row for every term would be longer than the cache. So terms are
    common or rare; see `parts.Profiles`, of which the last five arrays are.

    tile: float32 [items, lanes], added to.
    first: the place of the tile's first item within the shard.
    terms_ptr: int64 [n + 1], where the terms of each item of the shard begin.
    terms: int32, the terms.
    term_values: float32, their weights.
    scale: what the weights are multiplied by.
    number: int32 [V], a term's own number, -1 for one that no user has.
    common: float32 [C, lanes], the users' weights of the common terms, numbers below C.
    rare_ptr: int64, where the users of each rare term begin.
    rare_lanes: int32, the lane of each of these users.
    rare_values: float32, their weights.
    """
    width, n_common = tile.shape[1], common.shape[0]
    for j in range(tile.shape[0]):
        row = tile[j]
        for n in range(terms_ptr[first + j], terms_ptr[first + j + 1]):
            at = number[terms[n]]
            value = np.float32(term_values[n] * scale)
            if at >= n_common:
                for r in range(rare_ptr[at - n_common], rare_ptr[at - n_common + 1]):
                    row[rare_lanes[r]] += value * rare_values[r]
            elif at >= 0:
                weights = common[at]
                for u in range(width):
                    row[u] += value * weights[u]


@njit(nogil=True, _nrt=False)
def _bisect(values, start, stop, wanted):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    while start < stop:
        middle = (start + stop) // 2
        if values[middle] < wanted:
            start = middle + 1
        else:
            stop = middle
    return start


@njit(cache=True, nogil=True)
def sought(indptr, indices, rows, columns):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Where (rows[p], columns[p]) is stored, -1 where it is not; rows of indices ascend."""
    at = np.full(rows.size, -1, np.int64)
    for p in range(rows.size):
        stop = indptr[rows[p] + 1]
        place = _bisect(indices, indptr[rows[p]], stop, columns[p])
        if place < stop and indices[place] == columns[p]:
            at[p] = place
    return at


@njit(nogil=True, _nrt=False)
def _holds(ptr, places, u, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if ptr.size == 0:
        return False
    at = _bisect(places, ptr[u], ptr[u + 1], place)
    return at < ptr[u + 1] and places[at] == place


@njit(nogil=True, _nrt=False)
def _is_allowed(allowed, group, u, j):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return allowed.shape[0] == 0 or (allowed[group[u], j >> 3] >> (j & 7)) & 1 != 0


@njit(nogil=True, _nrt=False)
def _sparse_score(scored, items, u, j):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = 0.0
    if items.terms_ptr.size == 0 or scored.profile_ptr.size == 0:
        return total
    at = scored.profile_ptr[u]
    stop = scored.profile_ptr[u + 1]
    for n in range(items.terms_ptr[j], items.terms_ptr[j + 1]):
        term = items.terms[n]
        at = _bisect(scored.profile_terms, at, stop, term)
        if at < stop and scored.profile_terms[at] == term:
            total += scored.profile_values[at] * np.float64(items.term_values[n])
    return total


@njit(nogil=True, _nrt=True)
def _rescore(best, scored, items, u):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Give every candidate of u its exact score. Dimension outermost: the sums of the candidates do
    not wait for one another, and each is still taken in ascending order. What is added to was exact
    from the start; what waits is of this shard, since every shard ends with settled candidates."""
    n = best.n[u]
    waiting = np.empty(n, np.int64)
    local = np.empty(n, np.int64)
    m = 0
    for c in range(n):
        if best.entry[u, c, LOW] != best.entry[u, c, HIGH]:
            waiting[m] = c
            local[m] = np.int64(best.entry[u, c, PLACE]) - items.first
            m += 1
    totals = np.zeros(m, np.float64)
    for d in range(scored.dense.shape[1]):
        x = scored.dense[u, d]
        for w in range(m):
            totals[w] += x * np.float64(items.dense[local[w], d])
    for w in range(m):
        exact = (totals[w] + _sparse_score(scored, items, u, local[w])) + 0.0
        best.entry[u, waiting[w], LOW] = exact
        best.entry[u, waiting[w], HIGH] = exact


@njit(nogil=True, _nrt=False)
def _is_worse(entry, u, a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Whether candidate a comes after candidate b in (score descending, item ascending)."""
    if entry[u, a, LOW] != entry[u, b, LOW]:
        return entry[u, a, LOW] < entry[u, b, LOW]
    return entry[u, a, ITEM] > entry[u, b, ITEM]


@njit(nogil=True, _nrt=False)
def _swap(entry, u, a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for part in range(4):
        entry[u, a, part], entry[u, b, part] = entry[u, b, part], entry[u, a, part]


@njit(nogil=True, _nrt=False)
def _sort(entry, u, n):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Heapsort of the n candidates of u, best first. (numpy's argsort costs seconds to compile.)"""
    for step in range(n // 2 + n):
        if step < n // 2:
            at, size = n // 2 - 1 - step, n
        else:
            at, size = 0, n - 1 - (step - n // 2)
            _swap(entry, u, 0, size)
        while True:  # the root of the heap is the worst
            child = 2 * at + 1
            if child + 1 < size and _is_worse(entry, u, child + 1, child):
                child += 1
            if child >= size or not _is_worse(entry, u, child, at):
                break
            _swap(entry, u, at, child)
            at = child


@njit(nogil=True, _nrt=True)
def _settle(best, scored, items, u):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Cut the candidates of u to the exact best k so far, in order (score descending, item ascending)."""
    _drop_hopeless(best, u)
    _rescore(best, scored, items, u)
    _sort(best.entry, u, best.n[u])
    k = best.lows.shape[1]
    kept = min(best.n[u], k)
    for c in range(kept):
        best.lows[u, c] = best.entry[u, kept - 1 - c, LOW]  # ascending, hence a min-heap
    best.n[u] = kept
    best.n_lows[u] = kept
    if kept == k:
        best.floor[u] = max(best.floor[u], best.lows[u, 0])


@njit(nogil=True, _nrt=False)
def _drop_hopeless(best, u):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    kept = 0
    for c in range(best.n[u]):
        if best.entry[u, c, HIGH] >= best.floor[u]:
            for part in range(4):
                best.entry[u, kept, part] = best.entry[u, c, part]
            kept += 1
    best.n[u] = kept


@njit(nogil=True, _nrt=False)
def _raise_floor(lows, n_lows, floor, u, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Take a lower bound into the heap of the k largest; its root is the floor once there are k."""
    k = lows.shape[1]
    if n_lows[u] < k:
        at = n_lows[u]
        n_lows[u] = at + 1
        while at > 0 and lows[u, (at - 1) // 2] > low:
            lows[u, at] = lows[u, (at - 1) // 2]
            at = (at - 1) // 2
        lows[u, at] = low
    elif low > lows[u, 0]:
        at = 0
        while True:
            child = 2 * at + 1
            if child + 1 < k and lows[u, child + 1] < lows[u, child]:
                child += 1
            if child >= k or lows[u, child] >= low:
                break
            lows[u, at] = lows[u, child]
            at = child
        lows[u, at] = low
    if n_lows[u] == k:
        floor[u] = max(floor[u], lows[u, 0])


@njit(nogil=True, _nrt=False)
def _bar(floor, margin, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The floor in the tile's units, rounded down to float32, so that what equals the floor exceeds it."""
    exact = (floor - margin) / unit
    if exact > 3e38:
        return np.float32(np.inf)
    bar = np.float32(exact)
    if np.float64(bar) >= exact:
        bar = np.float32(bar - abs(bar) * np.float32(2.4e-7) - np.float32(1e-37))
    return bar


@njit(nogil=True, _nrt=False)
def _put(entry, n, u, item, place, low, high):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Append a candidate; whether the row is now full."""
    entry[u, n[u], ITEM] = item
    entry[u, n[u], LOW] = low
    entry[u, n[u], HIGH] = high
    entry[u, n[u], PLACE] = place
    n[u] += 1
    return n[u] == entry.shape[1]


@njit(nogil=True, _nrt=True)
def _make_room(best, scored, items, u):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    _drop_hopeless(best, u)
    if best.n[u] > (best.lows.shape[1] + best.entry.shape[1]) // 2:
        _settle(best, scored, items, u)


@njit(nogil=True, _nrt=False)
def _offer_exact(best, scored, items, u, j, score):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if score >= best.floor[u]:
        full = _put(best.entry, best.n, u, items.item[j], items.first + j, score, score)
        _raise_floor(best.lows, best.n_lows, best.floor, u, score)
        if full:
            _make_room(best, scored, items, u)


@njit(cache=True, nogil=True)
def take_additive(best: Best, scored: Scored, items: Items, masks: Masks) -> None:
    """Offer the shard's items to whose score something is added, exactly: the scan leaves them out."""
    stop = items.first + items.item.size
    ptr, places, values = scored.additive_ptr, scored.additive_places, scored.additive_values
    users, norms, user_norms, dense = scored.dense, items.norms, scored.norms, items.dense
    for u in range(best.n.size):
        at = best.next_additive[u]
        end = ptr[u + 1]
        while at < end and places[at] < stop:
            place = places[at]
            value = values[at]
            j = place - items.first
            at += 1
            ceiling = best.absolute[u] + abs(value) * 1e-15
            for b in range(norms.shape[1]):
                ceiling += user_norms[u, b] * norms[j, b] * 1.000001
            if value + ceiling < best.floor[u] or not _is_allowed(items.allowed, masks.group, u, j):
                continue
            if not _holds(masks.excluded_ptr, masks.excluded_places, u, place):
                total = 0.0
                for d in range(users.shape[1]):
                    total += users[u, d] * np.float64(dense[j, d])
                score = (total + _sparse_score(scored, items, u, j)) + value
                _offer_exact(best, scored, items, u, j, score)
        best.next_additive[u] = at


@njit(cache=True, nogil=True)
def take_zero(
    u: int, by_item: NDArray[np.int64], best: Best, scored: Scored, items: Items, masks: Masks
) -> None:
    """Offer the shard's first k items in item order to a user to whom all are worth exactly 0.

    u: which user of the tile.
    by_item: int64 [n], the shard's items, places within it, by their index.
    best: the running best of all users of the tile, changed.
    scored: what the exact scores need.
    items: the shard.
    masks: what a user may not get.
    """
    given = 0
    for j in by_item:
        if given == best.lows.shape[1] or best.floor[u] > 0:
            break
        masked = _holds(masks.masked_ptr, masks.masked_places, u, items.first + j)
        if not masked and _is_allowed(items.allowed, masks.group, u, j):
            _offer_exact(best, scored, items, u, j, 0.0)
            given += 1


@njit(nogil=True, _nrt=False)
def _mask(tile, first, users, ptr, places, next_masked):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Take masked items out of the tile. Items that passed while a user was not in it do not come back."""
    stop = first + tile.shape[0]
    for lane in range(users.size):
        u = users[lane]
        at = next_masked[u]
        end = ptr[u + 1]
        while at < end and places[at] < stop:
            if places[at] >= first:
                tile[places[at] - first, lane] = -np.inf
            at += 1
        next_masked[u] = at


@njit(cache=True, nogil=True)
def take_tile(
    tile: NDArray[np.float32],
    start: int,
    users: NDArray[np.int64],
    margin: NDArray[np.float64],
    bar: NDArray[np.float32],
    best: Best,
    scored: Scored,
    items: Items,
    masks: Masks,
) -> None:
    """Take the shard's items start, start + 1, … into the running best of `users`, one a lane.

    tile: float32 scores [items, lanes], overwritten; lanes beyond the users are padding.
    start: the place of the first item within the shard.
    users: int64 [users], which users of the tile of users.
    margin: [users], how far a score may be from the exact one.
    bar: float32 [lanes], room for what a score must exceed to matter.
    best: the running best of all users, changed.
    scored: what the exact scores need.
    items: the shard.
    masks: what a user may not get.
    """
    # Locals, and functions of a few arrays: a call that hands on the whole tuples costs more than a scan.
    entry, n, lows, n_lows, floor = best.entry, best.n, best.lows, best.n_lows, best.floor
    unit, allowed, group, item = best.unit, items.allowed, masks.group, items.item
    bar[:] = np.inf
    for lane in range(users.size):
        bar[lane] = _bar(floor[users[lane]], margin[lane], unit[users[lane]])
    if masks.masked_ptr.size > 0:
        _mask(tile, items.first + start, users, masks.masked_ptr, masks.masked_places, best.next_masked)
    for t in range(tile.shape[0]):
        row = tile[t]
        for block in range(0, bar.size, BLOCK):
            scores = row[block : block + BLOCK]
            bars = bar[block : block + BLOCK]
            above = np.int32(0)
            for b in range(BLOCK):  # an int32 count vectorises; a float maximum or an `or` does not
                above = np.int32(above + np.int32(scores[b] > bars[b]))
            if above == 0:
                continue
            for lane in range(block, min(block + BLOCK, users.size)):
                u = users[lane]
                j = start + t
                if row[lane] > bar[lane] and _is_allowed(allowed, group, u, j):
                    score = np.float64(row[lane]) * unit[u]
                    low = score - margin[lane]
                    full = _put(entry, n, u, item[j], items.first + j, low, score + margin[lane])
                    _raise_floor(lows, n_lows, floor, u, low)
                    if full:
                        _make_room(best, scored, items, u)
                    bar[lane] = _bar(floor[u], margin[lane], unit[u])


@njit(cache=True, nogil=True)
def settle(best: Best, scored: Scored, items: Items) -> None:
    """Cut every user's candidates to the exact best k so far, so that the shard may go."""
    for u in range(best.n.size):
        _settle(best, scored, items, u)


@njit(cache=True, nogil=True)
def finish(best: Best, index: NDArray[np.int32], score: NDArray[np.float64]) -> None:
    """Write the settled best k of each user, padded with -1 and nan."""
    for u in range(best.n.size):
        n = best.n[u]
        for c in range(n):
            index[u, c] = np.int32(best.entry[u, c, ITEM])
            score[u, c] = best.entry[u, c, LOW]
        index[u, n:] = -1
        score[u, n:] = np.nan
