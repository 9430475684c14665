"""Top-K lists of users over the catalogue, for one or many variants of the blend in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.errors import ConfigError
from recsys_spark.names import (
    ALS,
    COLD_ITEM,
    COMPONENTS,
    CONTENT,
    HISTORY,
    POPULARITY,
    POPULARITY_GROUP,
    TRIAL,
)
from recsys_spark.ranking.arrow import csr_of, maps_of, users_at_once
from recsys_spark.ranking.blend import ScaledUsers, UserBatch, Variant, group_weight
from recsys_spark.ranking.catalogue import Catalogue, catalogue_of
from recsys_spark.ranking.goes_with import Companions
from recsys_spark.ranking.kernel.caps import Cap, select_capped
from recsys_spark.ranking.kernel.select import Csr, component_scores
from recsys_spark.ranking.newcomers import LoadedNewcomers, with_newcomers
from recsys_spark.ranking.shared_items import LoadedItems, SharedItems
from recsys_spark.runtime.batches import gathered
from recsys_spark.runtime.broadcasts import broadcast_if_small
from recsys_spark.runtime.ranges import in_ranges

__all__ = ["LISTS_SCHEMA", "Catalogue", "catalogue_of", "lists", "user_rows"]

LISTS_SCHEMA = (
    "task string, model string, user_id string, rank int, item_id string, score double, "
    "component_scores map<string,double>, source string, min_pairs int"
)
NAMES = (*COMPONENTS, POPULARITY_GROUP)
_COLUMNS = ("task", "model", "user_id", "rank", "item_id", "score", "component_scores", "source", "min_pairs")
# The kernel's names for the parts of a score, and ours.
_PARTS = {
    ALS: ALS,
    POPULARITY: POPULARITY,
    TRIAL: TRIAL,
    "sparse": CONTENT,
    "additive": HISTORY,
    "group": POPULARITY_GROUP,
}


def lists(
    users: DataFrame,
    *,
    preferences: DataFrame,
    user_factors: DataFrame,
    catalogue: Catalogue,
    variants: Sequence[Variant],
    k: int,
    partitions: int,
    exclude: DataFrame | None = None,
    caps: Mapping[str, int] | None = None,
    carried: Sequence[str] = (),
    in_order: bool = False,
    companions: Companions | None = None,
) -> DataFrame:
    """The top k of every variant for every user; see LISTS_SCHEMA.

    Order is score descending, item_id ascending. The result does not depend on partitions or shards. A user
    whose candidates run out gets a short list. component_scores holds each weighing component's standardised
    score before its weight. source is the component that gave the slot most of its score (`sources`).
    min_pairs is the bin of the user's weights, which their number of preferences for items known decides
    (`Variant.longer`).

    One pass: at most U·I·(d + 2 + G) multiply-adds per variant, G groups with a popularity of their own, plus
    the words of the users' profiles. Another pass goes over the newcomers where places are kept for them.
    Memory of a task: a batch of users, the kernel's tiles and one shard of items. A batch is 2,048 users, or
    16,384 where items come in shards, and at most 64 MB of rows. Memory does not grow with users, nor with
    anyone's history beyond their row.

    users: (user_id, unique). A column group (string) is for the catalogue's forbidden items; null or an
        unknown group may get everything. A column popularity_group (string) says whose popularity a user with
        neither factors nor a history gets, which component_scores name `popularity_group`. Null or an unknown
        group gets everyone's.
    preferences: unique (user_id, item_id, strength); is_excluded marks pairs that must not come back, fade is
        what is left of a pair's history.
    user_factors: (user_id, factors), arrays of the catalogue's rank.
    catalogue: what may be ranked.
    variants: each gives every user a list.
    k: places of a list, from 1.
    partitions: of users, how many tasks rank.
    exclude: (user_id, item_id), what must not come back whatever the variant (sent lately); None: nothing
        more.
    caps: label column of the catalogue -> at most so many items of one label in a list. A list is what
        walking the whole ranking from the top and taking what the caps allow gives; its first j places are
        the list of j. Where a variant keeps places for newcomers (`with_newcomers`; their source is
        cold_item), that holds of the places before them.
    carried: columns of `users` that each of a user's rows repeats; a join afterwards would shuffle all lists.
    in_order: partitions are ranges of user_id, their rows sorted by it: a sort of users here, none of lists
        later.
    companions: of a catalogue without candidates; adds goes_with, the title of what the slot goes with among
        what the user has, null for nothing. None: no such column.

    Raises ConfigError for a cap below 1, or by a label that the catalogue does not have.
    """
    limits = dict(caps or {})
    for name, at_most in limits.items():
        if name not in catalogue.labels or at_most < 1:
            known = ", ".join(catalogue.labels) or "none"
            raise ConfigError(f"cap {name} = {at_most}: expected 1 or more, of a label among: {known}.")
    spark = users.sparkSession
    scaling = spark.sparkContext.broadcast(catalogue.scaling)
    new = None
    if catalogue.newcomers is not None and any(variant.newcomers > 0 for variant in variants):
        new = catalogue.newcomers.shared, spark.sparkContext.broadcast(catalogue.newcomers.scaling)
    score = _scorer(
        catalogue.shared, scaling, new, tuple(variants), catalogue.rank, k, limits, tuple(carried), companions
    )
    rows = user_rows(
        users,
        preferences=preferences,
        user_factors=user_factors,
        index=catalogue.index,
        exclude=exclude,
        carried=carried,
    )
    rows = _grouped(rows, users, catalogue)
    more = [f"{name} {users.schema[name].dataType.simpleString()}" for name in carried]
    more += ["goes_with string"] if companions is not None else []
    if in_order:
        spread = in_ranges(rows, ["user_id"], keys=users, partitions=partitions).sortWithinPartitions(
            "user_id"
        )
    else:
        spread = rows.repartition(partitions, "user_id")
    return spread.mapInArrow(score, ", ".join([LISTS_SCHEMA, *more]))


def user_rows(
    users: DataFrame,
    *,
    preferences: DataFrame,
    user_factors: DataFrame,
    index: DataFrame,
    exclude: DataFrame | None = None,
    carried: Sequence[str] = (),
) -> DataFrame:
    """One row per user: carried, factors (null where none), and by item_index the history as parallel arrays.

    seen_items, strengths and, where preferences have it, fades are in the order of the items. What the user
    may not get is `excluded`, likewise by item_index.

    users: (user_id, unique), and what is carried.
    preferences: unique (user_id, item_id, strength); is_excluded marks pairs that must not come back, fade is
        what is left of a pair's history. Pairs of items that `index` lacks fall away.
    user_factors: (user_id, factors).
    index: (item_id, item_index) of the items known.
    exclude: (user_id, item_id), what must not come back besides; None: nothing.
    carried: columns of `users` to keep.
    """
    asked = broadcast_if_small(users.select("user_id"), users.count())
    known = preferences.join(F.broadcast(index), on="item_id", how="inner").join(
        asked, "user_id", "left_semi"
    )
    is_excluded = F.col("is_excluded") if "is_excluded" in preferences.columns else F.lit(False)
    fade = ["fade"] if "fade" in preferences.columns else []
    histories = (
        known.groupBy("user_id")
        .agg(
            F.sort_array(F.collect_list(F.struct("item_index", "strength", *fade))).alias("seen"),
            F.collect_list(F.when(is_excluded, F.col("item_index"))).alias("excluded"),
        )
        .select(
            "user_id",
            F.col("seen.item_index").alias("seen_items"),
            F.col("seen.strength").alias("strengths"),
            *[F.col("seen.fade").alias("fades") for _ in fade],
            "excluded",
        )
    )
    rows = (
        users.select("user_id", *carried)
        .join(histories, on="user_id", how="left")
        .join(user_factors.select("user_id", "factors"), on="user_id", how="left")
    )
    if exclude is None:
        return rows
    more = (
        exclude.join(F.broadcast(index), on="item_id", how="inner")
        .groupBy("user_id")
        .agg(F.collect_set("item_index").alias("more"))
    )
    both = F.array_union(*[F.coalesce(name, F.array().cast("array<int>")) for name in ("excluded", "more")])
    return rows.join(more, on="user_id", how="left").withColumn("excluded", both).drop("more")


def _grouped(rows: DataFrame, users: DataFrame, catalogue: Catalogue) -> DataFrame:
    """Adds group_index, the row of the mask that holds for the user: the last one allows everything.

    And popularity_index, the group whose popularity may carry the user, -1 for none.
    """
    numbers = []
    if catalogue.groups:
        numbers.append(_number("group", catalogue.groups, len(catalogue.groups)).alias("group_index"))
    if catalogue.popularity_groups and POPULARITY_GROUP in users.columns:
        number = _number(POPULARITY_GROUP, catalogue.popularity_groups, -1)
        numbers.append(number.alias("popularity_index"))
    return rows.join(users.select("user_id", *numbers), on="user_id", how="inner") if numbers else rows


def _number(column: str, names: Sequence[str], otherwise: int) -> Column:
    known = [F.lit(value) for number, name in enumerate(names) for value in (name, number)]
    return F.coalesce(F.create_map(*known)[F.col(column)], F.lit(otherwise))


def _scorer(
    shared: SharedItems,
    scaling: Any,
    new: tuple[SharedItems, Any] | None,
    variants: tuple[Variant, ...],
    rank: int,
    k: int,
    limits: Mapping[str, int],
    carried: tuple[str, ...],
    companions: Companions | None,
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items = shared.load()
        words = Csr(*(items.extra[f"words_{part}"] for part in ("indptr", "indices", "values")))
        candidate = items.extra.get("candidate")
        known = shared.n_items if candidate is None else candidate.size
        caps = [Cap(items.extra[f"label_{name}"], at_most) for name, at_most in limits.items()]
        newcomers = None if new is None else LoadedNewcomers(new[0].load(), new[1].value)
        for batch in gathered(batches, users_at_once(shared.outline.n_shards)):
            users = ScaledUsers.of(user_batch(batch, known, rank), words, scaling.value, candidate)
            named = None
            if companions is not None:
                seen = csr_of(batch.column("seen_items"), batch.column("strengths"))
                named = partial(companions.named, seen)
            for variant in variants:
                rows = batch.select(["user_id", *carried])
                yield _ranked(rows, users, variant, items, newcomers, caps, rank, k, named)

    return score


def _ranked(
    named: pa.RecordBatch,
    users: ScaledUsers,
    variant: Variant,
    items: LoadedItems,
    newcomers: LoadedNewcomers | None,
    caps: Sequence[Cap],
    rank: int,
    k: int,
    goes_with: Callable[[NDArray[np.int32]], pa.Array] | None = None,
) -> pa.RecordBatch:
    parts = users.parts(variant)
    index, score = select_capped(items.shards, parts, k, caps)
    is_kept = np.zeros(index.shape, np.bool_)
    if newcomers is not None:
        (index, score), is_kept = with_newcomers(
            (index, score), users, parts, items, newcomers, share=variant.newcomers, caps=caps
        )
    chosen = index >= 0
    given = plain_scores(items, users, variant, index, rank)
    row, place = np.nonzero(chosen)
    size = row.size
    scores = {name: given[name][chosen] for name in NAMES if name in given}
    weights = {name: values[row] for name, values in variant.weights_of(users.pairs).items()}
    weights[POPULARITY_GROUP] = np.full(size, group_weight(variant.weights))
    user_ids, *carried = named.take(pa.array(row)).columns
    names = [*_COLUMNS, *named.schema.names[1:]]
    if goes_with is not None:
        carried, names = [*carried, goes_with(index)], [*names, "goes_with"]
    return pa.RecordBatch.from_arrays(
        [
            pa.repeat(pa.scalar(variant.task), size),
            pa.repeat(pa.scalar(variant.model), size),
            user_ids,
            pa.array(place.astype(np.int32) + 1),
            items.ids.take(pa.array(index[chosen])).cast(pa.string()),
            pa.array(score[chosen]),
            maps_of(scores, size),
            pc.if_else(pa.array(is_kept[chosen]), COLD_ITEM, sources(scores, weights)),
            pa.array(variant.bin_of(users.pairs)[row]),
            *carried,
        ],
        names=names,
    )


def sources(
    scores: Mapping[str, NDArray[np.float64]], weights: Mapping[str, NDArray[np.float64]]
) -> pa.Array:
    """The name of what gave each slot most: of each score [n] times its weight [n] the largest.

    nan counts as 0, ties fall to the name that comes first in NAMES. A slot to which nothing gave anything
    is popularity's.
    """
    size = next(iter(weights.values())).size
    most, at = np.zeros(size), np.full(size, NAMES.index(POPULARITY))
    for place, name in enumerate(NAMES):
        if name in scores:
            given = np.nan_to_num(scores[name] * weights[name])
            at, most = np.where(given > most, place, at), np.maximum(given, most)
    return pa.array(NAMES).take(pa.array(at))


def plain_scores(
    items: LoadedItems, users: ScaledUsers, variant: Variant, index: NDArray[np.int32], rank: int
) -> dict[str, NDArray[np.float64]]:
    """Standardised scores before any weight of the variant's components, float64 [U, k], nan where no item
    is.

    A user who is carried by a group has a score of its popularity and none, nan, of popularity and trial. All
    others have none of a group.

    items: what is ranked.
    users: U of them.
    variant: its components are scored.
    index: int32 [U, k], the items to score, -1 for none.
    rank: how many dimensions are of ALS.
    """
    slices = {ALS: slice(0, rank), POPULARITY: slice(rank, rank + 1), TRIAL: slice(rank + 1, rank + 2)}
    slices["group"] = slice(rank + 2, rank + users.counts.size)
    given = component_scores(items.shards, users.parts(variant.plain), index, slices)
    is_carried = users.carried_by >= 0
    given[POPULARITY][is_carried] = given[TRIAL][is_carried] = given["group"][~is_carried] = np.nan
    named = (*variant.components, POPULARITY_GROUP)
    return {name: given[part] for part, name in _PARTS.items() if name in named}


def user_batch(batch: pa.RecordBatch, n_items: int, rank: int) -> UserBatch:
    seen = csr_of(batch.column("seen_items"), batch.column("strengths"))
    factors = np.zeros((batch.num_rows, rank))
    known = batch.column("factors").is_valid().to_numpy(zero_copy_only=False)
    flat = batch.column("factors").flatten().to_numpy(zero_copy_only=False)
    factors[known] = flat.reshape(-1, rank) if rank else factors[known]
    names = batch.schema.names
    fade = None
    if "fades" in names:
        fade = batch.column("fades").flatten().to_numpy(zero_copy_only=False)
    return UserBatch(
        factors,
        sparse.csr_matrix((seen.values, seen.indices, seen.indptr), shape=(batch.num_rows, n_items)),
        fade=fade,
        excluded=csr_of(batch.column("excluded")),
        group=batch.column("group_index").to_numpy() if "group_index" in names else None,
        popularity_group=batch.column("popularity_index").to_numpy() if "popularity_index" in names else None,
    )
