"""What all trainers of factors take and give."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from recsys_spark.data.ids import dense_index
from recsys_spark.errors import NothingToLearnError
from recsys_spark.runtime.broadcasts import broadcast_if_small
from recsys_spark.runtime.checkpoints import checkpointed


@dataclass(frozen=True)
class Iteration:
    """The loss after so many iterations, nan where there is none, and the seconds since the fit began."""

    iteration: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class Factors:
    """users: (user_index, user_id, factors); items: (item_index, item_id, factors), float32 arrays.

    history: the loss of each iteration whose loss is known, the last one always.
    """

    users: DataFrame
    items: DataFrame
    history: tuple[Iteration, ...] = ()


@dataclass(frozen=True)
class IndexedPairs:
    """users: (user_index, user_id); items: (item_index, item_id); pairs: (user_index, item_index, strength).

    Indexes are the rank of the sorted ids: 0 … n_users − 1 and 0 … n_items − 1, each with a pair.
    """

    users: DataFrame
    items: DataFrame
    pairs: DataFrame
    n_users: int
    n_items: int
    n_pairs: int


def index_pairs(preferences: DataFrame) -> IndexedPairs:
    """The pairs of `preferences` (user_id, item_id, strength; unique) by index.

    Raises NothingToLearnError without any.
    """
    users = dense_index(preferences, id_column="user_id", index_column="user_index")
    items = dense_index(preferences, id_column="item_id", index_column="item_index")
    n_users, n_items = users.count(), items.count()
    if n_users == 0:
        raise NothingToLearnError(
            "als: there are no preferences to learn from. Expected events up to the run date with a weight "
            "in preferences.event_weights. Next: check the interactions source and the run date."
        )
    pairs = (
        preferences.join(broadcast_if_small(users, n_users), on="user_id", how="inner")
        .join(broadcast_if_small(items, n_items), on="item_id", how="inner")
        .select("user_index", "item_index", F.col("strength").cast("float").alias("strength"))
    )
    # Read by each side, and for the loss: texts are looked up once, and the pairs counted meanwhile.
    counted = Observation()
    pairs = checkpointed(pairs.observe(counted, F.count(F.lit(1)).alias("pairs")))
    return IndexedPairs(users, items, pairs, n_users, n_items, int(counted.get["pairs"]))
