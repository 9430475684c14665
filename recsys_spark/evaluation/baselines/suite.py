"""Which baselines there are, and all their lists as one frame beside the hybrid's and the components'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from scipy import sparse

from recsys_spark.evaluation.baselines import item2vec, latent, nearest, rated, simple
from recsys_spark.evaluation.baselines.known import (
    PAIR_COLUMNS,
    RATING,
    Known,
    dense_rows,
    known_of,
    require_driver_size,
)
from recsys_spark.evaluation.baselines.scored import Scorer, model_lists
from recsys_spark.models.als.linear import item_vectors
from recsys_spark.names import TASKS

_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("model", pa.string()),
        ("user_id", pa.string()),
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float64()),
    ]
)
# A model is made when its turn comes and let go after it: one at a time is in memory.
Models = dict[str, Callable[[], Scorer]]


@dataclass(frozen=True)
class Learnt:
    """What the night's own training left: factors (user_id or item_id, factors), words, recent counts.

    `events` are those that the models may know, with basket_id.
    """

    user_factors: DataFrame
    item_factors: DataFrame
    vectors: DataFrame
    popularity: DataFrame
    events: DataFrame


def collected(preferences: DataFrame, *, items: DataFrame, judged: DataFrame) -> Known:
    """`Known` of preferences, items (item_id) and judged users (user_id), on the driver.

    ConfigError where there are more pairs than that is meant for.
    """
    require_driver_size(preferences.count())
    pairs = preferences.select(*PAIR_COLUMNS, RATING).toArrow()
    return known_of(
        pairs,
        items=items.select("item_id").toArrow().column("item_id"),
        judged=judged.select("user_id").toArrow().column("user_id"),
    )


def models_of_pairs(known: Known, *, seed: int) -> tuple[Models, tuple[str, ...]]:
    """The baselines that need pairs only, by name, and a sentence for each one that is left out."""
    models: Models = {
        "random": partial(simple.at_random, known, seed=seed),
        "popularity_ever": partial(simple.popularity, known),
        "item_knn": partial(nearest.item_knn, known),
        "item_knn_cosine": partial(nearest.item_knn, known, weights=nearest.plain),
        "user_knn": partial(nearest.user_knn, known),
        "user_knn_cosine": partial(nearest.user_knn, known, weights=nearest.plain),
        "svd": partial(latent.svd, known),
    }
    if latent.has_bpr():
        return {**models, "bpr": partial(latent.bpr, known, seed=seed)}, ()
    note = (
        "bpr is left out: the library implicit is not installed. Next: pip install 'recsys-spark[baselines]'"
    )
    return models, (note,)


def models_of_night(known: Known, learnt: Learnt, *, seed: int) -> tuple[Models, tuple[str, ...]]:
    """All baselines, and a sentence for each one that is left out."""
    models, notes = models_of_pairs(known, seed=seed)
    beside: Models = {
        "popularity_recent": lambda: simple.recent_popularity(
            known, learnt.popularity.select("item_id", "users").toArrow()
        ),
        "frequency": partial(simple.personal_frequency, known),
        "als_plus_tfidf": lambda: _raw_sum(known, learnt),
        "item2vec": lambda: item2vec.item2vec(
            known, item_vectors(learnt.events, size=item2vec.SIZE, seed=seed)
        ),
    }
    if known.ratings.nnz:
        beside |= {name: partial(make, known) for name, make in rated.PEARSON.items()}
    return {**models, **beside}, notes


def all_lists(
    spark: SparkSession, models: Models, known: Known, *, k: int, tasks: Sequence[str] = TASKS
) -> DataFrame:
    """(task, model, user_id, rank, item_id, score): the top k of every model for the judged users.

    One model after the other is made, asked and let go; all their lists are on the driver at once.

    spark: the session that the frame is of.
    models: what makes each model's scorer, by the name that its rows carry.
    known: users, items and pairs as of the cutoff; its `judged` users get a list of its `rankable` items.
    k: places of a list, from 1.
    tasks: some of TASKS; a user gets a list for each.
    """
    batches = [
        batch for name, make in models.items() for batch in model_lists(name, make(), known, k=k, tasks=tasks)
    ]
    return spark.createDataFrame(pa.Table.from_batches(batches, schema=_SCHEMA))


def _raw_sum(known: Known, learnt: Learnt) -> Scorer:
    users = dense_rows(
        learnt.user_factors.select("user_id", "factors").toArrow(), id_column="user_id", ids=known.user_ids
    )
    items = dense_rows(
        learnt.item_factors.select("item_id", "factors").toArrow(), id_column="item_id", ids=known.item_ids
    )
    return latent.raw_sum(known, users=users, items=items, words=_words(known, learnt.vectors))


def _words(known: Known, vectors: DataFrame) -> sparse.csr_matrix:
    """[I, V] TF-IDF vectors at their items' places."""
    table = vectors.select("item_id", "terms", "weights").toArrow()
    place = pc.index_in(table.column("item_id").combine_chunks().cast(pa.string()), value_set=known.item_ids)
    table = table.append_column("place", place).filter(pc.is_valid(place))
    terms = table.column("terms").combine_chunks()
    item = np.repeat(table.column("place").to_numpy(), pc.list_value_length(terms).to_numpy())
    term = terms.flatten().to_numpy()
    weight = table.column("weights").combine_chunks().flatten().to_numpy().astype(np.float64)
    width = int(term.max(initial=0)) + 1
    return sparse.csr_matrix((weight, (item, term)), shape=(len(known.item_ids), width))
