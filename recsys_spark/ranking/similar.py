"""What goes with an item: the best N others by ALS factors, words and shared baskets, exactly.

    score(i, j) = w_als·a(i, j) + w_content·cos(t_i, t_j) + w_co_purchase·s(i, j)
    a(i, j) = cos(y_i, y_j)·sqrt(n_i / (n_i + h))·sqrt(n_j / (n_j + h))
    s(i, j) = n_ij / sqrt(n_i·n_j)·n_ij / (n_ij + h), and 0 below `min_shared` baskets

y are ALS factors, t TF-IDF vectors, n_i the baskets with i, n_ij those with both, h `shrinkage`. s is the
cosine of items as sets of baskets (Deshpande and Karypis, Item-Based Top-N Recommendation Algorithms, 2004),
held back where few baskets speak for it (Koren, Factorization Meets the Neighborhood, 2008, section 2.2). So
is a: the factors of two items that one and the same user had are nearly parallel, and mean nothing.

No part's list is cut before the mix: the kernel takes an item for a user whose factors and words are its own
and whose history is s. Each part is a cosine, at most 1, and needs no other scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.config.sections import Similar
from recsys_spark.names import ALS, CO_PURCHASE, CONTENT, SIMILAR_COMPONENTS
from recsys_spark.ranking.arrow import maps_of
from recsys_spark.ranking.catalogue import Catalogue
from recsys_spark.ranking.kernel.select import Csr, ItemParts, UserParts, component_scores, select
from recsys_spark.ranking.shared_items import MAX_ITEM_SHARE, LoadedItems, SharedItems, share_items
from recsys_spark.runtime.batches import gathered

SIMILAR_SCHEMA = (
    "item_id string, rank int, similar_item_id string, score double, component_scores map<string,double>, "
    "source string"
)
MAX_TOGETHER = 2_000  # items: a larger basket says little about any two of them, and costs their square
ITEMS_AT_ONCE = 1_024
PAIRS_AT_ONCE = 4_000_000  # of items that shared a basket, at most 50 bytes each while they are counted


@contextmanager
def similar_items(
    catalogue: Catalogue,
    baskets: DataFrame,
    *,
    settings: Similar,
    partitions: int,
    max_item_share: float = MAX_ITEM_SHARE,
) -> Iterator[DataFrame]:
    """One row per item of the catalogue and place, up to settings.k; see SIMILAR_SCHEMA. Use it in the block.

    Neighbours are the items sold lately, or all of the catalogue (settings.neighbours). Order is score
    descending, similar_item_id ascending. What nothing speaks for is no neighbour, so a list may be short. An
    item with neither factors nor baskets has neighbours by words alone. component_scores are before their
    weights; source is the part that gave most.

    Of more than settings.max_lines rows of `baskets` a sample of the baskets speaks, drawn by their hash.
    Driver memory: 24·d bytes an item, its words twice, and 60 bytes a row of `baskets`. A task's: the
    kernel's tiles, a shard of items, and 50 bytes for each of 4 million pairs, or those of one item if more.
    Cost: the product of items and neighbours, and the sum of squares of the baskets' sizes.

    catalogue: not narrowed by candidates.
    baskets: (basket, item_id), distinct.
    settings: how many neighbours, which items may be one, and what each part weighs.
    partitions: how many ranges of items, and so files of the table.
    max_item_share: of an executor's memory; neighbours that take more come in shards.

    Source: see the papers in the module's first lines.
    """
    shared = _shared(catalogue, baskets, settings, max_item_share)
    try:
        # By ranges, so that a look-up of one item opens one file of the table.
        rows = catalogue.index.repartitionByRange(partitions, "item_index")
        yield rows.mapInArrow(_finder(shared, settings), SIMILAR_SCHEMA)
    finally:
        shared.release()


def _shared(
    catalogue: Catalogue, baskets: DataFrame, settings: Similar, max_item_share: float
) -> SharedItems:
    """The neighbours for the kernel; as extra arrays all items' factors, words and baskets."""
    loaded = catalogue.shared.load()
    dense = _in_item_order(loaded)
    own = _baskets_of_items(baskets, catalogue.index, catalogue.size, at_most=settings.max_lines)
    held = np.diff(own.indptr)
    factors = _trusted(dense[:, : catalogue.rank], held / (held + settings.shrinkage))
    chosen = np.flatnonzero(loaded.extra["is_sold"] | (settings.neighbours == "on_sale"))
    candidate = np.full(catalogue.size, -1, np.int32)
    candidate[chosen] = np.arange(chosen.size, dtype=np.int32)
    words = Csr(*(loaded.extra[f"words_{part}"] for part in ("indptr", "indices", "values")))
    others = own[chosen].T.tocsr()
    extra = {"factors": factors, "held": held, "candidate": candidate, "chosen": chosen}
    for name, matrix in (("words", words), ("own", own), ("others", others)):
        extra |= {f"{name}_indptr": matrix.indptr, f"{name}_indices": matrix.indices}
    extra |= {"words_values": words.values, "own_values": own.data, "others_values": others.data}
    parts = ItemParts(factors[chosen], words.take(chosen))
    ids = loaded.ids.take(pa.array(chosen))
    return share_items(catalogue.index.sparkSession, parts, ids, extra=extra, max_item_share=max_item_share)


def _in_item_order(items: LoadedItems) -> NDArray[np.float32]:
    """The dense part of all items [I, D]."""
    outline = items.shards.outline
    dense = np.empty((outline.n_items, outline.n_dims), np.float32)
    for number in range(outline.n_shards):
        shard = items.shards.load(number)
        dense[shard.item] = shard.dense
    return dense


def _baskets_of_items(baskets: DataFrame, index: DataFrame, size: int, *, at_most: int) -> sparse.csr_matrix:
    """1 where a basket held the item, int32 [I, baskets]; without those that are too large."""
    rows = sampled(baskets.join(F.broadcast(index), on="item_id", how="inner"), at_most)
    names, basket = np.unique(rows.column("basket").to_numpy(), return_inverse=True)
    item = rows.column("item_index").to_numpy()
    kept = np.bincount(basket, minlength=names.size)[basket] <= MAX_TOGETHER
    ones = np.ones(int(kept.sum()), np.int32)
    matrix = sparse.csr_matrix((ones, (item[kept], basket[kept])), shape=(size, max(names.size, 1)))
    matrix.sort_indices()
    return matrix


def sampled(lines: DataFrame, at_most: int) -> pa.Table:
    """(item_index, basket) of all baskets, or of so many, drawn by hash, as make about `at_most` rows."""
    lines = lines.select("item_index", "basket").persist(StorageLevel.DISK_ONLY)
    try:
        n_lines = lines.count()
        if n_lines > at_most:
            drawn = F.pmod(F.xxhash64("basket"), F.lit(n_lines)) < at_most
            return lines.where(drawn).toArrow()
        return lines.toArrow()
    finally:
        lines.unpersist()


def _trusted(factors: NDArray[np.float32], trust: NDArray[np.float64]) -> NDArray[np.float32]:
    """Factors of length sqrt(trust), 0 where there are none."""
    wide = factors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    lengths = np.where(norms > 0, np.sqrt(trust) / np.where(norms > 0, norms, 1.0), 0.0)
    return (wide * lengths[:, None]).astype(np.float32)


def _finder(
    shared: SharedItems, settings: Similar
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def find(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items = shared.load()
        own, others = _basket_matrices(items.extra)
        for batch in gathered(batches, ITEMS_AT_ONCE):
            at = batch.column("item_index").to_numpy()
            for some in pieces(own[at] @ np.diff(others.indptr), PAIRS_AT_ONCE):
                ids, shared_baskets = batch.column("item_id").take(pa.array(some)), own[at[some]] @ others
                yield _neighbour_rows(ids, at[some], shared_baskets, items, settings)

    return find


def pieces(work: NDArray[np.int64], at_most: int) -> list[NDArray[np.int64]]:
    """Positions 0 to len(work) - 1 in runs of work up to about `at_most`; one that has more is alone."""
    run = (np.cumsum(work) - work) // at_most
    starts = np.flatnonzero(np.diff(run)) + 1
    return np.split(np.arange(work.size), starts)


def _neighbour_rows(
    item_ids: pa.Array,
    at: NDArray[np.int32],
    together: sparse.csr_matrix,
    items: LoadedItems,
    settings: Similar,
) -> pa.RecordBatch:
    """The rows of the items `at`; together: with each neighbour, in how many baskets."""
    weights = {name: float(getattr(settings, name)) for name in SIMILAR_COMPONENTS}
    plain = _as_users(at, together, items.extra, settings)
    index, score = select(items.shards, _weighed(plain, weights), settings.k)
    index = np.where(score > 0, index, -1)
    row, place = np.nonzero(index >= 0)
    given = component_scores(items.shards, plain, index, {ALS: slice(0, plain.dense.shape[1])})
    parts = {ALS: given[ALS], CONTENT: given["sparse"], CO_PURCHASE: given["additive"]}
    columns = {name: parts[name][row, place] for name in SIMILAR_COMPONENTS}
    weighed = np.column_stack([weights[name] * columns[name] for name in SIMILAR_COMPONENTS])
    return pa.RecordBatch.from_arrays(
        [
            item_ids.take(pa.array(row)),
            pa.array(place.astype(np.int32) + 1),
            items.ids.take(pa.array(index[row, place])).cast(pa.string()),
            pa.array(score[row, place]),
            maps_of(columns, row.size),
            pa.array(SIMILAR_COMPONENTS).take(pa.array(weighed.argmax(axis=1))),
        ],
        names=["item_id", "rank", "similar_item_id", "score", "component_scores", "source"],
    )


def _as_users(at: NDArray[np.int32], together: sparse.csr_matrix, extra: Any, settings: Similar) -> UserParts:
    """The items `at` as the kernel's users, before any weight: no item may get itself."""
    words = Csr(*(extra[f"words_{part}"] for part in ("indptr", "indices", "values"))).take(at)
    own = extra["candidate"][at]
    is_there = (own >= 0).astype(np.int64)
    return UserParts(
        dense=extra["factors"][at].astype(np.float64),
        sparse=Csr(words.indptr, words.indices, np.asarray(words.values, np.float64)),
        additive=_co_purchases(at, together, extra, settings),
        excluded=Csr(np.concatenate([[0], np.cumsum(is_there)]), own[own >= 0]),
    )


def _co_purchases(at: NDArray[np.int32], together: sparse.csr_matrix, extra: Any, settings: Similar) -> Csr:
    """s(i, j) of the items `at` and all neighbours of at least min_shared common baskets."""
    held, shared = extra["held"], together.tocsr()
    shared.data[shared.data < settings.min_shared] = 0
    shared.eliminate_zeros()
    shared.sort_indices()
    row = np.repeat(np.arange(at.size), np.diff(shared.indptr))
    apart = np.sqrt(held[at][row] * held[extra["chosen"]][shared.indices].astype(np.float64))
    value = shared.data / apart * (shared.data / (shared.data + settings.shrinkage))
    return Csr(shared.indptr.astype(np.int64), shared.indices.astype(np.int32), value)


def _basket_matrices(extra: Any) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """1 where a basket held the item: [I, baskets], and [baskets, neighbours]."""
    n_baskets = extra["others_indptr"].size - 1
    own, others = (
        sparse.csr_matrix(
            tuple(extra[f"{name}_{part}"] for part in ("values", "indices", "indptr")), shape=shape
        )
        for name, shape in (
            ("own", (extra["held"].size, n_baskets)),
            ("others", (n_baskets, extra["chosen"].size)),
        )
    )
    return own, others


def _weighed(plain: UserParts, weights: dict[str, float]) -> UserParts:
    """What weighs nothing is left out, and costs nothing."""
    words, partners = plain.sparse, plain.additive
    return UserParts(
        dense=weights[ALS] * plain.dense,
        sparse=_times(words, weights[CONTENT]),
        additive=_times(partners, weights["co_purchase"]),
        excluded=plain.excluded,
    )


def _times(matrix: Csr | None, weight: float) -> Csr | None:
    if matrix is None or weight == 0:
        return None
    return Csr(matrix.indptr, matrix.indices, weight * np.asarray(matrix.values))
