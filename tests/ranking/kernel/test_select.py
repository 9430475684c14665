"""The kernel against a brute force in float64, item by item and bit by bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import recsys_spark
from recsys_spark.ranking.kernel import codes as kernel_codes
from recsys_spark.ranking.kernel import engine as kernel_engine
from recsys_spark.ranking.kernel import exact as kernel_exact
from recsys_spark.ranking.kernel import select as kernel
from recsys_spark.ranking.kernel.caps import Cap, select_capped
from recsys_spark.ranking.kernel.select import Csr, ItemParts, UserParts, component_scores, packed, select
from recsys_spark.ranking.kernel.shards import CUT, Shards, arranged, in_memory, item_bytes
from recsys_spark.runtime import compiled


@pytest.fixture(params=["codes", "float32", "plain"], autouse=True)
def engine(request, monkeypatch) -> Iterator[str]:
    """Every test runs with the processor's product of codes, with numba and BLAS alone, and without numba."""
    if request.param == "plain":
        monkeypatch.setattr(kernel_engine, "compiled_loops", lambda: None)
    elif kernel_engine.compiled_loops() is None:
        pytest.skip("numba is not installed")
    elif request.param == "codes" and kernel_engine.code_loops() is None:
        pytest.skip("this processor has no AVX-512 VNNI")
    if request.param != "codes":
        monkeypatch.setattr(kernel, "code_loops", lambda: None)
    return request.param


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


def assert_exact(items: ItemParts, users: UserParts, k: int, **tiles: int) -> None:
    index, score = select(items, users, k, **tiles)
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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    n_users=st.integers(1, 80),
    n_items=st.integers(1, 200),
    n_dims=st.integers(0, 9),
    scale=st.sampled_from([1.0, 1e-44, 1e-30, 1e30]),
    levels=st.sampled_from([None, 1, 2, 3]),
    k=st.integers(1, 30),
    tile_users=st.integers(1, 100),
    tile_items=st.integers(1, 250),
    parts=st.lists(st.sampled_from(["dense", "sparse", "additive", "excluded", "groups"]), unique=True),
)
def test_any_parts_in_any_tiles_equal_the_brute_force(
    seed, n_users, n_items, n_dims, scale, levels, k, tile_users, tile_items, parts
):
    items, users = random_parts(
        seed,
        n_users=n_users,
        n_items=n_items,
        n_dims=n_dims,
        scale=scale,
        levels=levels,
        parts=" ".join(parts),
    )
    assert_exact(items, users, k, tile_users=tile_users, tile_items=tile_items)


def test_a_catalogue_of_many_tiles_equals_the_brute_force():
    assert_exact(*random_parts(1, n_users=300, n_items=5_000, n_dims=64), k=20)


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


def test_all_equal_scores_give_the_lowest_items():
    items = ItemParts(np.full((20_000, 16), 0.3, np.float32))
    index, _ = select(items, UserParts(np.full((3, 16), 0.7)), 7)
    np.testing.assert_array_equal(index, [range(7)] * 3)
    assert_exact(ItemParts(items.dense[:3_000]), UserParts(np.full((2, 16), -0.7)), 7)


def test_a_user_of_all_zeros_gets_the_lowest_items_after_the_additive_ones():
    items = ItemParts(np.random.default_rng(3).standard_normal((3_000, 4)).astype(np.float32))
    additive = csr([[1, 2_500, 2_999], []], [[-1.0, 0.0, 0.5], []])
    users = UserParts(np.zeros((2, 4)), additive=additive)
    index, _ = select(items, users, 4)
    np.testing.assert_array_equal(index, [[2_999, 0, 2, 3], [0, 1, 2, 3]])
    assert_exact(items, users, 4, tile_items=100)


def test_ties_at_the_boundary_go_to_the_lower_item():
    dense = np.ones((500, 3), np.float32)
    dense[[400, 450, 499]] = 2.0
    items, users = ItemParts(dense), UserParts(np.full((70, 3), 1 / 3))
    index, _ = select(items, users, 5, tile_items=64)
    np.testing.assert_array_equal(index, [[400, 450, 499, 0, 1]] * 70)


def test_an_additive_tie_with_a_later_item_goes_to_the_lower_item():
    items = ItemParts(np.array([[0], [1], [1], [1]], np.float32))
    users = UserParts(np.array([[1.0], [0.0]]), additive=csr([[0], [0]], [[1.0], [0.0]]))
    index, _ = select(items, users, 2)
    np.testing.assert_array_equal(index, [[0, 1], [0, 1]])


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-20, 1e20, 1e37])
@pytest.mark.parametrize("user_scale", [1e-320, 1e-280, 1.0, 1e250])
def test_denormal_and_huge_values_stay_exact(scale, user_scale):
    items, users = random_parts(4, n_items=400, parts="dense sparse excluded")
    sparse = replace(items.sparse, values=(items.sparse.values * np.float32(scale)))
    items = ItemParts(items.dense * np.float32(scale), sparse)
    profiles = replace(users.sparse, values=users.sparse.values * user_scale)
    users = replace(users, dense=users.dense * user_scale, sparse=profiles)
    assert_exact(items, users, 10, tile_items=150)


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e-40])
def test_one_giant_item_does_not_blur_the_order_of_the_small_ones(scale):
    items, users = random_parts(5, parts="dense")
    items = ItemParts(items.dense * np.float32(scale))
    items.dense[7] = 1e30
    users = replace(users, dense=-np.abs(users.dense))  # the giant comes last
    assert_exact(items, users, 10, tile_items=64)


def test_a_huge_additive_value_keeps_the_rest_in_order():
    items, users = random_parts(6, parts="dense")
    users = replace(users, additive=csr([[3, 9]] * 40, [[1e12, 1e12]] * 40))
    assert_exact(items, users, 10)


def test_additive_values_that_swallow_the_product_are_added_exactly():
    items, users = random_parts(6, parts="dense")
    for value in (1e8, 2e11, 1e13):  # one float64 step of the sum is below, about and above the margin
        every = csr([list(range(300))] * 40, [[value] * 300] * 40)
        assert_exact(items, replace(users, additive=every), 30)


def test_more_places_than_items_give_a_short_list():
    items, users = random_parts(7, n_items=5, parts="dense")
    index, score = select(items, users, 9)
    assert np.all(np.sort(index[:, :5]) == np.arange(5))
    assert np.all(index[:, 5:] == -1)
    assert np.all(np.isnan(score[:, 5:]))
    assert_exact(items, users, 9)


def test_a_user_with_every_item_seen_gets_nothing_and_the_next_user_everything():
    items, users = random_parts(8, n_users=2, n_items=50, parts="dense")
    users = replace(users, excluded=csr([list(range(50)), []]))
    index, score = select(items, users, 3)
    assert np.all(index[0] == -1)
    assert np.all(np.isnan(score[0]))
    assert_exact(items, users, 3)


def test_one_user_with_fifty_thousand_seen_items_gets_exactly_the_rest():
    items, users = random_parts(9, n_users=3, n_items=50_020, n_dims=4, parts="dense")
    seen = np.random.default_rng(9).permutation(50_020)[:50_000]
    users = replace(users, excluded=csr([[], list(seen), []]))  # in no order at all
    index, _ = select(items, users, 30)
    assert set(index[1]) - {-1} == set(range(50_020)) - set(seen)
    assert_exact(items, users, 30)


def test_a_group_that_may_get_nothing_gets_nothing():
    items, users = random_parts(10, parts="dense groups")
    assert not items.allowed[0].any()
    index, _ = select(items, users, 4)
    assert np.all(index[users.group == 0] == -1)
    assert np.all(index[users.group == 2] >= 0)


def test_one_item_and_one_user():
    assert_exact(ItemParts(np.ones((1, 2), np.float32)), UserParts(np.ones((1, 2))), 1)


def test_no_users_or_no_items_give_empty_lists():
    index, score = select(ItemParts(np.ones((3, 2), np.float32)), UserParts(np.ones((0, 2))), 4)
    assert index.shape == score.shape == (0, 4)
    index, _ = select(ItemParts(np.ones((0, 2), np.float32)), UserParts(np.ones((2, 2))), 4)
    assert np.all(index == -1)


def test_scores_may_be_sparse_and_additive_only():
    items, users = random_parts(11, parts="sparse additive")
    assert items.dense.shape[1] == 0
    assert_exact(items, users, 10)


def test_a_part_on_one_side_only_counts_nothing():
    items, users = random_parts(12, parts="dense sparse")
    without = replace(users, sparse=None)
    np.testing.assert_array_equal(select(items, without, 5)[0], select(ItemParts(items.dense), without, 5)[0])
    np.testing.assert_array_equal(select(ItemParts(items.dense), users, 5)[0], select(items, without, 5)[0])


def test_tiles_do_not_change_a_bit():
    items, users = random_parts(13, n_users=130, n_items=700)
    index, score = select(items, users, 12)
    for tile_users, tile_items in [(1, 700), (7, 33), (64, 64), (130, 1), (1_000, 5_000)]:
        got = select(items, users, 12, tile_users=tile_users, tile_items=tile_items)
        np.testing.assert_array_equal(got[0], index)
        np.testing.assert_array_equal(got[1], score)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    n_users=st.integers(1, 80),
    levels=st.sampled_from([None, 1, 2]),
    cuts=st.one_of(
        st.sampled_from([(), (150,), (100, 200), (43, 86, 129, 172, 215, 258)]),
        st.sets(st.integers(1, 299), max_size=7).map(sorted),
    ),
    spread=st.sampled_from([0.0, 3.0]),
    tile_users=st.integers(1, 100),
    tile_items=st.integers(1, 250),
    parts=st.lists(st.sampled_from(["dense", "sparse", "additive", "excluded", "groups"]), unique=True),
)
def test_shards_of_any_number_and_size_change_nothing(
    seed, n_users, levels, cuts, spread, tile_users, tile_items, parts
):
    items, users = random_parts(seed, n_users=n_users, levels=levels, parts=" ".join(parts))
    sizes = np.exp(spread * np.random.default_rng(seed).standard_normal((300, 1)))
    items = replace(items, dense=(items.dense * sizes).astype(np.float32))  # most users leave early
    index, score = select(
        in_memory(items, cuts=cuts), users, 11, tile_users=tile_users, tile_items=tile_items
    )
    expected_index, expected_score = brute_force(items, users, 11)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_array_equal(score, expected_score)


def test_shards_are_loaded_once_a_call_each_and_one_at_a_time():
    items, users = random_parts(23, n_users=200)
    held, asked = in_memory(items, cuts=(100, 200)), []
    shards = Shards(held.outline, held.place, lambda number: asked.append(number) or held.load(number))
    select(shards, users, 5, tile_users=30)
    assert asked == [0, 1, 2]


def test_shards_are_no_larger_than_asked():
    items, _ = random_parts(24, n_items=1_000)
    outline = arranged(items, shard_bytes=item_bytes(items) // 3).outline
    sizes = np.diff(outline.cuts)
    assert sizes.sum() == 1_000
    assert sizes.max() <= 1_000 / 3
    assert np.all(sizes[:-1] % CUT == 0)
    assert arranged(items, shard_bytes=item_bytes(items)).outline.cuts == (0, 1_000)


def test_a_user_whom_no_later_item_can_help_costs_nothing_more(engine, monkeypatch):
    dense = np.full((4_096, 4), 1e-3, np.float32)
    dense[4_000:] += np.random.default_rng(25).random((96, 4)).astype(np.float32) + 1
    scored = {"codes": 0, "products": 0}

    def counting_codes(take):
        def taken(self, tile, columns, users, *rest):
            scored["codes"] += users.size * (columns.stop - columns.start)
            return take(self, tile, columns, users, *rest)

        return taken

    def counting_products(take):
        def taken(self, tile, start, users, margin):
            scored["products"] += users.size * tile.shape[0]
            return take(self, tile, start, users, margin)

        return taken

    compiled_engine = kernel_engine.CompiledEngine
    monkeypatch.setattr(compiled_engine, "take_codes", counting_codes(compiled_engine.take_codes))
    for kind in (compiled_engine, kernel_engine.PlainEngine):
        monkeypatch.setattr(kind, "take", counting_products(kind.take))
    users = UserParts(np.random.default_rng(26).random((64, 4)))
    assert_exact(ItemParts(dense), users, 10, tile_items=64)
    in_one_go = kernel.CODED_TILES if engine == "codes" else 1
    at_most = 2 * in_one_go * 64 * 64  # of 4,096 items x 64 users
    mine, other = ("codes", "products") if engine == "codes" else ("products", "codes")
    assert 0 < scored[mine] <= at_most
    assert scored[other] == 0


@pytest.mark.parametrize("n_dims", [64, 128])
def test_a_catalogue_as_large_as_a_shops_equals_the_brute_force(n_dims):
    """Normal factors in two blocks of different size, users who have seen from nothing to half of it."""
    rng = np.random.default_rng(n_dims)
    dense = rng.standard_normal((20_000, n_dims)).astype(np.float32)
    dense[:, : n_dims // 2] *= 8
    seen = [list(rng.choice(20_000, n, replace=False)) for n in (0, 1, 30, 300, 10_000, *[30] * 31)]
    users = UserParts(rng.standard_normal((36, n_dims)), excluded=csr(seen))
    assert_exact(ItemParts(dense, blocks=(n_dims // 2, n_dims // 2)), users, 10)


def test_blocks_of_different_scale_change_the_work_and_nothing_else():
    items, users = random_parts(27, n_users=60, n_items=2_000, parts="dense excluded")
    items.dense[:, 6:] *= 1e3
    users.dense[:, 6:] /= 1e3
    index, score = select(items, users, 9)
    got = select(replace(items, blocks=(6, 1, 1)), users, 9, tile_items=64)
    np.testing.assert_array_equal(got[0], index)
    np.testing.assert_array_equal(got[1], score)


def test_packed_masks_equal_plain_ones_in_any_shard():
    items, users = random_parts(28, n_items=301)
    index, _ = select(items, users, 5)
    bits = packed(items.allowed)
    assert bits.shape == (3, 38)
    for cuts in ((), (3, 150, 299)):
        got, _ = select(in_memory(replace(items, allowed=bits), cuts=cuts), users, 5)
        np.testing.assert_array_equal(got, index)


def test_two_masks_become_one():
    seen, sent = csr([[5, 1], [], [2]]), csr([[1, 7], [0], []])
    both = seen.joined(sent)
    assert [sorted(set(both.indices[a:b])) for a, b in zip(both.indptr, both.indptr[1:], strict=False)] == [
        [1, 5, 7],
        [0],
        [2],
    ]
    items, users = random_parts(29, n_users=3, n_items=9, parts="dense")
    assert_exact(items, replace(users, excluded=both), 9)


def greedy(items: ItemParts, users: UserParts, k: int, caps: list[Cap]) -> list[list[int]]:
    """Walk the whole ranking of each user from the top, take what the caps allow, stop at k."""
    chosen = []
    for order in brute_force(items, users, len(items.dense))[0]:
        kept: list[int] = []
        for item in order[order >= 0]:
            same = (sum(cap.label[other] == cap.label[item] for other in kept) for cap in caps)
            if len(kept) < k and all(
                cap.label[item] < 0 or n < cap.at_most for cap, n in zip(caps, same, strict=True)
            ):
                kept.append(int(item))
        chosen.append(kept)
    return chosen


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 12),
    labels=st.lists(st.integers(1, 40), max_size=2),
    at_most=st.integers(1, 3),
    reserve=st.sampled_from([None, 0, 1, 300]),
    cuts=st.sampled_from([(), (40, 90)]),
    parts=st.lists(st.sampled_from(["sparse", "additive", "excluded", "groups"]), unique=True),
)
def test_capped_lists_equal_the_greedy_choice_over_the_whole_ranking(
    seed, k, labels, at_most, reserve, cuts, parts
):
    items, users = random_parts(seed, n_users=12, n_items=120, parts="dense " + " ".join(parts))
    draw = np.random.default_rng(seed)
    caps = [Cap(draw.integers(-1, n, 120).astype(np.int32), at_most) for n in labels]
    index, score = select_capped(in_memory(items, cuts=cuts), users, k, caps, reserve=reserve)
    assert [list(row[row >= 0]) for row in index] == greedy(items, users, k, caps)
    exact = exact_scores(items, users)
    filled = index >= 0
    np.testing.assert_array_equal(score[filled], np.take_along_axis(exact, index, 1)[filled])
    assert np.all(np.isnan(score[~filled]))


def test_places_in_reserve_cost_no_second_pass_over_the_catalogue():
    """K + R of a list under caps, all labels but one rare: one pass while what is kept beyond suffices."""
    items, users = random_parts(33, n_users=20, n_items=400, parts="dense excluded")
    held, passes = in_memory(items), []
    shards = Shards(held.outline, held.place, lambda number: passes.append(number) or held.load(number))
    cap = Cap(np.where(np.arange(400) % 4 == 0, 0, np.arange(400)).astype(np.int32), 2)
    index, _ = select_capped(shards, users, 7 + 5, [cap])
    assert [list(row[row >= 0]) for row in index] == greedy(items, users, 12, [cap])
    assert passes == [0]
    np.testing.assert_array_equal(select_capped(shards, users, 7, [cap])[0], index[:, :7])
    assert passes == [0, 0]
    again, _ = select_capped(shards, users, 12, [cap], reserve=0)
    np.testing.assert_array_equal(again, index)
    assert len(passes) > 3, "without a reserve the refused places cost further passes"


def test_caps_of_a_wrong_kind_are_refused():
    items, users = random_parts(30, parts="dense")
    for cap in (Cap(np.zeros(300, np.int32), 0), Cap(np.zeros(7, np.int32), 1)):
        with pytest.raises(ValueError, match=r"expected at_most >= 1 and labels \[300\]"):
            select_capped(items, users, 3, [cap])


def test_caps_on_a_catalogue_of_nothing_and_beyond_its_size_give_short_lists():
    items, users = random_parts(34, n_users=256, n_items=100, n_dims=4, parts="dense")
    nothing = select_capped(
        ItemParts(np.zeros((0, 4), np.float32)), users, 2, [Cap(np.zeros(0, np.int32), 1)]
    )
    assert (nothing[0].tolist(), np.isnan(nothing[1]).all()) == ([[-1, -1]] * 256, True)
    cap = Cap((np.arange(100) // 3).astype(np.int32), 2)
    tracemalloc.start()
    index, score = select_capped(items, users, 2_000, [cap])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (index.shape, score.shape) == ((256, 2_000), (256, 2_000))
    assert [list(row[row >= 0]) for row in index] == greedy(items, users, 2_000, [cap])
    assert peak < 12 * 256 * 2_000 + 4_000_000, "what is returned, and no more of the places that stay open"
    for k in (0, -3):
        with pytest.raises(ValueError, match=f"k={k}, .* expected 1 or more"):
            select_capped(items, users, k, [cap])


def test_no_shard_is_larger_than_asked_where_words_are_uneven():
    """A tenth of the items, those of the largest norms, have two hundred words and the others none."""
    dense = np.linspace(9, 1, 6_400).astype(np.float32).repeat(4).reshape(-1, 4)
    lengths = np.where(np.arange(6_400) < 640, 200, 0)
    words = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = ItemParts(dense, Csr(indptr, words, np.ones(words.size, np.float32)))
    asked = item_bytes(items) // 8
    outline = arranged(items, shard_bytes=asked).outline
    taken = 4 * 4 + 2 * 8 + 4 + 8 + 8 + 8 * lengths  # factors, norms, place, codes, words
    held = [taken[start:stop].sum() for start, stop in pairwise(outline.cuts)]
    assert sum(held) == item_bytes(items)
    assert max(held) <= asked
    assert min(held[:-1]) > asked / 2, "nor are there more than are needed"
    assert np.all(np.diff(arranged(items, shard_bytes=1).outline.cuts) == CUT)


def test_words_of_another_type_are_refused():
    words = csr([[0]], [[1.0]])
    with pytest.raises(ValueError, match=r"items.sparse: float64, expected float32"):
        ItemParts(np.ones((1, 1), np.float32), words)
    with pytest.raises(ValueError, match="expected widths"):
        ItemParts(np.ones((1, 2), np.float32), blocks=(3, -1))


def test_denormal_factors_and_scores_are_ranked_exactly():
    for scale, users_scale in ((1e-44, 1e-280), (1e-44, 1.0), (1.0, 5e-324), (1e-44, 5e-324)):
        items, users = random_parts(31, n_users=20, parts="dense excluded")
        items = ItemParts((items.dense * scale).astype(np.float32))
        assert_exact(items, replace(users, dense=users.dense * users_scale), 10, tile_items=64)


def test_a_user_of_denormals_is_not_given_up_too_early():
    """The norm of (5e-324, 5e-324) is 1.4 times the least number there is, to which it must not be rounded."""
    items = ItemParts(np.array([[1.45e38, 0], [1e38, 1e38]], np.float32))
    denormal = np.full((1, 2), 5e-324)
    assert_exact(items, UserParts(denormal), 1, tile_items=1)
    words = ItemParts(np.zeros((2, 0), np.float32), csr([[0], [0, 1]], [[1.45e38], [1e38, 1e38]], np.float32))
    assert_exact(
        words, UserParts(np.zeros((1, 0)), sparse=csr([[0, 1]], [list(denormal[0])])), 1, tile_items=1
    )


@pytest.mark.parametrize("large", [1e39, 1.7e308])
def test_numbers_beyond_float32_where_all_items_are_zero_count_nothing(large):
    nothing = ItemParts(np.zeros((5, 2), np.float32), csr([[0]] * 5, [[0.0]] * 5, np.float32))
    words = csr([[0, 7]], [[large, large]])  # the items know no term 7
    users = UserParts(np.full((1, 2), large), sparse=words)
    assert_exact(nothing, users, 3)
    np.testing.assert_array_equal(select(nothing, users, 3)[0], [[0, 1, 2]])
    something = ItemParts(
        np.array([[1, 0], [2, 0], [2, 0]], np.float32), nothing.sparse.rows(0, 3), blocks=(1, 1)
    )
    assert_exact(something, replace(users, dense=np.array([[1.0, large]])), 2)


def test_a_user_whose_scores_are_all_zero_beside_one_whose_are_not():
    items = ItemParts(np.array([[0, 1], [0, 2], [0, 3]], np.float32), blocks=(1, 1))
    users = UserParts(np.array([[1e300, 0.0], [1e300, 1.0]]), excluded=csr([[1], [2]]))
    assert_exact(items, users, 2)


def test_a_giant_part_beside_a_tiny_one_keeps_the_order_of_the_tiny_one():
    tiny = np.ldexp([3.0, 5.0, 5.0, 4.0], -149)
    items = ItemParts(np.column_stack([np.full(4, 2.0**100), tiny]).astype(np.float32), blocks=(1, 1))
    users = UserParts(np.array([[2.0**-100, 2.0**149], [0.0, 2.0**149], [0.0, 2.0**900], [1.0, 2.0**-149]]))
    assert_exact(items, users, 4)
    np.testing.assert_array_equal(select(items, users, 4)[0][:3], [[1, 2, 3, 0]] * 3)


SIZES = st.sampled_from([None, -149, -140, -100, -40, 0, 40, 100])  # of a part of the items, None: all zeros
POWERS = st.sampled_from([-1074, -1060, -500, -10, 0, 126, 140, 500, 1000])  # of the users' numbers for it


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    parts=st.lists(st.tuples(st.integers(1, 3), SIZES, POWERS), min_size=1, max_size=3),
    words=st.tuples(SIZES, POWERS),
    spread=st.sampled_from([0, 3, 40]),
    k=st.integers(1, 9),
    tile_items=st.sampled_from([1, 3, 64]),
    joint=st.booleans(),
)
def test_parts_of_any_two_sizes_side_by_side_stay_exact(seed, parts, words, spread, k, tile_items, joint):
    """Powers of two from the least float64 to the largest that does not overflow, and parts of zeros."""
    rng = np.random.default_rng(seed)
    faint = rng.integers(-spread, 1, (40, 1))  # items of very different norms

    def drawn(rows: int, width: int, power: int | None) -> np.ndarray:
        values = rng.integers(-3, 4, (rows, width)) * (1 + rng.random((rows, width)))
        return np.ldexp(values, power) if power is not None else np.zeros((rows, width))

    def fitting(size: int | None, power: int) -> int:
        return min(power, 980 - (size or 0))

    dense = np.hstack([np.ldexp(drawn(40, width, size), faint) for width, size, _ in parts])
    vectors = np.hstack([drawn(20, width, fitting(size, power)) for width, size, power in parts])
    size, power = words
    terms, profiles = drawn(40, 4, size).astype(np.float32), drawn(20, 4, fitting(size, power))
    items = ItemParts(
        dense.astype(np.float32),
        csr([[0, 1, 2, 3]] * 40, terms.tolist(), np.float32),
        blocks=() if joint else tuple(width for width, _, _ in parts),
    )
    users = UserParts(
        vectors,
        sparse=csr([[0, 1, 2, 3]] * 20, profiles.tolist()),
        excluded=random_csr(rng, 20, 40, 10, None),
    )
    if joint and sum(int(np.frexp(np.abs(values).max())[1]) for values in (vectors, dense)) > 985:
        return  # refused: one bound for both parts together
    assert_exact(items, users, k, tile_items=tile_items)


def test_terms_that_no_item_has_do_not_make_a_user_too_large():
    words = csr([[0], [1]], [[1.0], [2.0]], np.float32)
    users = UserParts(np.ones((1, 1)), sparse=csr([[0, 7]], [[1.0, 1e305]]))
    assert_exact(ItemParts(np.ones((2, 1), np.float32), words), users, 2)


def test_items_may_be_memory_mapped_and_read_only(tmp_path):
    items, users = random_parts(14, parts="dense excluded")
    np.save(tmp_path / "dense.npy", items.dense)
    mapped = ItemParts(np.load(tmp_path / "dense.npy", mmap_mode="r"))
    np.testing.assert_array_equal(select(mapped, users, 5)[0], select(items, users, 5)[0])


@pytest.mark.parametrize("k", [0, -1])
def test_a_list_of_no_places_is_refused(k):
    with pytest.raises(ValueError, match=f"k={k}"):
        select(*random_parts(15), k)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "part", ["items.dense", "items.sparse", "users.dense", "users.sparse", "users.additive"]
)
def test_nan_and_infinity_are_refused_with_the_part_and_the_row(part, bad):
    items, users = random_parts(16)
    side, name = part.split(".")
    values = getattr(items if side == "items" else users, name)
    if isinstance(values, Csr):
        row = int(np.searchsorted(values.indptr, 30, side="right")) - 1
        values.values[30] = bad
    else:
        row = 17
        values[row, 3] = bad
    with pytest.raises(ValueError, match=f"{part} row {row} holds NaN or infinity"):
        select(items, users, 3)


def test_scores_beyond_float64_are_refused():
    items, users = random_parts(17, parts="dense")
    users.dense[5] = 1e305
    with pytest.raises(ValueError, match=r"users\.dense row 5: its scores overflow"):
        select(items, users, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dense": np.ones((40, 7))}, r"users.dense: \(40, 7\), expected \[U, 8\]"),
        ({"excluded": csr([[0, 300]] + [[]] * 39)}, r"users.excluded row 0: column 300 is not in \[0, 300\)"),
        ({"excluded": csr([[0]])}, "users.excluded: indptr describes 1 rows, expected 40"),
        (
            {"additive": csr([[4, 4]] + [[]] * 39, [[1, 2]] + [[]] * 39)},
            "users.additive row 0: column 4 is stored",
        ),
        ({"additive": csr([[4]] + [[]] * 39)}, "users.additive: expected one value per index"),
        ({"group": None}, "users.group: items.allowed has groups"),
        ({"group": np.full(40, 3, np.int32)}, r"users.group row 0: 3 is not in \[0, 3\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    items, users = random_parts(18)
    with pytest.raises(ValueError, match=message):
        select(items, replace(users, **change), 3)


def test_item_parts_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match=r"items\.dense: float64"):
        ItemParts(np.ones((3, 2)))
    with pytest.raises(
        ValueError, match=r"items.allowed: bool \(1, 4\), expected bool \[G, 3\] or packed uint8 \[G, 1\]"
    ):
        ItemParts(np.ones((3, 2), np.float32), allowed=np.ones((1, 4), bool))


def test_component_scores_sum_to_the_score():
    items, users = random_parts(19)
    index, score = select(items, users, 6)
    parts = component_scores(items, users, index, {"als": slice(0, 5), "popularity": slice(5, 8)})
    assert list(parts) == ["als", "popularity", "sparse", "additive"]
    np.testing.assert_allclose(sum(parts.values()), score, rtol=1e-12, atol=1e-12)
    for u, place in np.argwhere(index >= 0)[:50]:
        item = items.dense[index[u, place]].astype(np.float64)
        assert parts["popularity"][u, place] == pytest.approx(users.dense[u, 5:8] @ item[5:8])
    assert np.array_equal(np.isnan(parts["additive"]), index < 0)
    history = full(users.additive, 40, 300)
    chosen = index >= 0
    np.testing.assert_array_equal(parts["additive"][chosen], np.take_along_axis(history, index, 1)[chosen])


def test_component_scores_of_absent_parts_are_zero():
    items, users = random_parts(20, parts="dense")
    parts = component_scores(items, users, np.array([[0, -1]] * 40, np.int32), {})
    np.testing.assert_array_equal(parts["sparse"], [[0.0, np.nan]] * 40)
    np.testing.assert_array_equal(parts["additive"], [[0.0, np.nan]] * 40)


def test_compiled_loops_work_and_are_cached_when_the_package_is_in_a_wheel(engine, tmp_path):
    best = "float32" if kernel_engine.code_loops() is None else "codes"
    if engine != best:
        pytest.skip("about the compiled loops that this processor uses")
    loops = {"float32": "compiled_loops().take_tile", "codes": "code_loops().take_codes"}[best]
    package = Path(recsys_spark.__file__).parent
    wheel = tmp_path / "recsys_spark-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in [
            "__init__.py",
            "runtime/__init__.py",
            "runtime/compiled.py",
            *(f"ranking/kernel/{path.name}" for path in (package / "ranking" / "kernel").glob("*.py")),
        ]:
            archive.write(package / name, f"recsys_spark/{name}")
        archive.writestr("recsys_spark/ranking/__init__.py", "")
    program = (
        "import numpy as np; from recsys_spark.ranking.kernel import engine as e, select as kernel;"
        "print(kernel.select(kernel.ItemParts(np.eye(3, dtype=np.float32)), kernel.UserParts(np.eye(3)), 1)[0].ravel(),"
        f"e.__file__, sum(e.{loops}.stats.cache_hits.values()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(wheel), "TMPDIR": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    answers = [
        subprocess.run(
            [sys.executable, "-P", "-c", program],
            env=environment,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert [answer[:3] for answer in answers] == [["[0", "1", "2]"]] * 2
    assert str(wheel) in answers[0][3]
    assert [answer[-1] for answer in answers] == ["0", "1"], (
        "the second process must find the first one's code"
    )


def test_a_cache_folder_that_others_could_write_to_is_not_used(monkeypatch, tmp_path):
    folder = tmp_path / f"recsys-spark-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    chosen = compiled.private_folder()
    assert chosen != folder
    assert chosen.stat().st_mode & 0o077 == 0
    shutil.rmtree(chosen)


def test_blas_uses_one_thread_within_the_kernel_and_all_of_them_after(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    seen = []
    plain = kernel_engine.PlainEngine

    class Spy(plain):
        def take(self, *args):
            pools = threadpoolctl.threadpool_info()
            seen.extend(pool["num_threads"] for pool in pools if "numpy" in pool["filepath"])
            super().take(*args)

    monkeypatch.setattr(kernel_engine, "compiled_loops", lambda: None)
    monkeypatch.setattr(kernel_engine, "PlainEngine", Spy)
    before = threadpoolctl.threadpool_info()
    select(*random_parts(21, parts="dense"), 3)
    assert set(seen) == {1}
    assert threadpoolctl.threadpool_info() == before


def test_nearly_equal_scores_do_not_grow_the_candidates():
    """Memory is bounded by k and the tile of users, however many items are in play."""
    rng = np.random.default_rng(22)
    dense = np.ones((20_000, 4), np.float32)
    dense[:, 0] += rng.integers(0, 3, 20_000) * np.float32(2**-23)
    index, _ = select(ItemParts(dense), UserParts(np.full((2, 4), 1 / 3)), 5)
    np.testing.assert_array_equal(index, [np.argsort(-dense[:, 0], kind="stable")[:5]] * 2)


def coded_problem(seed: int, *, n_dims: int, tile: int, spread: float) -> tuple[ItemParts, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = np.exp(spread * rng.standard_normal(n_dims))
    items = (rng.standard_normal((2 * tile + 5, n_dims)) * sizes).astype(np.float32)
    return ItemParts(items), rng.standard_normal((40, n_dims)) / sizes * np.exp(spread * rng.random((40, 1)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    n_dims=st.integers(1, 70),
    tile=st.integers(1, 50),
    spread=st.sampled_from([0.0, 1.0, 8.0]),
)
def test_a_sum_of_codes_is_within_its_margin_of_the_score(seed, n_dims, tile, spread):
    items, dense = coded_problem(seed, n_dims=n_dims, tile=tile, spread=spread)
    shard = in_memory(items).load(0)
    coded = kernel_codes.CodedItems.of(shard, tile, 12)
    users = kernel_codes.CodedUsers.of(dense.astype(np.float32), coded.exponent, 32)
    user_codes = unpacked(users.codes ^ np.uint8(128), 32, n_dims)[:40].view(np.int8).astype(np.int64)
    for number, part in enumerate(coded.tiles):
        rows = shard.dense[number * tile : (number + 1) * tile].astype(np.float64)
        codes = unpacked(part.codes, 12, n_dims)[: len(rows)].astype(np.int64)
        np.testing.assert_array_equal(part.starts[: len(rows)], -128 * codes.sum(axis=1))
        near = users.step[:, None] * part.step * (user_codes @ codes.T)
        assert np.all(np.abs(near - dense @ rows.T) <= users.margin(part)[:, None])
        assert np.all(np.abs(codes) <= 127)


def unpacked(flat: np.ndarray, rows: int, n_dims: int) -> np.ndarray:
    steps = -(-n_dims // 4)
    return flat.reshape(-1, steps, rows, 4).transpose(0, 2, 1, 3).reshape(-1, steps * 4)[:, :n_dims]


def test_the_block_product_is_that_of_whole_numbers(engine):
    if engine != "codes":
        pytest.skip("about the product of codes")
    import numba  # noqa: PLC0415  # absent where the other engines are tested

    from recsys_spark.ranking.kernel.vnni import LANES, ROWS, block_above, block_largest  # noqa: PLC0415

    # An intrinsic is no function.
    is_above = numba.njit(lambda *args: block_above(*args))  # noqa: PLW0108
    take_largest = numba.njit(lambda *args: block_largest(*args))  # noqa: PLW0108
    rng = np.random.default_rng(23)
    items = rng.integers(-127, 128, (2 * ROWS, 20)).astype(np.int8)
    users = rng.integers(-127, 128, (2 * LANES, 20)).astype(np.int8)
    expected = (items.astype(np.int64) @ users.T.astype(np.int64))[ROWS:, LANES:]
    starts = (-128 * items.astype(np.int64).sum(axis=1)).astype(np.int32)
    packed_items = kernel_codes.in_blocks(items, ROWS)
    packed_users = kernel_codes.in_blocks(users, LANES).view(np.uint8) ^ np.uint8(128)
    second = (packed_items, ROWS * 20, starts, ROWS, packed_users, LANES * 20, 5)
    bars = np.sort(expected, axis=0)[-3].astype(np.int32)
    above = np.zeros(ROWS, np.uint32)
    assert is_above(*second, bars, above)
    bits = (above[:, None] >> np.arange(LANES, dtype=np.uint32)) & 1
    np.testing.assert_array_equal(bits, expected > bars)
    assert not is_above(*second, expected.max(axis=0).astype(np.int32), above)
    largest = np.zeros((3, LANES), np.int32)
    take_largest(*second, largest, 1)
    np.testing.assert_array_equal(largest, [np.zeros(LANES), expected.max(axis=0), np.zeros(LANES)])


def test_codes_that_tell_nothing_apart_leave_the_scan_to_float32(engine, monkeypatch):
    """One dimension a thousand times the others: they all but vanish from the codes, not from the lists."""
    rng = np.random.default_rng(24)
    dense = rng.standard_normal((9_000, 8)).astype(np.float32)
    dense[:, 0] = 1000
    users = rng.standard_normal((70, 8))
    users[:, 0] = 1000
    taken = []

    def noting(take):
        return lambda self, tile, start, *rest: taken.append(start) or take(self, tile, start, *rest)

    for kind in (kernel_engine.CompiledEngine, kernel_engine.PlainEngine):
        monkeypatch.setattr(kind, "take", noting(kind.take))
    assert_exact(ItemParts(dense), UserParts(users), 3)
    assert min(taken) == (kernel.CODED_TILES * kernel.TILE_ITEMS * 2 if engine == "codes" else 0)


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
