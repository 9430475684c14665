"""Catalogues and users for the kernel's tests, and what it is held to: every score in float64, by plain loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from recsys_spark.ranking.kernel.parts import Csr, ItemParts, UserParts
from recsys_spark.ranking.kernel.select import select
from recsys_spark.ranking.kernel.shards import Shards, in_memory

some_parts = st.lists(st.sampled_from(["dense", "sparse", "additive", "excluded", "groups"]), unique=True)


def examples(at_most: int) -> settings:
    """So many cases of a property, however long each takes; the engine is the same for all of them."""
    return settings(
        max_examples=at_most, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )


def noting_loads(items: ItemParts, cuts: Sequence[int] = ()) -> tuple[Shards, list[int]]:
    """The items in shards, and a list of those that have been loaded."""
    held, loaded = in_memory(items, cuts=cuts), []
    return Shards(held.outline, held.place, lambda number: loaded.append(number) or held.load(number)), loaded


def full(matrix: Csr | None, n_rows: int, n_columns: int) -> np.ndarray:
    dense = np.zeros((n_rows, n_columns))
    if matrix is not None:
        for r in range(n_rows):
            part = slice(matrix.indptr[r], matrix.indptr[r + 1])
            dense[r, matrix.indices[part]] = 1.0 if matrix.values is None else matrix.values[part]
    return dense


def exact_scores(items: ItemParts, users: UserParts) -> np.ndarray:
    """Every score as defined: float64, dimensions then terms, ascending, then the additive value."""
    n_users, n_items = len(users.dense), len(items.dense)
    dense = np.zeros((n_users, n_items))
    for d in range(items.dense.shape[1]):
        dense += np.outer(users.dense[:, d].astype(np.float64), items.dense[:, d].astype(np.float64))
    n_terms = 0
    for matrix in (items.sparse, users.sparse):
        n_terms = max(n_terms, 0 if matrix is None else matrix.indices.max(initial=-1) + 1)
    profiles, terms = full(users.sparse, n_users, n_terms), full(items.sparse, n_items, n_terms)
    sparse = np.zeros((n_users, n_items))
    for t in range(n_terms):
        sparse += np.outer(profiles[:, t], terms[:, t])
    return (dense + sparse) + full(users.additive, n_users, n_items)


def brute_force(items: ItemParts, users: UserParts, k: int) -> tuple[np.ndarray, np.ndarray]:
    score = exact_scores(items, users)
    possible = full(users.excluded, *score.shape) == 0
    if items.allowed is not None:
        possible &= items.allowed[users.group] != 0
    best, best_score = np.full((len(score), k), -1), np.full((len(score), k), np.nan)
    for u in range(len(score)):
        order = np.lexsort((np.arange(score.shape[1]), -score[u]))
        order = order[possible[u, order]][:k]
        best[u, : order.size] = order
        best_score[u, : order.size] = score[u, order]
    return best, best_score


def assert_exact(
    items: ItemParts, users: UserParts, k: int, *, cuts: Sequence[int] = (), **tiles: int
) -> None:
    """That the lists are those of the brute force, with the items cut into shards there."""
    index, score = select(in_memory(items, cuts=cuts) if cuts else items, users, k, **tiles)
    expected_index, expected_score = brute_force(items, users, k)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_array_equal(score, expected_score)


def csr(rows: list[list[int]], values: list[list[float]] | None = None, dtype: type = np.float64) -> Csr:
    flat = [x for row in values for x in row] if values is not None else None
    return Csr(
        np.cumsum([0] + [len(row) for row in rows]).astype(np.int64),
        np.array([i for row in rows for i in row], np.int32),
        None if flat is None else np.array(flat, dtype),
    )


def random_csr(rng, n_rows: int, n_columns: int, longest: int, dtype: type | None, scale: float = 1.0) -> Csr:
    rows = [
        sorted(rng.choice(n_columns, rng.integers(0, min(longest, n_columns) + 1), replace=False))
        for _ in range(n_rows)
    ]
    values = None if dtype is None else [list(rng.standard_normal(len(row)) * scale) for row in rows]
    return csr(rows, values, dtype or np.float64)


def random_parts(
    seed: int,
    *,
    n_users: int = 40,
    n_items: int = 300,
    n_dims: int = 8,
    scale: float = 1.0,
    levels: int | None = None,
    parts: str = "dense sparse additive excluded groups",
) -> tuple[ItemParts, UserParts]:
    """levels: draw all values from that many integers, so that most scores are ties."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        values = (
            rng.standard_normal(shape) if levels is None else rng.integers(0, levels, shape) - levels // 2
        )
        return values.astype(np.float64)

    n_dims = n_dims if "dense" in parts else 0
    items = ItemParts(
        (draw(n_items, n_dims) * scale).astype(np.float32),
        sparse=random_csr(rng, n_items, 30, 6, np.float32, scale) if "sparse" in parts else None,
        allowed=rng.random((3, n_items)) < np.array([[0.0], [0.05], [0.9]]) if "groups" in parts else None,
    )
    users = UserParts(
        draw(n_users, n_dims) / scale,
        sparse=random_csr(rng, n_users, 40, 12, np.float64, 1 / scale) if "sparse" in parts else None,
        additive=random_csr(rng, n_users, n_items, 20, np.float64) if "additive" in parts else None,
        excluded=random_csr(rng, n_users, n_items, n_items, None) if "excluded" in parts else None,
        group=rng.integers(0, 3, n_users).astype(np.int32) if "groups" in parts else None,
    )
    return items, users
