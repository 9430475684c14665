"""What a slot goes with: of what its user has, the dearest item that names it among its similar items.

What the user has goes with nothing, whatever carried it: nobody needs company for what they bought.

No join and no pass over pairs: the task that ranks a user holds their history, and looks the slots up in the
similar items of what is in it, from a file of 4·k bytes an item.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.ranking.catalogue import Catalogue
from recsys_spark.ranking.kernel.select import Csr, ItemParts
from recsys_spark.ranking.shared_items import SharedItems, share_items
from recsys_spark.titles import clip, humanise

STRONGEST = 20  # of a user's items are looked at: what is weaker would name something half forgotten
TITLE_LIMIT = 80


@dataclass(frozen=True)
class Companions:
    """By item_index of the catalogue: ids hold titles, empty where there is none; `similar` int32 [I, S] the
    items that go with an item, -1 where there are fewer."""

    shared: SharedItems

    def named(self, seen: Csr, index: NDArray[np.int32]) -> pa.Array:
        """The title, readable, of what each slot of the lists `index` [U, k] goes with; null where nothing.

        A slot whose item the user has goes with nothing, and none goes with its own title: both would offer
        as company what is there. seen: the users' histories with strengths. One value per place of index that
        is not -1, in order.
        """
        items = self.shared.load()
        partners = goes_with(seen, index, items.extra["similar"])
        partners[has(seen, index, len(items.ids))] = -1
        partners, slots = partners[index >= 0], index[index >= 0]
        named = np.flatnonzero(partners >= 0)
        title, other = (items.ids.take(pa.array(at[named])) for at in (slots, partners))
        partners[named[pc.equal(title, other).to_numpy(zero_copy_only=False)]] = -1
        used, place = np.unique(partners[partners >= 0], return_inverse=True)
        names = pa.array(
            [_readable(title) for title in items.ids.take(pa.array(used)).to_pylist()], pa.string()
        )
        at = np.zeros(partners.size, np.int64)
        at[partners >= 0] = place
        return names.take(pa.array(at, mask=partners < 0))


def companions_of(similar: DataFrame, items: DataFrame, catalogue: Catalogue) -> Companions:
    """similar: (item_id, rank, similar_item_id); items: (item_id, title); catalogue: without candidates.

    Driver memory: 12 bytes a row of `similar`, and the titles.
    """
    index = F.broadcast(catalogue.index)
    other = catalogue.index.select(
        F.col("item_id").alias("similar_item_id"), F.col("item_index").alias("other")
    )
    rows = similar.join(index, on="item_id", how="inner").join(
        F.broadcast(other), on="similar_item_id", how="inner"
    )
    table = rows.select("item_index", "rank", "other").toArrow()
    at, rank, partner = (column.to_numpy() for column in table.columns)
    lists = np.full((catalogue.size, max(int(rank.max(initial=1)), 1)), -1, np.int32)
    lists[at, rank - 1] = partner
    named = items.join(index, on="item_id", how="inner").select("item_index", "title").toArrow()
    titles = np.full(catalogue.size, "", object)
    titles[named.column("item_index").to_numpy()] = named.column("title").fill_null("").to_pylist()
    parts = ItemParts(np.zeros((catalogue.size, 1), np.float32))
    spark = catalogue.index.sparkSession
    return Companions(share_items(spark, parts, pa.array(titles, pa.string()), extra={"similar": lists}))


def goes_with(seen: Csr, index: NDArray[np.int32], similar: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each place of the lists `index` [U, k] the item of the user's history that it goes with, or -1.

    The one of the greatest strength above 0 whose `similar` [I, S] hold the slot's item, ties to the lower
    index; only the STRONGEST of a user are asked. seen: rows of items and their strengths, a row a user.
    """
    n_items, owned = len(similar), np.full(index.size, -1, np.int32)
    item, strength = seen.indices, np.asarray(seen.values)
    order = np.lexsort((item, -strength, seen.row))
    place = np.arange(order.size) - seen.indptr[seen.row[order]]
    order = order[(place < STRONGEST) & (strength[order] > 0)]
    slots = np.flatnonzero(index.ravel() >= 0)
    keys = (slots // index.shape[1]) * n_items + index.ravel()[slots]
    by_key = np.argsort(keys)
    partner = similar[item[order]]
    wanted = np.where(partner >= 0, seen.row[order][:, None] * n_items + partner, -1).ravel()
    at = np.searchsorted(keys, wanted, sorter=by_key)
    is_hit = at < keys.size
    is_hit[is_hit] = keys[by_key[at[is_hit]]] == wanted[is_hit]
    hits = np.flatnonzero(is_hit)
    # The strongest come first, and the first that names a slot has it.
    slot, first = np.unique(by_key[at[hits]], return_index=True)
    owned[slots[slot]] = item[order[hits[first] // similar.shape[1]]]
    return owned.reshape(index.shape)


def has(seen: Csr, index: NDArray[np.int32], n_items: int) -> NDArray[np.bool_]:
    """Whether each place of the lists `index` [U, k] holds an item of its user's history, liked or not.

    seen: rows of items, a row a user.
    """
    had = seen.row.astype(np.int64) * n_items + seen.indices
    slots = np.arange(len(index), dtype=np.int64)[:, None] * n_items + index
    found: NDArray[np.bool_] = np.isin(slots, had) & (index >= 0)
    return found


@lru_cache(maxsize=100_000)
def _readable(title: str) -> str | None:
    return clip(humanise(title), TITLE_LIMIT) or None
