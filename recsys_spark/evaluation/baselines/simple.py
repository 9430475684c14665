"""Baselines that learn nothing of taste: chance, what most people have, what this person has most."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_spark.evaluation.baselines.known import Known
from recsys_spark.evaluation.baselines.scored import Scorer


def at_random(known: Known, *, seed: int) -> Scorer:
    """Uniform scores; a user's depend on the seed, their id and the items, not on who else is judged."""
    size = len(known.item_ids)

    def draws(user: str) -> NDArray[np.float64]:
        digest = hashlib.blake2b(f"{seed} {user}".encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(digest, "big")).random(size)

    return lambda rows: np.array([draws(known.user_ids[row].as_py()) for row in rows]).reshape(-1, size)


def popularity(known: Known) -> Scorer:
    """How many users ever had the item."""
    users = np.bincount(known.strength.indices, minlength=len(known.item_ids)).astype(np.float64)
    return _same_for_all(users)


def recent_popularity(known: Known, counts: pa.Table) -> Scorer:
    """How many users had the item lately: `counts` is (item_id, users) of models.popularity.

    The component `popularity` ranks the same counts by other code, so the two rows of a table must agree.
    """
    place = pc.index_in(counts.column("item_id").cast(pa.string()), value_set=known.item_ids)
    chosen = counts.append_column("place", place).filter(pc.is_valid(place))
    users = np.zeros(len(known.item_ids))
    users[chosen.column("place").to_numpy()] = chosen.column("users").to_numpy()
    return _same_for_all(users)


def personal_frequency(known: Known) -> Scorer:
    """How often the user had the item, whenever that was."""
    return lambda rows: known.events[rows].toarray()


def _same_for_all(scores: NDArray[np.float64]) -> Scorer:
    return lambda rows: np.tile(scores, (rows.size, 1))
