"""Numbers from the least float64 to the largest: the bounds hold, and the lists are exact, for all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.ranking.kernel.parts import ItemParts, UserParts
from recsys_spark.ranking.kernel.select import select
from tests.ranking.kernel.parts import assert_exact, csr, examples, random_csr, random_parts


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


@examples(150)
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


def test_scores_beyond_float64_are_refused():
    items, users = random_parts(17, parts="dense")
    users.dense[5] = 1e305
    with pytest.raises(ValueError, match=r"users\.dense row 5: its scores overflow"):
        select(items, users, 3)
