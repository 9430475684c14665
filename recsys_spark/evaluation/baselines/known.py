"""What a baseline may know: the pairs as of the cutoff, as sparse matrices on the driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.errors import ConfigError
from recsys_spark.models.als.linear import MAX_PAIRS

PAIR_COLUMNS = ("user_id", "item_id", "strength", "events", "is_excluded")
RATING = "rating"  # may be missing, and null where a pair has none


@dataclass(frozen=True)
class Known:
    """U users and I items by the rank of their ids (UTF-8 bytes), and what is known of each pair.

    strength [U, I] float64 holds what there is to learn from (> 0), events [U, I] how often; seen and
    excluded [U, I] are marks; ratings [U, I] are those that were given, a zero among them too. rankable
    bool [I]: what a list may hold. judged int64 [J]: the rows of the users who get a list.
    """

    user_ids: pa.Array
    item_ids: pa.Array
    strength: sparse.csr_matrix
    events: sparse.csr_matrix
    seen: sparse.csr_matrix
    excluded: sparse.csr_matrix
    ratings: sparse.csr_matrix
    rankable: NDArray[np.bool_]
    judged: NDArray[np.int64]

    @property
    def taste(self) -> sparse.csr_matrix:
        """log1p(strength): what a user's history weighs wherever a model adds over it."""
        tamed = self.strength.copy()
        tamed.data = np.log1p(tamed.data)
        return tamed


def require_driver_size(pairs: int) -> None:
    """ConfigError where there are more pairs than the driver takes."""
    if pairs > MAX_PAIRS:
        raise ConfigError(
            f"{pairs:,} pairs of user and item: baselines are computed on the driver, for up to "
            f"{MAX_PAIRS:,}. Next: leave the baselines out, or judge a sample of the users."
        )


def known_of(pairs: pa.Table, *, items: pa.ChunkedArray, judged: pa.ChunkedArray) -> Known:
    """From unique pairs, the ids that may be ranked, and those of the users to be judged.

    Pairs have PAIR_COLUMNS, and RATING where ratings are known.
    """
    require_driver_size(pairs.num_rows)
    user_ids = _ranked_ids([pairs.column("user_id"), judged])
    item_ids = _ranked_ids([pairs.column("item_id"), items])
    users = _places(pairs.column("user_id"), user_ids)
    columns = _places(pairs.column("item_id"), item_ids)
    shape = (len(user_ids), len(item_ids))
    strength = pairs.column("strength").to_numpy()
    is_learnt = strength > 0
    is_excluded = pairs.column("is_excluded").to_numpy().astype(np.bool_)
    rankable = np.zeros(shape[1], np.bool_)
    rankable[_places(items, item_ids)] = True

    def matrix(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> sparse.csr_matrix:
        made = sparse.csr_matrix((values[chosen], (users[chosen], columns[chosen])), shape=shape)
        made.sort_indices()
        return made

    ones = np.ones(users.size)
    ratings = np.full(users.size, np.nan)
    if RATING in pairs.column_names:
        ratings = pairs.column(RATING).cast(pa.float64()).to_numpy()
    return Known(
        user_ids=user_ids,
        item_ids=item_ids,
        strength=matrix(strength.astype(np.float64), is_learnt),
        events=matrix(pairs.column("events").to_numpy().astype(np.float64), is_learnt),
        seen=matrix(ones, np.ones(users.size, np.bool_)),
        excluded=matrix(ones, is_excluded),
        ratings=matrix(ratings, ~np.isnan(ratings)),
        rankable=rankable,
        judged=np.unique(_places(judged, user_ids)),
    )


def dense_rows(rows: pa.Table, *, id_column: str, ids: pa.Array) -> NDArray[np.float64]:
    """[len(ids), d]: the factors (id, factors) at their ids' places, zeros where there are none."""
    place = pc.index_in(_whole(rows.column(id_column)), value_set=ids)
    kept = place.is_valid().to_numpy(zero_copy_only=False)
    factors = rows.column("factors").combine_chunks()
    if not len(factors):
        return np.zeros((len(ids), 0))
    width = len(factors[0])
    dense = np.zeros((len(ids), width))
    flat = factors.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    dense[place.drop_null().to_numpy()] = flat[kept]
    return dense


def _ranked_ids(columns: Sequence[pa.ChunkedArray]) -> pa.Array:
    """The distinct ids in the order of their UTF-8 bytes."""
    distinct = pc.unique(pa.concat_arrays([_whole(column) for column in columns]))
    return distinct.take(pc.sort_indices(distinct))


def _places(ids: pa.ChunkedArray, among: pa.Array) -> NDArray[np.int64]:
    return pc.index_in(_whole(ids), value_set=among).to_numpy(zero_copy_only=False).astype(np.int64)


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.cast(pa.string())
