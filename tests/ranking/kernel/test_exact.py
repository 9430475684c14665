"""Scores of pairs in float64: they decide what float32 cannot tell apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys_spark.ranking.kernel import exact as kernel_exact
from recsys_spark.ranking.kernel.parts import Csr, ItemParts, UserParts
from tests.ranking.kernel.parts import assert_exact, brute_force, csr, random_parts


def test_scores_that_float32_cannot_tell_apart_are_put_in_exact_order():
    rng = np.random.default_rng(2)
    base = rng.standard_normal(32).astype(np.float32)
    dense = np.tile(base, (4_000, 1))
    dense[:, 0] = rng.integers(0, 50, 4_000) * 1e-7  # changes of the score far below one float32 step
    users = UserParts(rng.standard_normal((20, 32)))
    items = ItemParts(dense)
    float32_order = np.argsort(-(users.dense.astype(np.float32) @ dense.T), kind="stable")[:, :10]
    assert np.any(float32_order != brute_force(items, users, 10)[0]), "the case must be a hard one"
    assert_exact(items, users, 10)


def test_additive_values_that_swallow_the_product_are_added_exactly():
    items, users = random_parts(6, parts="dense")
    for value in (1e8, 2e11, 1e13):  # one float64 step of the sum is below, about and above the margin
        every = csr([list(range(300))] * 40, [[value] * 300] * 40)
        assert_exact(items, replace(users, additive=every), 30)


def test_a_huge_additive_value_keeps_the_rest_in_order():
    items, users = random_parts(6, parts="dense")
    users = replace(users, additive=csr([[3, 9]] * 40, [[1e12, 1e12]] * 40))
    assert_exact(items, users, 10)


def test_pairs_are_looked_up_alike_with_compiled_loops_and_without(monkeypatch):
    draw = np.random.default_rng(4)
    table = np.where(draw.random((50, 40)) < 0.2, draw.random((50, 40)), 0.0)
    table[[0, 7, 49]] = 0.0  # rows of nothing
    row, column = np.nonzero(table)
    matrix = Csr(np.searchsorted(row, np.arange(51)), column.astype(np.int32), table[row, column])
    rows, columns = (at.ravel() for at in np.indices(table.shape))
    for has_loops in (True, False):
        if not has_loops:
            monkeypatch.setattr(kernel_exact, "compiled", lambda _name: None)
        np.testing.assert_array_equal(kernel_exact.looked_up(matrix, rows, columns), table.ravel())
        np.testing.assert_array_equal(kernel_exact.holds(matrix, rows, columns), table.ravel() > 0)
