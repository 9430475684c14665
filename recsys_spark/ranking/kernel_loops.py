"""The compiled inner loops of the top-K kernel (numba). Nothing else may import this module directly:
`kernel_engine.compiled_loops` finds it a home where numba can cache, also when the package is zipped.

No function here is compiled with fast-math: the float64 sums are the definition of the score, term by
term in ascending order, and must equal those of `kernel_exact` bit by bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

BLOCK = 64  # users per test "is any of these above its bar": a few vector steps
ITEM, LOW, HIGH = 0, 1, 2  # the parts of a candidate


class Scored(NamedTuple):
    """All that the exact score of a (user of this tile, item) needs; absent parts are empty arrays."""

    user_dense: NDArray[np.float64]  # [U, D]
    item_dense: NDArray[np.float32]  # [I, D]
    profile_ptr: NDArray[np.int64]  # users' sparse rows
    profile_terms: NDArray[np.int32]
    profile_values: NDArray[np.float64]
    terms_ptr: NDArray[np.int64]  # items' sparse rows; length 0: no sparse part
    terms: NDArray[np.int32]
    term_values: NDArray[np.float32]
    additive_ptr: NDArray[np.int64]  # length 0: no additive part
    additive_items: NDArray[np.int32]
    additive_values: NDArray[np.float64]


class Masks(NamedTuple):
    """What a user of this tile may not get."""

    excluded_ptr: NDArray[np.int64]  # length 0: nothing excluded
    excluded_items: NDArray[np.int32]
    allowed: NDArray[np.uint8]  # [G, I]; G = 0: everything is allowed
    group: NDArray[np.int32]  # [U]


class Best(NamedTuple):
    """Per user of the tile: what may still be among the best k, after the items seen so far.

    `floor` is a lower bound of the k-th best exact score: the root of the min-heap `lows` of the k
    largest lower bounds. A candidate is exact when low equals high.
    """

    lows: NDArray[np.float64]  # [U, k]
    n_lows: NDArray[np.int64]
    floor: NDArray[np.float64]
    entry: NDArray[np.float64]  # [U, C, 3]: item, low, high side by side, a cache miss less per entry
    n: NDArray[np.int64]
    unit: NDArray[np.float64]  # a tile's float32 score times this power of two is a score
    margin: NDArray[np.float64]  # how far such a score may be from the exact one, in this item tile
    bar: NDArray[np.float32]  # a tile's float32 score must exceed this to matter
    next_excluded: NDArray[np.int64]
    next_additive: NDArray[np.int64]
    held: NDArray[np.float32]  # tile scores of the additive entries, taken out before the scan


@njit(cache=True, nogil=True)
def add_sparse(
    tile: NDArray[np.float32],
    first: int,
    terms_ptr: NDArray[np.int64],
    terms: NDArray[np.int32],
    term_values: NDArray[np.float32],
    scale: float,
    row_of_term: NDArray[np.int32],
    profiles: NDArray[np.float32],
) -> None:
    """Add the sparse part to a tile [items, users]: all users of the tile at once for each item term."""
    width = tile.shape[1]
    for j in range(tile.shape[0]):
        row = tile[j]
        for n in range(terms_ptr[first + j], terms_ptr[first + j + 1]):
            at = row_of_term[terms[n]]
            if at >= 0:
                value = np.float32(term_values[n] * scale)
                profile = profiles[at]
                for u in range(width):
                    row[u] += value * profile[u]


@njit(cache=True, nogil=True)
def _bisect(values, start, stop, wanted):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    while start < stop:
        middle = (start + stop) // 2
        if values[middle] < wanted:
            start = middle + 1
        else:
            stop = middle
    return start


@njit(cache=True, nogil=True)
def _sparse_score(scored, u, i):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = 0.0
    if scored.terms_ptr.size == 0 or scored.profile_ptr.size == 0:
        return total
    at = scored.profile_ptr[u]
    stop = scored.profile_ptr[u + 1]
    for n in range(scored.terms_ptr[i], scored.terms_ptr[i + 1]):
        term = scored.terms[n]
        at = _bisect(scored.profile_terms, at, stop, term)
        if at < stop and scored.profile_terms[at] == term:
            total += scored.profile_values[at] * np.float64(scored.term_values[n])
    return total


@njit(cache=True, nogil=True)
def _additive_score(scored, u, i):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if scored.additive_ptr.size == 0:
        return 0.0
    stop = scored.additive_ptr[u + 1]
    at = _bisect(scored.additive_items, scored.additive_ptr[u], stop, i)
    if at < stop and scored.additive_items[at] == i:
        return scored.additive_values[at]
    return 0.0


@njit(cache=True, nogil=True)
def _rescore(best, scored, u):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Give every candidate of u its exact score. Dimension outermost: the sums of the candidates do
    not wait for one another, and each is still taken in ascending order."""
    n = best.n[u]
    waiting = np.empty(n, np.int64)
    item = np.empty(n, np.int64)
    m = 0
    for c in range(n):
        if best.entry[u, c, LOW] != best.entry[u, c, HIGH]:
            waiting[m] = c
            item[m] = np.int64(best.entry[u, c, ITEM])
            m += 1
    totals = np.zeros(m, np.float64)
    for d in range(scored.user_dense.shape[1]):
        x = scored.user_dense[u, d]
        for w in range(m):
            totals[w] += x * np.float64(scored.item_dense[item[w], d])
    for w in range(m):
        exact = (totals[w] + _sparse_score(scored, u, item[w])) + _additive_score(scored, u, item[w])
        best.entry[u, waiting[w], LOW] = exact
        best.entry[u, waiting[w], HIGH] = exact


@njit(cache=True, nogil=True)
def _is_worse(entry, u, a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Whether candidate a comes after candidate b in (score descending, item ascending)."""
    if entry[u, a, LOW] != entry[u, b, LOW]:
        return entry[u, a, LOW] < entry[u, b, LOW]
    return entry[u, a, ITEM] > entry[u, b, ITEM]


@njit(cache=True, nogil=True)
def _swap(entry, u, a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for part in range(3):
        entry[u, a, part], entry[u, b, part] = entry[u, b, part], entry[u, a, part]


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _settle(best, scored, u):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Cut the candidates of u to the exact best k so far, in order (score descending, item ascending)."""
    _drop_hopeless(best, u)
    _rescore(best, scored, u)
    _sort(best.entry, u, best.n[u])
    k = best.lows.shape[1]
    kept = min(best.n[u], k)
    for c in range(kept):
        best.lows[u, c] = best.entry[u, kept - 1 - c, LOW]  # ascending, hence a min-heap
    best.n[u] = kept
    best.n_lows[u] = kept
    if kept == k:
        best.floor[u] = max(best.floor[u], best.lows[u, 0])


@njit(cache=True, nogil=True)
def _drop_hopeless(best, u):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    kept = 0
    for c in range(best.n[u]):
        if best.entry[u, c, HIGH] >= best.floor[u]:
            for part in range(3):
                best.entry[u, kept, part] = best.entry[u, c, part]
            kept += 1
    best.n[u] = kept


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _bar(floor, margin, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The floor in the tile's units, rounded down to float32: never too high, exact where it can be."""
    exact = (floor - margin) / unit
    if exact > 3e38:
        return np.float32(np.inf)
    bar = np.float32(exact)
    if np.float64(bar) > exact:
        bar = np.float32(bar - abs(bar) * np.float32(2.4e-7) - np.float32(1e-37))
    return bar


@njit(cache=True, nogil=True)
def _put(entry, n, u, i, low, high):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Append a candidate; whether the row is now full."""
    entry[u, n[u], ITEM] = i
    entry[u, n[u], LOW] = low
    entry[u, n[u], HIGH] = high
    n[u] += 1
    return n[u] == entry.shape[1]


@njit(cache=True, nogil=True)
def _make_room(best, scored, u):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    _drop_hopeless(best, u)
    if best.n[u] > (best.lows.shape[1] + best.entry.shape[1]) // 2:
        _settle(best, scored, u)


@njit(cache=True, nogil=True)
def _mask(tile, first, best, scored, masks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Take excluded items out of the tile, and set the additive ones aside."""
    stop = first + tile.shape[0]
    if masks.excluded_ptr.size > 0:
        for u in range(best.n.size):
            at = best.next_excluded[u]
            end = masks.excluded_ptr[u + 1]
            while at < end and masks.excluded_items[at] < stop:
                tile[masks.excluded_items[at] - first, u] = -np.inf
                at += 1
            best.next_excluded[u] = at
    if scored.additive_ptr.size > 0:
        base = scored.additive_ptr[0]
        for u in range(best.n.size):
            at = best.next_additive[u]
            end = scored.additive_ptr[u + 1]
            while at < end and scored.additive_items[at] < stop:
                j = scored.additive_items[at] - first
                best.held[at - base] = tile[j, u]
                tile[j, u] = -np.inf
                at += 1


@njit(cache=True, nogil=True)
def _take_additive(stop, best, scored, masks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Take the items set aside, their additive value added in float64: it costs no float32 error.

    They come after the other items of the tile, so an equal score does not lose here: a lower index
    may be among the candidates' equals.
    """
    base = scored.additive_ptr[0]
    for u in range(best.n.size):
        at = best.next_additive[u]
        end = scored.additive_ptr[u + 1]
        while at < end and scored.additive_items[at] < stop:
            i = scored.additive_items[at]
            product = np.float64(best.held[at - base])
            if product > -np.inf and (masks.allowed.shape[0] == 0 or masks.allowed[masks.group[u], i]):
                product *= best.unit[u]
                score = product + scored.additive_values[at]
                margin = best.margin[u]
                if margin > 0.0:
                    margin += (abs(product) + abs(scored.additive_values[at])) * 1e-15
                if score + margin >= best.floor[u]:
                    full = _put(best.entry, best.n, u, i, score - margin, score + margin)
                    _raise_floor(best.lows, best.n_lows, best.floor, u, score - margin)
                    if full:
                        _make_room(best, scored, u)
            at += 1
        best.next_additive[u] = at


@njit(cache=True, nogil=True)
def take_tile(tile: NDArray[np.float32], first: int, best: Best, scored: Scored, masks: Masks) -> None:
    """Take the items first, first+1, … into the running best; tile [items, users] is overwritten.

    Tiles come in ascending item order. So an item whose upper bound only *equals* the floor may go:
    k items of lower index are at least as good. That is what makes all-equal scores cheap.
    """
    # Locals, and functions of a few arrays: a call that hands on the whole tuples costs more than a scan.
    entry, n, lows, n_lows, floor = best.entry, best.n, best.lows, best.n_lows, best.floor
    margin, unit, bar = best.margin, best.unit, best.bar
    allowed, group = masks.allowed, masks.group
    n_users = n.size
    for u in range(n_users):
        bar[u] = _bar(floor[u], margin[u], unit[u])
    _mask(tile, first, best, scored, masks)
    for j in range(tile.shape[0]):
        row = tile[j]
        for block in range(0, bar.size, BLOCK):
            scores = row[block : block + BLOCK]
            bars = bar[block : block + BLOCK]
            above = np.int32(0)
            for b in range(BLOCK):  # an int32 count vectorises; a float maximum or an `or` does not
                above = np.int32(above + np.int32(scores[b] > bars[b]))
            if above == 0:
                continue
            for u in range(block, min(block + BLOCK, n_users)):
                if row[u] > bar[u] and (allowed.shape[0] == 0 or allowed[group[u], first + j]):
                    score = np.float64(row[u]) * unit[u]
                    full = _put(entry, n, u, first + j, score - margin[u], score + margin[u])
                    _raise_floor(lows, n_lows, floor, u, score - margin[u])
                    if full:
                        _make_room(best, scored, u)
                    bar[u] = _bar(floor[u], margin[u], unit[u])
    if scored.additive_ptr.size > 0:
        _take_additive(first + tile.shape[0], best, scored, masks)


@njit(cache=True, nogil=True)
def finish(best: Best, scored: Scored, index: NDArray[np.int32], score: NDArray[np.float64]) -> None:
    """Write the exact best k of each user, padded with -1 and nan."""
    for u in range(best.n.size):
        _settle(best, scored, u)
        n = best.n[u]
        for c in range(n):
            index[u, c] = np.int32(best.entry[u, c, ITEM])
            score[u, c] = best.entry[u, c, LOW]
        index[u, n:] = -1
        score[u, n:] = np.nan
