"""The best K items of each user from two frames of factors, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DoubleType, FloatType, StringType

from recsys_spark.errors import ConfigError, InputError, did_you_mean
from recsys_spark.lake.schema import column
from recsys_spark.ranking.arrow import csr_of, indptr_of
from recsys_spark.ranking.kernel.bounds import ScoreOverflowError
from recsys_spark.ranking.kernel.caps import Cap, select_capped
from recsys_spark.ranking.kernel.select import Csr, ItemParts, UserParts
from recsys_spark.ranking.shared_items import MAX_ITEM_SHARE, SharedItems, share_items
from recsys_spark.runtime.batches import gathered

AT_ONCE = 16_384  # users of a call: for each, the excluded ids are numbered anew and every shard is mapped
TOP_K_SCHEMA = "user_id string, item_id string, score double, rank int"
LOOKED_UP_ITEMS = 2_000_000  # ids in a task's hash table, some 50 bytes each, that numbers excluded items
FEW_CANDIDATES = 100_000  # so few that their ids are sent around to drop the excluded pairs of all others

_shared: WeakKeyDictionary[DataFrame, SharedItems] = WeakKeyDictionary()


def top_k(
    users: DataFrame,
    items: DataFrame,
    *,
    k: int,
    exclude: DataFrame | None = None,
    candidates: DataFrame | None = None,
    caps: Mapping[str, int] | None = None,
    max_item_share: float = MAX_ITEM_SHARE,
    partitions: int | None = None,
) -> DataFrame:
    """One row per user and place: (user_id string, item_id string, score double, rank int from 1).

    The score is the inner product in float64, its dimensions summed in ascending order. A user's items are
    ordered by (score descending, item_id ascending, compared as UTF-8 bytes), which is total. So the result
    is that of scoring and sorting everything, whatever the partitions, cores, tiles and shards. A user with
    fewer than k items left has a short list; one with none has no row. Other columns, unknown ids and
    repeated rows of exclude and candidates do not matter.

    Cost: at most 2·U·I·D float32 FLOP in one pass over the users, plus the shuffle of users and exclude by
    user. Items come by falling norm, and a user leaves the pass when no later item can enter their list. On
    factors of a real shop that was a third of the product.

    Calling it runs the job that collects the items: 4·I·D bytes on the driver, and files of that size per
    executor. The rest runs with the result, and the files stay until `release` or the driver's end.

    Memory of a task, however many users there are: a batch of users (16,384, or 64 MB of their rows), and the
    kernel's tiles. Each place of these users takes 12 bytes, some 60 with caps. Besides, one shard of items
    with its codes: D + 4 bytes an item. With `exclude` a table of the item ids comes to it, 50 bytes each.
    Caps walk a user's k places for each of up to 2k candidates.

    users: (user_id string, factors array<float|double>), ids unique.
    items: (item_id string, factors), ids unique, factors as long as the users'; rounded to float32. With
        candidates an item without an id is none.
    k: places of a list, from 1. Who wants places in reserve asks for k + reserve, and pays for no second
        pass.
    exclude: (user_id, item_id), pairs that must not come back (seen, sent); they cost no places. None: none.
    candidates: (item_id), the only items to rank; None: all. They alone are collected, shared and scored, so
        that 300 of 30,000 cost what a catalogue of 300 costs, but for reading the rest. Of up to 100,000 of
        them only the excluded pairs are shuffled.
    caps: {column: c}, at most c items of a list with the same value in that string column of items; null is
        never counted. A list is what walking the whole ranking from the top and taking what the caps allow
        gives. So its first j places are the list of j.
    max_item_share: of an executor's memory; items that take more are cut into shards, and a task maps one at
        a time.
    partitions: of users; None: as many as Spark shuffles into, at least two a core.

    Raises ConfigError for k or a cap below 1, a missing column or one of another type. Raises InputError for
    a null, repeated or ragged id or vector, NaN or infinity, factors whose scores might overflow float64. For
    users it is raised, in Python on the executor, when the result is used.

    Source: the bounds that make float32 screening exact are in `recsys_spark.ranking.kernel.select`.
    """
    for name, value in (("k", k), ("partitions", partitions)):
        if value is not None and value < 1:
            raise ConfigError(f"top_k: {name}={value}, expected 1 or more")
    _expect(users, "users", ids=["user_id"], factors=True)
    for name in (name for name in ("item_id", "factors") if name in (caps or {})):
        raise ConfigError(f"top_k: cap by {name}, expected a label of the items")
    _expect(items, "items", ids=["item_id", *(caps or {})], factors=True)
    for name, at_most in (caps or {}).items():
        if at_most < 1:
            raise ConfigError(f"top_k: cap {name} = {at_most}, expected 1 or more")
    if candidates is not None:
        _expect(candidates, "candidates", ids=["item_id"])
        items = items.join(candidates.select("item_id").distinct(), on="item_id", how="left_semi")
    named = items.select("item_id", "factors", *[column(name) for name in caps or {}])
    item_ids, parts, labels = _item_parts(named.toArrow())
    shared = share_items(users.sparkSession, parts, item_ids, extra=labels, max_item_share=max_item_share)
    rows = _by_user(users.select("user_id", "factors"), partitions)
    if exclude is not None:
        _expect(exclude, "exclude", ids=["user_id", "item_id"])
        if candidates is not None and len(item_ids) <= FEW_CANDIDATES:
            exclude = exclude.join(F.broadcast(_named(users.sparkSession, item_ids)), "item_id", "left_semi")
        rows = _with_excluded(rows, exclude, item_ids)
    # Equal ids side by side: a repeated user is found without holding the ids. Sorted already after a join.
    rows = rows.sortWithinPartitions("user_id")
    lists = rows.mapInArrow(ranking_task(shared, k, caps or {}), TOP_K_SCHEMA)
    _shared[lists] = shared
    return lists


def release(lists: DataFrame) -> None:
    """Free the disk space of the driver that a result of `top_k` holds, its items.

    Call it after the last action on the result or on what is derived from it: a later one fails with a
    sentence that says so. A second call does nothing. ConfigError: a frame that top_k did not return.
    """
    if lists not in _shared:
        raise ConfigError("release: this frame is not one that top_k returned. Keep that, and release it.")
    _shared[lists].release()


def _expect(frame: DataFrame, name: str, *, ids: list[str], factors: bool = False) -> None:
    for wanted in [*ids, "factors"] if factors else ids:
        if wanted not in frame.columns:
            hint = did_you_mean(wanted, frame.columns)
            raise ConfigError(f"top_k: {name} has no column {wanted}, only {frame.columns}.{hint}")
        given = frame.schema[wanted].dataType
        if wanted == "factors":
            is_right = isinstance(given, ArrayType) and isinstance(given.elementType, (FloatType, DoubleType))
        else:
            is_right = isinstance(given, StringType)
        if not is_right:
            expected = "array<float> or array<double>" if wanted == "factors" else "string"
            raise ConfigError(f"top_k: {name}.{wanted} is {given.simpleString()}, expected {expected}")


def _by_user(rows: DataFrame, partitions: int | None) -> DataFrame:
    """Spread the users over the cores, equal ids in the same partition.

    The number is explicit because adaptive execution would merge small partitions, and the work of a
    user is in the product, not in the bytes of the row. It comes before the join with the excluded items,
    which then keeps it.
    """
    spark = rows.sparkSession
    configured = int(str(spark.conf.get("spark.sql.shuffle.partitions")))
    wanted = partitions or max(2 * spark.sparkContext.defaultParallelism, configured)
    return rows.repartition(wanted, "user_id")


def _named(spark: SparkSession, item_ids: pa.Array) -> DataFrame:
    """(item_id, position) of the items that are ranked."""
    position = pa.array(np.arange(len(item_ids), dtype=np.int32))
    return spark.createDataFrame(pa.table({"item_id": item_ids, "position": position}))


def _with_excluded(users: DataFrame, exclude: DataFrame, item_ids: pa.Array) -> DataFrame:
    """Give each user the excluded items: their ids, or of a large catalogue array<int>, their positions."""
    pairs, item = exclude.select("user_id", "item_id"), "item_id"
    if len(item_ids) > LOOKED_UP_ITEMS:
        index = _named(users.sparkSession, item_ids)
        pairs, item = pairs.join(index, on="item_id", how="inner"), "position"
    lists = pairs.groupBy("user_id").agg(F.collect_list(item).alias("excluded"))
    return users.join(lists, on="user_id", how="left")


def _item_parts(rows: pa.Table) -> tuple[pa.Array, ItemParts, dict[str, NDArray[np.int32]]]:
    """The items in order of their ids, and the other columns as numbers, -1 for null."""
    ids = rows.column("item_id").combine_chunks()
    order = pc.sort_indices(ids)
    ids = ids.take(order)
    factors = _matrix(rows.column("factors").combine_chunks().take(order), ids, "item")
    _refuse_repeated(ids, "item")
    with np.errstate(over="ignore"):
        dense = factors.astype(np.float32)
    _refuse(~np.isfinite(dense).all(axis=1), ids, "item", "holds a number beyond float32")
    labels = {}
    for name in rows.column_names[2:]:
        codes = rows.column(name).combine_chunks().take(order).dictionary_encode().indices
        labels[name] = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return ids, ItemParts(dense), labels


def _matrix(factors: pa.Array, ids: pa.Array, kind: str) -> NDArray[Any]:
    """The vectors as one matrix [rows, D]. InputError names the first row that has none, or another D."""
    _refuse(ids.is_null().to_numpy(zero_copy_only=False), ids, kind, "has no id")
    _refuse(factors.is_null().to_numpy(zero_copy_only=False), ids, kind, "has no factors")
    length = pc.list_value_length(factors).to_numpy(zero_copy_only=False)
    n_dims = int(length[0]) if length.size else 0
    _refuse(length != n_dims, ids, kind, f"does not have {n_dims} factors as {kind} {_name(ids, 0)!r}")
    values = factors.flatten()
    matrix = values.to_numpy(zero_copy_only=False).reshape(len(ids), n_dims)  # a null becomes NaN
    _refuse(~np.isfinite(matrix).all(axis=1), ids, kind, "holds null, NaN or infinity")
    return matrix


def _refuse_repeated(ids: pa.Array, kind: str) -> None:
    if len(ids) > 1:
        again = pc.equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
        _refuse(np.concatenate([[False], again]), ids, kind, "comes twice")


def _refuse(bad: Any, ids: pa.Array, kind: str, fault: str) -> None:
    if np.any(bad):
        raise InputError(f"top_k: {kind} {_name(ids, int(np.argmax(bad)))!r} {fault}")


def _name(ids: pa.Array, row: int) -> Any:
    return ids[row].as_py() if row < len(ids) else None


def ranking_task(
    shared: SharedItems, k: int, limits: Mapping[str, int]
) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """What a task does with its users, batches of (user_id, factors, excluded): one pass to TOP_K_SCHEMA.

    limits: {label: c}, at most c items of a list with the same value of that extra array.
    """

    def rank(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items = shared.load()
        caps = [Cap(items.extra[name], at_most) for name, at_most in limits.items()]
        last_id = None
        for batch in gathered(batches, AT_ONCE):
            user_ids = batch.column("user_id")
            users = _user_parts(batch, shared, items.ids)
            if last_id is not None and user_ids[0].as_py() == last_id:
                raise InputError(f"top_k: user {last_id!r} comes twice")
            _refuse_repeated(user_ids, "user")
            last_id = user_ids[-1].as_py()
            if shared.n_items == 0:
                continue
            try:
                index, score = select_capped(items.shards, users, min(k, shared.n_items), caps)
            except ScoreOverflowError as error:
                name = _name(user_ids, error.row)
                raise InputError(
                    f"top_k: user {name!r} has factors whose scores may overflow float64"
                ) from None
            yield _rows(user_ids, items.ids, index, score)

    return rank


def _user_parts(batch: pa.RecordBatch, shared: SharedItems, item_ids: pa.Array) -> UserParts:
    user_ids = batch.column("user_id")
    dense = _matrix(batch.column("factors"), user_ids, "user").astype(np.float64)
    expected = shared.outline.n_dims
    if shared.n_items and dense.shape[1] != expected:
        raise InputError(
            f"top_k: user {_name(user_ids, 0)!r} has {dense.shape[1]} factors, the items have {expected}"
        )
    if "excluded" not in batch.schema.names:
        return UserParts(dense)
    return UserParts(dense, excluded=_excluded(batch.column("excluded"), item_ids))


def _excluded(lists: pa.Array, item_ids: pa.Array) -> Csr:
    """Lists of ids or of positions as rows of positions; unknown ids fall away."""
    kind = lists.type.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return csr_of(lists)
    positions = pc.index_in(lists.flatten().cast(item_ids.type), value_set=item_ids)
    is_known = positions.is_valid().to_numpy(zero_copy_only=False)
    known_before = np.concatenate([[0], np.cumsum(is_known)])
    return Csr(known_before[indptr_of(lists)], positions.drop_null().to_numpy())


def _rows(
    user_ids: pa.Array, item_ids: pa.Array, index: NDArray[np.int32], score: NDArray[np.float64]
) -> pa.RecordBatch:
    user, place = np.nonzero(index >= 0)
    return pa.RecordBatch.from_arrays(
        [
            user_ids.take(pa.array(user)),
            item_ids.take(pa.array(index[user, place])),
            pa.array(score[user, place]),
            pa.array(place.astype(np.int32) + 1),
        ],
        names=["user_id", "item_id", "score", "rank"],
    )
