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
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.evaluation.metrics.diversity import Vectors, diversities, places_in, shown_vectors
from recsys_spark.evaluation.metrics.list_metrics import most_popular, with_popularity
from recsys_spark.evaluation.metrics.slots import Slots, changes, codes_of, dense, slots_of
from recsys_spark.runtime.batches import gathered

_AT_ONCE = 65_536  # rows that a worker holds as arrays
_LIST = "list_hash"


def tally(
    lists: DataFrame,
    relevant: DataFrame,
    *,
    ks: Sequence[int],
    by: Sequence[str],
    discounts: Sequence[float],
    item_popularity: DataFrame | None,
    item_vectors: DataFrame | None = None,
    rare: Sequence[float] = (),
    at_once: int = _AT_ONCE,
) -> DataFrame:
    """One row is one user in one group of lists (item_id null), or one item in one (user_id null).

    Of a user, in any case:

        n        how many items are wanted
        shown    how many slots hold an item
        first    the position of the first hit, null for none
        hits_k   hits within k
        dcg_k    sum of the discounts of their positions
        ap_k     sum of precision at them

    With item_popularity also surprises_k, the hits that are not among the k most popular items. Further the
    means mean_popularity@k and novelty@k, null where nothing is shown. With item_vectors also diversity@k,
    null where fewer than two items have words. With `rare` bounds, n_rare and dcg_rare at the place of each
    are n and dcg by those wanted items alone that are less popular.

    Of an item: shown_k, in how many lists it was within k. An item has several rows, to be added up.

    Every user with a wanted item has a row in every group. A list's items get positions from their best
    ranks. Each is pushed down where an earlier item, by rank and then by item_id, already holds it: no
    position and no item occurs twice. Sums have one order, so no partition changes a bit.

    Memory of a task: `at_once` rows and those of one list, and the vectors of what is shown, which this
    collects.

    lists: (*by, user_id, item_id, rank from 1), no id null; read more than once.
    relevant: (user_id, item_id), and those columns of `by` that it is split by: what is wanted.
    ks: lengths at which lists are judged, distinct, from 1.
    by: the columns of `lists` that name a group of lists; their values are not null.
    discounts: what a hit is worth at each position from 1 to the largest k.
    item_popularity: (item_id, popularity), one row an item, a count or a share; or None.
    item_vectors: (item_id, terms, weights), one row an item: its TF-IDF vector; or None.
    rare: bounds in the unit of popularity; without item_popularity they count for nothing.
    at_once: rows that a worker holds as arrays, from 1.

    The action fails on a rank that is below 1 or null.
    """
    shared = [name for name in by if name in relevant.columns]
    truth = relevant.select(*shared, "user_id", "item_id")
    groups = F.broadcast(lists.select(*by).distinct())
    truth = truth.join(groups, on=shared, how="inner") if shared else truth.crossJoin(groups)
    rows = _within(lists, by=by, depth=max(ks)).unionByName(truth, allowMissingColumns=True)
    if item_popularity is not None:
        rows = with_popularity(rows, item_popularity=item_popularity)
        popular = most_popular(item_popularity, depth=max(ks))
        rows = rows.join(F.broadcast(popular), on="item_id", how="left")
    vectors = None if item_vectors is None else shown_vectors(item_vectors, lists)
    asked = _Asked(
        by=tuple(by),
        ks=tuple(ks),
        discounts=np.asarray(discounts),
        has_popularity=item_popularity is not None,
        rare=tuple(rare) if item_popularity is not None else (),
        vectors=None if vectors is None else lists.sparkSession.sparkContext.broadcast(vectors),
    )
    # Sorted by one column of eight bytes: Spark then compares nothing, and a worker finds lists side by side.
    together = (
        rows.withColumn(_LIST, F.xxhash64(*by, "user_id")).repartition(_LIST).sortWithinPartitions(_LIST)
    )
    named = (*by, "user_id", "item_id")
    types = ", ".join(f"{name} {lists.schema[name].dataType.simpleString()}" for name in named)
    return together.mapInArrow(_adder(asked, at_once), f"{types}, {', '.join(_figures(asked))}")


@dataclass(frozen=True)
class _Asked:
    """What the workers are to add up: groups, list lengths, gains by position, and what is known of items."""

    by: tuple[str, ...]
    ks: tuple[int, ...]
    discounts: NDArray[np.float64]
    has_popularity: bool
    rare: tuple[float, ...]
    vectors: Broadcast[Vectors] | None

    @property
    def means(self) -> tuple[str, ...]:
        return ("mean_popularity", "novelty") if self.has_popularity else ()

    @property
    def looks(self) -> tuple[str, ...]:
        return (*self.means, "popular_place") if self.has_popularity else ()


def _within(lists: DataFrame, *, by: Sequence[str], depth: int) -> DataFrame:
    """The rows of rank 1 to `depth`; the action fails on a rank that cannot be one."""
    rank = F.col("rank").cast("int")
    got = F.concat(F.lit("lists.rank counts from 1, got "), F.coalesce(rank.cast("string"), F.lit("null")))
    checked = F.when(rank >= 1, rank).otherwise(F.raise_error(got))
    return lists.select(*by, "user_id", "item_id", checked.alias("rank")).where(F.col("rank") <= depth)


def _figures(asked: _Asked) -> list[str]:
    """The figures' names and types, those of a user before those of an item."""
    of_user = ["n bigint", "shown bigint", "first bigint"]
    for k in asked.ks:
        of_user += [f"hits_{k} bigint", f"dcg_{k} double", f"ap_{k} double"]
        of_user += [f"`{name}@{k}` double" for name in asked.means]
        of_user += [f"surprises_{k} bigint"] if asked.has_popularity else []
        of_user += [f"`diversity@{k}` double"] if asked.vectors else []
        of_user += [f"dcg_rare_{place}_{k} double" for place in range(len(asked.rare))]
    of_user += [f"n_rare_{place} bigint" for place in range(len(asked.rare))]
    return [*of_user, *[f"shown_{k} bigint" for k in asked.ks]]


def _adder(asked: _Asked, at_once: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    by = asked.by
    names = (*by, "user_id", "item_id", *[name.split()[0].strip("`") for name in _figures(asked)])

    def add(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in whole_lists(gathered(batches, at_once)):
            slots = slots_of(rows, by, asked.looks, depth=max(asked.ks))
            for columns in (_of_users(slots, rows, asked), _of_items(slots, rows, by, asked.ks)):
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
        is_whole = name in whole or name.startswith(("hits_", "shown_", "surprises_", "n_rare_"))
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


def _of_users(slots: Slots, rows: pa.RecordBatch, asked: _Asked) -> dict[str, pa.Array]:
    size = int(slots.of[-1]) + 1
    is_shown = slots.position > 0
    is_hit = slots.is_wanted & is_shown
    total = _adding(slots.of, size)
    hits = np.flatnonzero(is_hit)
    first = np.zeros(size, np.int64)
    first[slots.of[hits][::-1]] = slots.position[hits][::-1]
    head = pa.array(slots.row[np.flatnonzero(changes(slots.of))])
    columns: dict[str, pa.Array] = {name: rows.column(name).take(head) for name in (*asked.by, "user_id")}
    columns |= {
        "item_id": pa.nulls(size, rows.schema.field("item_id").type),
        "n": pa.array(total(slots.is_wanted).astype(np.int64)),
        "shown": pa.array(total(is_shown).astype(np.int64)),
        "first": pa.array(first, mask=first == 0),
    }
    gain = np.where(is_hit, asked.discounts[np.maximum(slots.position, 1) - 1], 0.0)
    precision = np.where(is_hit, slots.wanted_so_far / np.maximum(slots.position, 1), 0.0)
    rare = [slots.looks["mean_popularity"] < bound for bound in asked.rare]
    for place, is_rare in enumerate(rare):
        columns[f"n_rare_{place}"] = pa.array(total(slots.is_wanted & is_rare).astype(np.int64))
    for k in asked.ks:
        within = is_shown & (slots.position <= k)
        columns[f"hits_{k}"] = pa.array(total(is_hit & within).astype(np.int64))
        columns[f"dcg_{k}"] = pa.array(total(np.where(within, gain, 0.0)))
        columns[f"ap_{k}"] = pa.array(total(np.where(within, precision, 0.0)))
        if asked.has_popularity:
            is_popular = slots.looks["popular_place"] < k  # not a number, for one that is not: never
            columns[f"surprises_{k}"] = pa.array(total(is_hit & within & ~is_popular).astype(np.int64))
        for name in asked.means:
            values = slots.looks[name]
            is_known = within & ~np.isnan(values)
            sums, known = total(np.where(is_known, values, 0.0)), total(is_known)
            mean = sums / np.maximum(known, 1)
            columns[f"{name}@{k}"] = pa.array(mean, mask=known == 0)
        for place, is_rare in enumerate(rare):
            columns[f"dcg_rare_{place}_{k}"] = pa.array(total(np.where(within & is_rare, gain, 0.0)))
    return columns | _unlikeness(slots, rows, asked, size)


def _adding(of: NDArray[np.int64], size: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Sums by list. Added one after the other, from the top of the list: the same bits in whatever batch."""
    return lambda weights: np.bincount(of, weights=weights, minlength=size)


def _unlikeness(slots: Slots, rows: pa.RecordBatch, asked: _Asked, size: int) -> dict[str, pa.Array]:
    if asked.vectors is None:
        return {}
    vectors = asked.vectors.value
    shown = np.flatnonzero(slots.position > 0)
    position, of = slots.position[shown], slots.of[shown]
    place = places_in(vectors, rows.column("item_id").take(pa.array(slots.row[shown])))
    columns = {}
    for k in asked.ks:
        within = position <= k
        values, has_some = diversities(vectors, place[within], of[within], lists=size)
        columns[f"diversity@{k}"] = pa.array(values, mask=~has_some)
    return columns


def _of_items(
    slots: Slots, rows: pa.RecordBatch, by: Sequence[str], ks: Sequence[int]
) -> dict[str, pa.Array]:
    shown = np.flatnonzero(slots.position > 0)
    row, position = slots.row[shown], slots.position[shown]
    codes = np.zeros(row.size, np.int64)
    for name in (*by, "item_id"):
        code, distinct = codes_of(rows.column(name).take(pa.array(row)))
        codes = dense(codes * distinct + code) if row.size else codes
    _, head, of = np.unique(codes, return_index=True, return_inverse=True)
    first = pa.array(row[head])
    columns: dict[str, pa.Array] = {name: rows.column(name).take(first) for name in (*by, "item_id")}
    columns["user_id"] = pa.nulls(head.size, rows.schema.field("user_id").type)
    for k in ks:
        counts = np.bincount(of, weights=position <= k, minlength=head.size)
        columns[f"shown_{k}"] = pa.array(counts.astype(np.int64))
    return columns
