"""Lists with caps: at most c items of one category, brand, … in a list, chosen greedily by rank.

The kernel keeps K + R candidates in its one pass, and a list is filled from them. For the few users whose
candidates do not suffice, the pass is repeated for them alone, without what they have been offered and
without the labels that are used up, so that the result is the greedy choice over the whole ranking. A round
that does not fill a list has refused a candidate, and so uses up a label: there are at most K rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.ranking.kernel.engine import Best
from recsys_spark.ranking.kernel.parts import Csr, ItemParts, UserParts, slices
from recsys_spark.ranking.kernel.select import select
from recsys_spark.ranking.kernel.shards import Shards, in_memory

MASKED_AT_ONCE = 1 << 23  # entries of the masks of users who are completed together

Indices = NDArray[np.int32]


@dataclass(frozen=True)
class Cap:
    """At most at_most items with the same label; label int32 [I], -1 for items that are not counted."""

    label: NDArray[np.int32]
    at_most: int


def select_capped(
    items: ItemParts | Shards,
    users: UserParts,
    k: int,
    caps: Sequence[Cap],
    *,
    reserve: int | None = None,
    **tiles: int,
) -> Best:
    """As `select`, the best k under the caps: walk the ranking, take what no cap forbids, stop at k.

    The first j places are the list of j places: who wants K and R in reserve asks for K + R. Time: the walk
    is U·k for each of up to k + reserve candidates.

    items: I of them.
    users: U of them.
    k: places of a list, from 1.
    caps: labels of the items, and how many of one a list may hold.
    reserve: how many candidates beyond k are kept for what the caps refuse; None: k, at least 16. It changes
        the time, nothing else.
    tiles: tile_users and tile_items of `select`.

    Raises ValueError as `select`, and for a cap below 1 or labels that do not fit.
    """
    shards = in_memory(items) if isinstance(items, ItemParts) else items
    for cap in caps:
        if cap.at_most < 1 or cap.label.shape != (shards.outline.n_items,):
            expected = f"at_most >= 1 and labels [{shards.outline.n_items}]"
            raise ValueError(f"cap of {cap.at_most} with labels {cap.label.shape}: expected {expected}")
    most = min(k, shards.outline.n_items)  # no list is longer
    if not caps or most < 1:
        return select(shards, users, k, **tiles)
    width = min(most + (max(most, 16) if reserve is None else reserve), shards.outline.n_items)
    offered = select(shards, users, width, **tiles)
    index, score = np.full((users.n_users, k), -1, np.int32), np.full((users.n_users, k), np.nan)
    lists = Walk(index[:, :most], score[:, :most], caps)
    rows = np.arange(users.n_users)
    open_rows = lists.fill(rows, *offered)
    step = max(MASKED_AT_ONCE // max(shards.outline.n_items, 1), 1)
    for part in slices(open_rows.size, step):
        chosen = open_rows[part]
        batch = users.take(chosen)
        more = offered[0][chosen]
        while chosen.size:
            batch = lists.without(batch, chosen, more)
            again = select(shards, batch, width, **tiles)
            still_open = lists.fill(chosen, *again)
            kept = np.flatnonzero(np.isin(chosen, still_open))
            batch, more, chosen = batch.take(kept), again[0][kept], chosen[kept]
    return index, score


@dataclass
class Walk:
    """Lists [U, k] under way, -1 and nan in the places that are open: the last ones."""

    index: Indices
    score: NDArray[np.float64]
    caps: Sequence[Cap]

    def fill(self, rows: NDArray[Any], index: Indices, score: NDArray[np.float64]) -> NDArray[Any]:
        """Take candidates [rows, width] by rank; the rows that are not full although theirs did not end."""
        length = (self.index[rows] >= 0).sum(axis=1)
        for rank in range(index.shape[1]):
            asked = np.flatnonzero((index[:, rank] >= 0) & (length < self.index.shape[1]))
            if asked.size == 0:  # lists that are full stay so, and candidates that have ended
                break
            candidate = index[asked, rank]
            in_lists = self.index[rows[asked], : length[asked].max()]
            is_taken = np.ones(asked.size, np.bool_)
            for cap in self.caps:
                is_taken &= _same_label(cap, in_lists, candidate) < cap.at_most
            taken = asked[is_taken]
            at = rows[taken], length[taken]
            self.index[at], self.score[at] = index[taken, rank], score[taken, rank]
            length[taken] += 1
        is_open = (self.index[rows, -1] < 0) & (index[:, -1] >= 0)
        return rows[is_open]

    def without(self, users: UserParts, rows: NDArray[Any], offered: Indices) -> UserParts:
        """The users without what they have been offered, and without the labels that are used up."""
        masks = [offered[n][offered[n] >= 0] for n in range(rows.size)]
        for cap in self.caps:
            by_label = np.argsort(cap.label, kind="stable").astype(np.int32)
            labels = cap.label[by_label]
            for n, row in enumerate(rows):
                in_list = self.index[row][self.index[row] >= 0]
                used, counts = np.unique(cap.label[in_list], return_counts=True)
                for label in used[(counts >= cap.at_most) & (used >= 0)]:
                    start, stop = np.searchsorted(labels, [label, label + 1])
                    masks[n] = np.concatenate([masks[n], by_label[start:stop]])
        indptr = np.concatenate([[0], np.cumsum([mask.size for mask in masks])]).astype(np.int64)
        mask = Csr(indptr, np.concatenate(masks).astype(np.int32))
        return replace(users, excluded=mask if users.excluded is None else users.excluded.joined(mask))


def _same_label(cap: Cap, in_lists: Indices, candidate: Indices) -> NDArray[np.int64]:
    """How many items of each list [n, length], -1 for none, have the label of the candidate [n]."""
    label = cap.label[candidate][:, None]
    same = (in_lists >= 0) & (cap.label[in_lists] == label) & (label >= 0)
    return same.sum(axis=1)
