"""The kernel against a brute force in float64, item by item and bit by bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.ranking.kernel import engine as kernel_engine
from recsys_spark.ranking.kernel import select as kernel
from recsys_spark.ranking.kernel.parts import ItemParts, UserParts
from recsys_spark.ranking.kernel.select import component_scores, select
from tests.ranking.kernel.parts import assert_exact, csr, examples, full, random_parts, some_parts


@examples(60)
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
    parts=some_parts,
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


@pytest.mark.parametrize("n_dims", [64, 128])
def test_a_catalogue_as_large_as_a_shops_equals_the_brute_force(n_dims):
    """Normal factors in two blocks of different size, users who have seen from nothing to half of it."""
    rng = np.random.default_rng(n_dims)
    dense = rng.standard_normal((20_000, n_dims)).astype(np.float32)
    dense[:, : n_dims // 2] *= 8
    seen = [list(rng.choice(20_000, n, replace=False)) for n in (0, 1, 30, 300, 10_000, *[30] * 31)]
    users = UserParts(rng.standard_normal((36, n_dims)), excluded=csr(seen))
    assert_exact(ItemParts(dense, blocks=(n_dims // 2, n_dims // 2)), users, 10)


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


def test_blocks_of_different_scale_change_the_work_and_nothing_else():
    items, users = random_parts(27, n_users=60, n_items=2_000, parts="dense excluded")
    items.dense[:, 6:] *= 1e3
    users.dense[:, 6:] /= 1e3
    index, score = select(items, users, 9)
    got = select(replace(items, blocks=(6, 1, 1)), users, 9, tile_items=64)
    np.testing.assert_array_equal(got[0], index)
    np.testing.assert_array_equal(got[1], score)


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


def test_items_may_be_memory_mapped_and_read_only(tmp_path):
    items, users = random_parts(14, parts="dense excluded")
    np.save(tmp_path / "dense.npy", items.dense)
    mapped = ItemParts(np.load(tmp_path / "dense.npy", mmap_mode="r"))
    np.testing.assert_array_equal(select(mapped, users, 5)[0], select(items, users, 5)[0])


@pytest.mark.parametrize("k", [0, -1])
def test_a_list_of_no_places_is_refused(k):
    with pytest.raises(ValueError, match=f"k={k}"):
        select(*random_parts(15), k)


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
