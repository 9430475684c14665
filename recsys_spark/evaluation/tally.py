"""Lists held against what was wanted: what each list's slots add up to, and how often each item was shown.

The lists and the truth are stacked, not joined: one shuffle by list brings both together, and a worker's
arrays do the rest. Spark's own windows and groupings took three times as long, most of it in comparing names.
"""

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

from recsys_spark.evaluation.list_metrics import with_popularity
from recsys_spark.ranking.batches import gathered

_AT_ONCE = 65_536  # rows that a worker holds as arrays
_LIST = "list_hash"
_NEVER = np.int64(1) << 40  # the rank of what was not shown: beyond any that was


def tally(
    lists: DataFrame,
    relevant: DataFrame,
    *,
    ks: Sequence[int],
    by: Sequence[str],
    discounts: Sequence[float],
    item_popularity: DataFrame | None,
    at_once: int = _AT_ONCE,
) -> DataFrame:
    """One row is one user in one group of lists (item_id null), or one item in one (user_id null).

    Of a user: n, how many items are wanted; shown, how many slots hold an item; first, the position of the
    first hit, null for none; at each k hits_k, dcg_k (sum of `discounts` of the hits' positions) and ap_k
    (sum of precision at the hits); with item_popularity (item_id, popularity) also the means
    mean_popularity@k and novelty@k, null where nothing is shown. Of an item: shown_k, in how many lists it
    was within k; an item has several rows, to be added up.

    Every user with a wanted item has a row in every group. A list's items get positions from their best
    ranks, each pushed down where an earlier item, by rank and then by item_id, already holds it: no position
    and no item occurs twice. Sums have one order, so no partition changes a bit. `relevant` meets `lists` on
    the columns of `by` that it has. Ids and the values of `by` are not null. The action fails on a rank that
    is below 1 or null.

    Memory of a task: `at_once` rows and those of one list.
    """
    shared = [name for name in by if name in relevant.columns]
    truth = relevant.select(*shared, "user_id", "item_id")
    groups = F.broadcast(lists.select(*by).distinct())
    truth = truth.join(groups, on=shared, how="inner") if shared else truth.crossJoin(groups)
    rows = _within(lists, by=by, depth=max(ks)).unionByName(truth, allowMissingColumns=True)
    described = () if item_popularity is None else ("mean_popularity", "novelty")
    if item_popularity is not None:
        rows = with_popularity(rows, item_popularity=item_popularity)
    # Sorted by one column of eight bytes: Spark then compares nothing, and a worker finds lists side by side.
    together = (
        rows.withColumn(_LIST, F.xxhash64(*by, "user_id")).repartition(_LIST).sortWithinPartitions(_LIST)
    )
    named = (*by, "user_id", "item_id")
    types = ", ".join(f"{name} {lists.schema[name].dataType.simpleString()}" for name in named)
    figures = ", ".join(_figures(ks, described))
    return together.mapInArrow(
        _adder(tuple(by), tuple(ks), np.asarray(discounts), described, at_once),
        f"{types}, {figures}",
    )


def _within(lists: DataFrame, *, by: Sequence[str], depth: int) -> DataFrame:
    """The rows of rank 1 to `depth`; the action fails on a rank that cannot be one."""
    rank = F.col("rank").cast("int")
    got = F.concat(F.lit("lists.rank counts from 1, got "), F.coalesce(rank.cast("string"), F.lit("null")))
    checked = F.when(rank >= 1, rank).otherwise(F.raise_error(got))
    return lists.select(*by, "user_id", "item_id", checked.alias("rank")).where(F.col("rank") <= depth)


def _figures(ks: Sequence[int], described: Sequence[str]) -> list[str]:
    """The figures' names and types, those of a user before those of an item."""
    of_user = ["n bigint", "shown bigint", "first bigint"]
    for k in ks:
        of_user += [f"hits_{k} bigint", f"dcg_{k} double", f"ap_{k} double"]
        of_user += [f"`{name}@{k}` double" for name in described]
    return [*of_user, *[f"shown_{k} bigint" for k in ks]]


def _adder(
    by: tuple[str, ...],
    ks: tuple[int, ...],
    discounts: NDArray[np.float64],
    described: tuple[str, ...],
    at_once: int,
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    names = (*by, "user_id", "item_id", *[name.split()[0].strip("`") for name in _figures(ks, described)])

    def add(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in whole_lists(gathered(batches, at_once)):
            slots = slots_of(rows, by, described, depth=max(ks))
            for columns in (_of_users(slots, rows, by, ks, discounts), _of_items(slots, rows, by, ks)):
                size = len(columns["item_id"])
                yield pa.RecordBatch.from_arrays(
                    [columns.get(name, pa.nulls(size)) for name in names], names=list(names)
                ).cast(_schema(rows, by, names))

    return add


def _schema(rows: pa.RecordBatch, by: Sequence[str], names: Sequence[str]) -> pa.Schema:
    """Spark takes columns of nothing for no type at all, so each gets its own."""
    types = {name: rows.schema.field(name).type for name in (*by, "user_id", "item_id")}
    whole = ("n", "shown", "first")
    for name in names[len(types) :]:
        is_whole = name in whole or name.startswith(("hits_", "shown_"))
        types[name] = pa.int64() if is_whole else pa.float64()
    return pa.schema([(name, types[name]) for name in names])


def whole_lists(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in the same order, cut where the list's hash changes: no list is torn."""
    torn: list[pa.RecordBatch] = []
    for batch in batches:
        rows = pa.Table.from_batches([*torn, batch]).combine_chunks().to_batches()[0]
        hashes = rows.column(_LIST).to_numpy()
        last = int(np.flatnonzero(hashes != hashes[-1])[-1]) + 1 if hashes[0] != hashes[-1] else 0
        torn = [rows.slice(last)]
        if last:
            yield rows.slice(0, last)
    yield from torn


@dataclass(frozen=True)
class Slots:
    """The items of whole lists, by list and position; what was not shown comes last, at position 0.

    row: where the item stands among the rows that came; of: the number of its list from 0; looks: popularity
    and novelty of the item by name.
    """

    row: NDArray[np.int64]
    of: NDArray[np.int64]
    position: NDArray[np.int64]
    is_wanted: NDArray[np.bool_]
    wanted_so_far: NDArray[np.int64]
    looks: dict[str, NDArray[np.float64]]


def slots_of(rows: pa.RecordBatch, by: Sequence[str], described: Sequence[str], *, depth: int) -> Slots:
    listed = np.zeros(rows.num_rows, np.int64)
    for name in (*by, "user_id"):
        codes, distinct = _codes(rows.column(name))
        listed = _dense(listed * distinct + codes)
    item, _ = _codes(rows.column("item_id"))
    given = rows.column("rank")
    rank = np.where(
        given.is_valid().to_numpy(zero_copy_only=False),
        pc.fill_null(given, 0).to_numpy().astype(np.int64),
        _NEVER,
    )
    # Each item of a list once, with its best rank.
    order = np.lexsort((rank, item, listed))
    is_first = _changes(listed[order], item[order])
    at = np.flatnonzero(is_first)
    is_wanted = np.logical_or.reduceat(rank[order] == _NEVER, at)
    row = order[at]
    order = np.lexsort((item[row], rank[row], listed[row]))
    row, is_wanted = row[order], is_wanted[order]
    best, starts = rank[row], _changes(listed[row])
    of = np.cumsum(starts) - 1
    start = np.flatnonzero(starts)[of]
    number = np.arange(row.size) - start + 1
    # The recursion position_i = max(rank_i, position_(i-1) + 1) is i + running maximum of (rank_j - j).
    apart = of * (4 * _NEVER)
    pushed = number + np.maximum.accumulate(best - number + apart) - apart
    so_far = np.cumsum(is_wanted)
    return Slots(
        row=row,
        of=of,
        position=np.where((best < _NEVER) & (pushed <= depth), pushed, 0),
        is_wanted=is_wanted,
        wanted_so_far=so_far - so_far[start] + is_wanted[start],
        looks={name: rows.column(name).to_numpy(zero_copy_only=False)[row] for name in described},
    )


def _codes(column: pa.Array) -> tuple[NDArray[np.int64], int]:
    """Numbers in the order of the values, and how many there are."""
    encoded = column.dictionary_encode()
    places = np.empty(len(encoded.dictionary), np.int64)
    places[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(places.size)
    return places[encoded.indices.to_numpy()], max(places.size, 1)


def _dense(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same order with numbers from 0 on, so that no product of several overflows."""
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def _changes(*columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a row differs from the one before it; the first does."""
    changed = np.zeros(columns[0].size, np.bool_)
    changed[0] = True
    for values in columns:
        changed[1:] |= values[1:] != values[:-1]
    return changed


def _of_users(
    slots: Slots, rows: pa.RecordBatch, by: Sequence[str], ks: Sequence[int], discounts: NDArray[np.float64]
) -> dict[str, pa.Array]:
    size = int(slots.of[-1]) + 1
    is_shown = slots.position > 0
    is_hit = slots.is_wanted & is_shown

    def total(weights: Any) -> NDArray[Any]:
        # Added one after the other, from the top of the list: the same bits in whatever batch.
        return np.bincount(slots.of, weights=weights, minlength=size)

    hits = np.flatnonzero(is_hit)
    first = np.zeros(size, np.int64)
    first[slots.of[hits][::-1]] = slots.position[hits][::-1]
    head = pa.array(slots.row[np.flatnonzero(_changes(slots.of))])
    columns: dict[str, pa.Array] = {name: rows.column(name).take(head) for name in (*by, "user_id")}
    columns |= {
        "item_id": pa.nulls(size, rows.schema.field("item_id").type),
        "n": pa.array(total(slots.is_wanted).astype(np.int64)),
        "shown": pa.array(total(is_shown).astype(np.int64)),
        "first": pa.array(first, mask=first == 0),
    }
    gain = np.where(is_hit, discounts[np.maximum(slots.position, 1) - 1], 0.0)
    precision = np.where(is_hit, slots.wanted_so_far / np.maximum(slots.position, 1), 0.0)
    for k in ks:
        within = is_shown & (slots.position <= k)
        columns[f"hits_{k}"] = pa.array(total(is_hit & within).astype(np.int64))
        columns[f"dcg_{k}"] = pa.array(total(np.where(within, gain, 0.0)))
        columns[f"ap_{k}"] = pa.array(total(np.where(within, precision, 0.0)))
        for name, values in slots.looks.items():
            is_known = within & ~np.isnan(values)
            sums, known = total(np.where(is_known, values, 0.0)), total(is_known)
            mean = sums / np.maximum(known, 1)
            columns[f"{name}@{k}"] = pa.array(mean, mask=known == 0)
    return columns


def _of_items(
    slots: Slots, rows: pa.RecordBatch, by: Sequence[str], ks: Sequence[int]
) -> dict[str, pa.Array]:
    shown = np.flatnonzero(slots.position > 0)
    row, position = slots.row[shown], slots.position[shown]
    codes = np.zeros(row.size, np.int64)
    for name in (*by, "item_id"):
        code, distinct = _codes(rows.column(name).take(pa.array(row)))
        codes = _dense(codes * distinct + code) if row.size else codes
    _, head, of = np.unique(codes, return_index=True, return_inverse=True)
    first = pa.array(row[head])
    columns: dict[str, pa.Array] = {name: rows.column(name).take(first) for name in (*by, "item_id")}
    columns["user_id"] = pa.nulls(head.size, rows.schema.field("user_id").type)
    for k in ks:
        counts = np.bincount(of, weights=position <= k, minlength=head.size)
        columns[f"shown_{k}"] = pa.array(counts.astype(np.int64))
    return columns
