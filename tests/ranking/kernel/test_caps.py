"""Lists under caps: the greedy choice over each user's whole ranking."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.ranking.kernel.caps import Cap, select_capped
from recsys_spark.ranking.kernel.parts import ItemParts, UserParts
from recsys_spark.ranking.kernel.shards import in_memory
from tests.ranking.kernel.parts import brute_force, exact_scores, examples, noting_loads, random_parts


def listed(index: np.ndarray) -> list[list[int]]:
    """The items of each list, without the places that stay open."""
    return [row[row >= 0].tolist() for row in index]


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


@examples(40)
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
    assert listed(index) == greedy(items, users, k, caps)
    exact = exact_scores(items, users)
    filled = index >= 0
    np.testing.assert_array_equal(score[filled], np.take_along_axis(exact, index, 1)[filled])
    assert np.all(np.isnan(score[~filled]))


def test_places_in_reserve_cost_no_second_pass_over_the_catalogue():
    """K + R of a list under caps, all labels but one rare: one pass while what is kept beyond suffices."""
    items, users = random_parts(33, n_users=20, n_items=400, parts="dense excluded")
    shards, passes = noting_loads(items)
    cap = Cap(np.where(np.arange(400) % 4 == 0, 0, np.arange(400)).astype(np.int32), 2)
    index, _ = select_capped(shards, users, 7 + 5, [cap])
    assert listed(index) == greedy(items, users, 12, [cap])
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
    assert listed(index) == greedy(items, users, 2_000, [cap])
    assert peak < 12 * 256 * 2_000 + 4_000_000, "what is returned, and no more of the places that stay open"
    for k in (0, -3):
        with pytest.raises(ValueError, match=f"k={k}, .* expected 1 or more"):
            select_capped(items, users, k, [cap])
