"""What a search for the blend's weights tries them on: few items a user, with every component's score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from recsys_spark.names import COMPONENTS, HISTORY
from recsys_spark.ranking.arrow import users_at_once
from recsys_spark.ranking.blend import ScaledUsers, Variant
from recsys_spark.ranking.catalogue import Catalogue
from recsys_spark.ranking.kernel.select import Csr, select
from recsys_spark.ranking.lists import plain_scores, user_batch, user_rows
from recsys_spark.ranking.shared_items import LoadedItems, SharedItems
from recsys_spark.runtime.batches import gathered

CANDIDATES_SCHEMA = "task string, user_id string, pairs int, items array<int>, scores array<float>"


def candidates(
    users: DataFrame,
    *,
    preferences: DataFrame,
    user_factors: DataFrame,
    catalogue: Catalogue,
    starts: Sequence[Variant],
    n: int,
    partitions: int,
) -> DataFrame:
    """One row per user and task of `starts`: the first n items of each component alone, and of the start.

    items: item_index, ascending. scores: for each of them all standardised scores in the order of COMPONENTS,
        before any weight. pairs: how many of the items known the user has a preference for.

    Blends are compared on these items only. That is close to the whole catalogue as long as what leads a
    blend is among the first n of some part of it. The lists themselves are always ranked over everything.

    users: (user_id, unique).
    preferences: unique (user_id, item_id, strength), as `user_rows` takes them.
    user_factors: (user_id, factors).
    catalogue: what may be ranked, not narrowed by candidates.
    starts: the blends that a search begins with, one for each task.
    n: how many items each component and the start give, from 1.
    partitions: of users, how many tasks rank.
    """
    spark = users.sparkSession
    scaling = spark.sparkContext.broadcast(catalogue.scaling)
    emit = _emitter(catalogue.shared, scaling, tuple(starts), catalogue.rank, n)
    rows = user_rows(users, preferences=preferences, user_factors=user_factors, index=catalogue.index)
    return rows.repartition(partitions, "user_id").mapInArrow(emit, CANDIDATES_SCHEMA)


def _emitter(
    shared: SharedItems, scaling: Any, starts: tuple[Variant, ...], rank: int, n: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def emit(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items = shared.load()
        words = Csr(*(items.extra[f"words_{part}"] for part in ("indptr", "indices", "values")))
        for batch in gathered(batches, users_at_once(shared.outline.n_shards)):
            users = ScaledUsers.of(user_batch(batch, shared.n_items, rank), words, scaling.value)
            for start in starts:
                yield _rows(batch.column("user_id"), users, start, items, rank, n)

    return emit


def _rows(
    user_ids: pa.Array, users: ScaledUsers, start: Variant, items: LoadedItems, rank: int, n: int
) -> pa.RecordBatch:
    row, item = _leading(users, start, items, n)
    counts = np.bincount(row, minlength=len(user_ids))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    # The kernel scores tables, so each user's items are laid out as a row, -1 where there are fewer.
    table = np.full((len(user_ids), int(counts.max(initial=0))), -1, np.int32)
    place = np.arange(row.size) - offsets[row]
    table[row, place] = item
    everything = Variant(start.task, start.model, dict.fromkeys(COMPONENTS, 1.0))
    given = plain_scores(items, users, everything, table, rank)
    scores = np.column_stack([given[name][row, place] for name in COMPONENTS]).astype(np.float32)
    return pa.RecordBatch.from_arrays(
        [
            pa.repeat(pa.scalar(start.task), len(user_ids)),
            user_ids,
            pa.array(users.pairs.astype(np.int32)),
            pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(item)),
            pa.ListArray.from_arrays(
                pa.array((offsets * len(COMPONENTS)).astype(np.int32)), pa.array(scores.ravel())
            ),
        ],
        names=["task", "user_id", "pairs", "items", "scores"],
    )


def _leading(
    users: ScaledUsers, start: Variant, items: LoadedItems, n: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(row, item) of all that lead by some component or the start, each pair once, ascending.

    What a component gives nothing to does not lead by it.
    """
    alone = [
        Variant(start.task, name, {other: float(other == name) for other in COMPONENTS})
        for name in COMPONENTS
        if start.repeats_allowed or name != HISTORY
    ]
    keys = []
    for variant in (*alone, start):
        index, score = select(items.shards, users.parts(variant), n)
        row, place = np.nonzero((index >= 0) & (score > 0))
        keys.append((row << 32) | index[row, place])
    distinct = np.unique(np.concatenate(keys))
    return distinct >> 32, (distinct & 0x7FFFFFFF).astype(np.int32)
