"""All that may be ranked, gathered into arrays and shared with the executors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.data.ids import dense_index
from recsys_spark.errors import NothingOnSaleError
from recsys_spark.lake.schema import column
from recsys_spark.ranking.blend import Scaling, scaling_of
from recsys_spark.ranking.kernel.select import Csr, ItemParts, packed
from recsys_spark.ranking.newcomers import Newcomers, share_newcomers
from recsys_spark.ranking.shared_items import MAX_ITEM_SHARE, SharedItems, share_items
from recsys_spark.runtime.checkpoints import checkpointed


@dataclass(frozen=True)
class Catalogue:
    """All items that may be ranked, in item_id order, shared with the executors.

    index: (item_id, item_index) on Spark, of all items known; shared: those ranked, in the same order, as
    arrays; rank: ALS dimensions; size: items ranked; groups: names of the users' groups that not all items
    are for, in the order of the mask's rows; labels: what lists may be capped by; popularity_groups: names of
    the users' groups with a popularity of their own, in the order of its columns; newcomers: the ranked items
    that nobody has had yet once more, for lists that keep places for them.
    """

    index: DataFrame
    shared: SharedItems
    scaling: Scaling
    rank: int
    size: int
    groups: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    popularity_groups: tuple[str, ...] = ()
    newcomers: Newcomers | None = None

    def release(self) -> None:
        """Free the disk space of what is shared; call it after the last action that ranks these items."""
        self.shared.release()
        if self.newcomers is not None:
            self.newcomers.shared.release()


def catalogue_of(
    items: DataFrame,
    *,
    factors: DataFrame,
    vectors: DataFrame,
    popularity: DataFrame,
    group_popularity: DataFrame | None = None,
    cold: DataFrame | None = None,
    prior: float = 0.0,
    has_places: bool = False,
    candidates: DataFrame | None = None,
    forbidden: DataFrame | None = None,
    labels: Sequence[str] = (),
    max_item_share: float = MAX_ITEM_SHARE,
) -> Catalogue:
    """Gather each item's ALS factors, TF-IDF vector and popularity into arrays and share them.

    Driver memory: 4·(d + 2 + G) bytes an item, G groups with a popularity of their own, plus its words.

    items: (item_id, unique), all that profiles and scales are made of, and the columns of `labels`. An item
        without factors, words or sales gets zeros there.
    factors: (item_id, factors), arrays of one length, d.
    vectors: (item_id, terms, weights), arrays of one length for an item.
    popularity: (item_id, users, new_users, is_reference), as `models.popularity.popularity` gives it.
    group_popularity: (group, item_id, users), what counts for popularity among users of a group; None: all
        have everyone's.
    cold: (item_id), items whose popularity, trial and popularity in a group nobody knows yet; None: none.
    prior: what stands for these, as a share of the reference items' mean log count.
    has_places: whether lists may keep places for the cold items (`Variant.newcomers`).
    candidates: (item_id), what may be ranked; None: all. 300 of 30,000 cost what 300 cost, and a user's
        profile is still that of everything they had.
    forbidden: (group, item_id), what users of that group (country, segment, age …) may not get; None:
        nothing.
    labels: string columns of `items`, category or brand, that `lists` may cap.
    max_item_share: of an executor's memory; items that take more come in shards.

    Raises NothingOnSaleError where there is no item, ValueError where factors hold NaN or infinity.
    """
    index = checkpointed(dense_index(items, id_column="item_id", index_column="item_index"))
    item_ids = index.orderBy("item_index").select("item_id").toArrow().column("item_id").combine_chunks()
    size = len(item_ids)
    if size == 0:
        raise NothingOnSaleError("there is no item to rank")
    dense, rank = _dense(_indexed(factors, index, "factors"), size)
    words = _words(_indexed(vectors, index, "terms", "weights"), size)
    log_counts, reference = _counts(_indexed(popularity, index, "users", "new_users", "is_reference"), size)
    is_sold = log_counts[:, 0] > 0
    popularity_groups, log_grouped = _grouped_counts(group_popularity, index, size)
    log_counts = np.hstack([log_counts, log_grouped])
    is_new = np.zeros(size, np.bool_)
    if cold is not None:
        new = _indexed(cold.select("item_id"), index).column("item_index").to_numpy()
        is_new[new] = has_places
        log_counts = _with_prior(log_counts, reference, new, prior)
    scaling = scaling_of(dense, words, log_counts, reference)
    terms = Csr(words.indptr.astype(np.int64), words.indices.astype(np.int32), words.data)
    stacked = np.ascontiguousarray(np.hstack([dense, log_counts]))
    extra = {"words_indptr": terms.indptr, "words_indices": terms.indices, "words_values": words.data}
    extra["is_sold"] = is_sold
    extra |= {f"label_{name}": _labels(items, index, name, size) for name in labels}
    groups, allowed = _allowed(forbidden, index, size)
    if candidates is not None:
        at = _indexed(candidates.select("item_id").distinct(), index).column("item_index").to_numpy()
        chosen = np.sort(at)
        extra["candidate"] = np.full(size, -1, np.int32)
        extra["candidate"][chosen] = np.arange(chosen.size, dtype=np.int32)
        extra |= {name: values[chosen] for name, values in extra.items() if name.startswith("label_")}
        stacked, terms, item_ids = stacked[chosen], terms.take(chosen), item_ids.take(pa.array(chosen))
        allowed = None if allowed is None else allowed[:, chosen]
        is_new = is_new[chosen]
    bits = None if allowed is None else packed(allowed)
    parts = ItemParts(stacked, terms, bits, blocks=(rank, *[1] * log_counts.shape[1]))
    shared = share_items(items.sparkSession, parts, item_ids, extra=extra, max_item_share=max_item_share)
    newcomers = None
    if is_new.any():
        newcomers = share_newcomers(
            items.sparkSession,
            parts,
            terms,
            item_ids,
            is_new,
            n_terms=words.shape[1],
            max_item_share=max_item_share,
        )
    return Catalogue(
        index, shared, scaling, rank, len(item_ids), groups, tuple(labels), popularity_groups, newcomers
    )


def _indexed(rows: DataFrame, index: DataFrame, *columns: str) -> pa.Table:
    return rows.join(F.broadcast(index), on="item_id", how="inner").select("item_index", *columns).toArrow()


def _dense(rows: pa.Table, size: int) -> tuple[NDArray[np.float32], int]:
    if rows.num_rows == 0:
        return np.zeros((size, 0), np.float32), 0
    column = rows.column("factors").combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    rank = flat.size // rows.num_rows
    dense = np.zeros((size, rank), np.float32)
    dense[rows.column("item_index").to_numpy()] = flat.reshape(-1, rank)
    return dense, rank


def _words(rows: pa.Table, size: int) -> sparse.csr_matrix:
    terms, weights = rows.column("terms").combine_chunks(), rows.column("weights").combine_chunks()
    item = np.repeat(rows.column("item_index").to_numpy(), _list_lengths(terms))
    term = terms.flatten().to_numpy(zero_copy_only=False)
    value = weights.flatten().to_numpy(zero_copy_only=False)
    width = int(term.max(initial=0)) + 1
    matrix = sparse.csr_matrix((value.astype(np.float32), (item, term)), shape=(size, width))
    matrix.sort_indices()
    return matrix


def _counts(rows: pa.Table, size: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """log1p of users and new_users [I, 2], and which items are of the reference set."""
    at = rows.column("item_index").to_numpy()
    log_counts = np.zeros((size, 2), np.float32)
    for place, name in enumerate(("users", "new_users")):
        log_counts[at, place] = np.log1p(rows.column(name).to_numpy())
    reference = np.zeros(size, np.bool_)
    reference[at] = rows.column("is_reference").to_numpy()
    return log_counts, reference


def _with_prior(
    log_counts: NDArray[np.float32], reference: NDArray[np.bool_], cold: NDArray[np.int32], prior: float
) -> NDArray[np.float32]:
    """The same, with prior times the mean over the reference set, where it has items, for the cold ones."""
    if not reference.any():
        return log_counts
    filled = log_counts.copy()
    filled[cold] = prior * log_counts[reference].astype(np.float64).mean(axis=0)
    return filled


def _grouped_counts(
    rows: DataFrame | None, index: DataFrame, size: int
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """The groups in order of name, and log1p of what counts for popularity in each [I, G]."""
    if rows is None:
        return (), np.zeros((size, 0), np.float32)
    table = _indexed(rows, index, "group", "users")
    names = sorted(set(table.column("group").to_pylist()))
    group = pc.index_in(table.column("group"), pa.array(names, pa.string())).to_numpy()
    log_counts = np.zeros((size, len(names)), np.float32)
    log_counts[table.column("item_index").to_numpy(), group] = np.log1p(table.column("users").to_numpy())
    return tuple(names), log_counts


def _labels(items: DataFrame, index: DataFrame, name: str, size: int) -> NDArray[np.int32]:
    """A number for each item's value in the column, equal for equal values; -1 for null."""
    rows = _indexed(items.select("item_id", column(name).alias("label")), index, "label")
    codes = rows.column("label").combine_chunks().dictionary_encode().indices
    labels = np.full(size, -1, np.int32)
    labels[rows.column("item_index").to_numpy()] = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False)
    return labels


def _allowed(
    forbidden: DataFrame | None, index: DataFrame, size: int
) -> tuple[tuple[str, ...], NDArray[np.bool_] | None]:
    """The groups in order of name, and what each may get, bool [G + 1, I]; the last row allows all."""
    if forbidden is None:
        return (), None
    rows = _indexed(forbidden.where(F.col("group").isNotNull()), index, "group")
    names = sorted(set(rows.column("group").to_pylist()))
    allowed = np.ones((len(names) + 1, size), np.bool_)
    group = pc.index_in(rows.column("group"), pa.array(names, pa.string())).to_numpy()
    allowed[group, rows.column("item_index").to_numpy()] = False
    return tuple(names), allowed


def _list_lengths(column: pa.Array) -> NDArray[np.int64]:
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
