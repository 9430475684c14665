"""Places that are kept for items that nobody has had yet.

What is known of such an item are its words, and factors that are mapped from them; no popularity, and that
is most of what wins a place. So a list may keep its last places, a share of it, for those that suit the
user best by words and factors, each standardised among the newcomers alone. The places before stay as they
are. Exact like the rest: one more pass of the kernel, over the newcomers, under the same masks and caps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from scipy import sparse

from recsys_spark.names import ALS, COMPONENTS, CONTENT, NEW_ITEMS_ONLY
from recsys_spark.ranking.blend import ScaledUsers, Scaling, Variant, scaling_of
from recsys_spark.ranking.kernel.caps import Cap, Walk
from recsys_spark.ranking.kernel.engine import Best
from recsys_spark.ranking.kernel.select import Csr, ItemParts, UserParts, component_scores, select
from recsys_spark.ranking.kernel.shards import repacked
from recsys_spark.ranking.shared_items import LoadedItems, SharedItems, share_items

# How well a newcomer suits a user: which of the two tells more differs from one set of films to the other.
SUITS = Variant(NEW_ITEMS_ONLY, "newcomers", {name: float(name in (ALS, CONTENT)) for name in COMPONENTS})
WIDER = 4  # times as many candidates, for those whose list the caps have left open

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Newcomers:
    """N of the ranked items, shared with the executors, and how their scores vary among themselves.

    Extra arrays: chosen int32 [N], the place of each among all that is ranked; place, the way back, -1 for
    an item that is not new.
    """

    shared: SharedItems
    scaling: Scaling


@dataclass(frozen=True)
class LoadedNewcomers:
    """The same as a task sees them."""

    items: LoadedItems
    scaling: Scaling


def share_newcomers(
    spark: SparkSession,
    items: ItemParts,
    words: Csr,
    item_ids: pa.Array,
    is_new: Flags,
    *,
    n_terms: int,
    max_item_share: float,
) -> Newcomers:
    """Ship those of the ranked items that are new, at least one.

    spark: the session.
    items: all that is ranked, I items; the first of their blocks is of ALS.
    words: their sparse part, [I, V].
    item_ids: theirs, [I].
    is_new: which of them are new, [I].
    n_terms: V.
    max_item_share: of an executor's memory; items that take more come in shards.
    """
    chosen = np.flatnonzero(is_new).astype(np.int32)
    place = np.full(is_new.size, -1, np.int32)
    place[chosen] = np.arange(chosen.size, dtype=np.int32)
    dense, words = items.dense[chosen], words.take(chosen)
    allowed = None if items.allowed is None else repacked(items.allowed, chosen, items.n_items)
    rank = items.blocks[0]
    scaling = scaling_of(
        dense[:, :rank],
        sparse.csr_matrix((words.values, words.indices, words.indptr), shape=(chosen.size, n_terms)),
        dense[:, rank:],
        np.ones(chosen.size, np.bool_),
    )
    shared = share_items(
        spark,
        ItemParts(dense, words, allowed, blocks=items.blocks),
        item_ids.take(pa.array(chosen)),
        extra={"chosen": chosen, "place": place},
        max_item_share=max_item_share,
    )
    return Newcomers(shared, scaling)


def with_newcomers(
    best: Best,
    users: ScaledUsers,
    parts: UserParts,
    items: LoadedItems,
    newcomers: LoadedNewcomers,
    *,
    share: float,
    caps: Sequence[Cap],
) -> tuple[Best, Flags]:
    """The lists with their last places kept for newcomers, and which slots [U, k] those took.

    Of k places share · k, rounded down, are the newcomers' that suit best and are not in the list already.
    Where there are too few, what was there stays. Users of whom neither words nor factors tell anything keep
    their list, and so does who would have a shorter one under the caps. Each slot has the score of the parts,
    and a list stays sorted by it.

    best: the lists, index and score [U, k], of the parts over all items.
    users: the U users, standardised over all items.
    parts: the same users as a variant weighs them.
    items: all that is ranked.
    newcomers: those of them that are new.
    share: of a list's places, from 0 to 1.
    caps: over all items; they hold for the whole list.
    """
    index, score = best
    kept = np.zeros(index.shape, np.bool_)
    first = index.shape[1] - int(share * index.shape[1] + 1e-9)
    place = newcomers.items.extra["place"]
    near = users.among(newcomers.scaling, place)
    rows = np.flatnonzero(_is_known(near))
    if first == index.shape[1] or rows.size == 0:
        return best, kept
    chosen = index[rows]
    walk = Walk(np.where(np.arange(chosen.shape[1]) < first, chosen, -1), np.full(chosen.shape, np.nan), caps)
    _fill(walk, near.parts(SUITS).take(rows), newcomers.items, first)
    walk.fill(np.arange(rows.size), _absent(chosen[:, first:], walk.index), score[rows, first:])
    worse = (walk.index >= 0).sum(axis=1) < (chosen >= 0).sum(axis=1)
    tail = np.where(worse[:, None], chosen, walk.index)[:, first:]
    given = _scores(items, parts.take(rows), tail)
    order = np.lexsort((tail, np.where(tail >= 0, -given, np.inf)))
    at = rows[:, None], np.arange(first, index.shape[1])
    index, score = index.copy(), score.copy()
    index[at], score[at] = (np.take_along_axis(values, order, axis=1) for values in (tail, given))
    kept[at] = (place[index[at]] >= 0) & (index[at] >= 0) & ~worse[:, None]
    return (index, score), kept


def _is_known(users: ScaledUsers) -> Flags:
    words = np.asarray(abs(users.word_profiles).sum(axis=1)).ravel()
    return np.any(users.factors != 0, axis=1) | (words > 0)


def _fill(walk: Walk, users: UserParts, newcomers: LoadedItems, first: int) -> None:
    """Fill the lists with the newcomers that suit best and are not among the first places."""
    place = newcomers.extra["place"]
    there = np.where(walk.index[:, :first] >= 0, place[walk.index[:, :first]], -1)
    row, at = np.nonzero(there >= 0)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=users.n_users))])
    mask = Csr(indptr.astype(np.int64), there[row, at].astype(np.int32))
    users = replace(users, excluded=mask if users.excluded is None else users.excluded.joined(mask))
    open_rows, offered = np.arange(users.n_users), 0
    width = walk.index.shape[1] - first
    while open_rows.size:
        index, score = select(newcomers.shards, users, width)
        candidates = np.where(index >= 0, newcomers.extra["chosen"][index], -1)[:, offered:]
        still = walk.fill(open_rows, candidates, score[:, offered:])
        left = np.flatnonzero(np.isin(open_rows, still))
        users, open_rows = users.take(left), open_rows[left]
        offered, width = width, WIDER * width


def _absent(candidates: NDArray[np.int32], lists: NDArray[np.int32]) -> NDArray[np.int32]:
    """The candidates, -1 for those that the list of their row holds."""
    return np.where((candidates[:, :, None] == lists[:, None, :]).any(axis=2), -1, candidates)


def _scores(items: LoadedItems, users: UserParts, index: NDArray[np.int32]) -> NDArray[np.float64]:
    """The kernel's own score of each of the items index [rows, n], nan for none."""
    whole = {"dense": slice(0, items.shards.outline.n_dims)}
    given = component_scores(items.shards, users, index, whole)
    return (given["dense"] + given["sparse"]) + given["additive"]
