"""Top-K lists of users over the catalogue, for one or many variants of the blend in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.config import COMPONENTS
from recsys_spark.data.ids import dense_index
from recsys_spark.ranking.blend import ScaledUsers, Scaling, UserBatch, Variant, scaling_of
from recsys_spark.ranking.kernel import Csr, ItemParts, component_scores, select
from recsys_spark.ranking.shared_items import SharedItems, share_items

LISTS_SCHEMA = (
    "task string, model string, user_id string, rank int, item_id string, score double, "
    "component_scores map<string,double>"
)
# The kernel's names for the parts of a score, and ours.
_PARTS = {
    "als": "als",
    "popularity": "popularity",
    "trial": "trial",
    "sparse": "content",
    "additive": "history",
}


@dataclass(frozen=True)
class Catalogue:
    """All items that may be ranked, in item_id order, shared with the executors.

    index: (item_id, item_index) on Spark; shared: the same order as arrays; rank: ALS dimensions.
    """

    index: DataFrame
    shared: SharedItems
    scaling: Scaling
    rank: int
    size: int


def catalogue_of(
    items: DataFrame, *, factors: DataFrame, vectors: DataFrame, popularity: DataFrame
) -> Catalogue:
    """Gather each item's ALS factors, TF-IDF vector and popularity into arrays and share them.

    `items` (item_id, unique) decides what may be ranked; items without factors, words or sales get
    zeros there. Driver memory: 4·(d + 2) bytes an item plus its words.
    """
    index = dense_index(items, id_column="item_id", index_column="item_index").localCheckpoint(eager=True)
    item_ids = index.orderBy("item_index").select("item_id").toArrow().column("item_id").combine_chunks()
    size = len(item_ids)
    factor_rows = _indexed(factors, index, "factors")
    dense, rank = _dense(factor_rows, size)
    words = _words(_indexed(vectors, index, "terms", "weights"), size)
    log_counts, reference = _counts(_indexed(popularity, index, "users", "new_users", "is_reference"), size)
    scaling = scaling_of(dense, words, log_counts, reference)
    parts = ItemParts(
        dense=np.ascontiguousarray(np.hstack([dense, log_counts])),
        sparse=Csr(words.indptr.astype(np.int64), words.indices.astype(np.int32), words.data),
    )
    return Catalogue(index, share_items(items.sparkSession, parts, item_ids), scaling, rank, size)


def lists(
    users: DataFrame,
    *,
    preferences: DataFrame,
    user_factors: DataFrame,
    catalogue: Catalogue,
    variants: Sequence[Variant],
    k: int,
    partitions: int,
) -> DataFrame:
    """The top k of every variant for every user of `users` (user_id, unique); see LISTS_SCHEMA.

    component_scores holds each weighing component's standardised score before its weight. Order is
    score descending, item_id ascending; the result does not depend on partitions. A user whose
    candidates run out gets a short list. One pass: U·I·(d + 2) multiply-adds per variant plus the
    profiles' words.
    """
    spark = users.sparkSession
    scaling = spark.sparkContext.broadcast(catalogue.scaling)
    score = _scorer(catalogue.shared, scaling, tuple(variants), catalogue.rank, k)
    rows = user_rows(users, preferences=preferences, user_factors=user_factors, index=catalogue.index)
    return rows.repartition(partitions, "user_id").mapInArrow(score, LISTS_SCHEMA)


def user_rows(
    users: DataFrame, *, preferences: DataFrame, user_factors: DataFrame, index: DataFrame
) -> DataFrame:
    """One row per user: factors (null where none), and the history as parallel arrays by item_index."""
    known = preferences.join(F.broadcast(index), on="item_id", how="inner").join(
        users, "user_id", "left_semi"
    )
    histories = (
        known.groupBy("user_id")
        .agg(F.sort_array(F.collect_list(F.struct("item_index", "strength"))).alias("seen"))
        .select(
            "user_id",
            F.col("seen.item_index").alias("seen_items"),
            F.col("seen.strength").alias("strengths"),
        )
    )
    return (
        users.select("user_id")
        .join(histories, on="user_id", how="left")
        .join(user_factors.select("user_id", "factors"), on="user_id", how="left")
    )


def _scorer(
    shared: SharedItems, scaling: Any, variants: tuple[Variant, ...], rank: int, k: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items, item_ids = shared.load()
        words = items.sparse
        if words is None:
            raise ValueError("the shared items have no words part")
        shape = (items.n_items, scaling.value.content_mean.shape[0])
        vectors = sparse.csr_matrix((words.values, words.indices, words.indptr), shape=shape)
        for batch in batches:
            if batch.num_rows == 0:
                continue
            users = ScaledUsers.of(_user_batch(batch, items.n_items, rank), vectors, scaling.value)
            for variant in variants:
                yield _ranked(batch.column("user_id"), users, variant, items, item_ids, rank, k)

    return score


def _ranked(
    user_ids: pa.Array,
    users: ScaledUsers,
    variant: Variant,
    items: ItemParts,
    item_ids: pa.Array,
    rank: int,
    k: int,
) -> pa.RecordBatch:
    parts = users.parts(variant)
    index, score = select(items, parts, k)
    chosen = index >= 0
    slices = {"als": slice(0, rank), "popularity": slice(rank, rank + 1), "trial": slice(rank + 1, rank + 2)}
    contributions = component_scores(items, parts, index, slices)
    row, place = np.nonzero(chosen)
    size = row.size
    return pa.RecordBatch.from_arrays(
        [
            pa.repeat(pa.scalar(variant.task), size),
            pa.repeat(pa.scalar(variant.model), size),
            user_ids.take(pa.array(row)),
            pa.array(place.astype(np.int32) + 1),
            pa.array(item_ids).take(pa.array(index[chosen])).cast(pa.string()),
            pa.array(score[chosen]),
            _maps({_PARTS[part]: values[chosen] for part, values in contributions.items()}, variant, size),
        ],
        names=["task", "model", "user_id", "rank", "item_id", "score", "component_scores"],
    )


def _maps(contributions: dict[str, NDArray[np.float64]], variant: Variant, size: int) -> pa.Array:
    """map<component, score before its weight> for each row, of the components that weigh something."""
    named = [name for name in COMPONENTS if variant.weights[name] != 0]
    zeros = np.zeros(size)
    columns = [contributions.get(name, zeros) / variant.weights[name] for name in named]
    offsets = pa.array(np.arange(size + 1, dtype=np.int32) * len(named))
    keys = pa.array(named * size, pa.string())
    values = pa.array(np.column_stack(columns).ravel() if columns else np.zeros(0))
    return pa.MapArray.from_arrays(offsets, keys, values)


def _user_batch(batch: pa.RecordBatch, n_items: int, rank: int) -> UserBatch:
    indptr = np.concatenate([[0], np.cumsum(_lengths(batch.column("seen_items")))])
    indices = batch.column("seen_items").flatten().to_numpy(zero_copy_only=False)
    strengths = batch.column("strengths").flatten().to_numpy(zero_copy_only=False)
    factors = np.zeros((batch.num_rows, rank))
    known = batch.column("factors").is_valid().to_numpy(zero_copy_only=False)
    flat = batch.column("factors").flatten().to_numpy(zero_copy_only=False)
    factors[known] = flat.reshape(-1, rank) if rank else factors[known]
    return UserBatch(
        factors, sparse.csr_matrix((strengths, indices, indptr), shape=(batch.num_rows, n_items))
    )


def _lengths(column: pa.Array) -> NDArray[np.int64]:
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)


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
    item = np.repeat(rows.column("item_index").to_numpy(), _lengths(terms))
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
