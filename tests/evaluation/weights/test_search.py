"""The search for the blend's weights on planted users, where what is right is known."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys_spark.evaluation.weights.fit import cases_from
from recsys_spark.evaluation.weights.search import Cases, learned
from recsys_spark.names import COMPONENTS

EQUAL = dict.fromkeys(COMPONENTS, 1.0)
ALS, CONTENT, HISTORY, POPULARITY, TRIAL = range(5)


def planted(users: int, *, long: float = 0.5, seed: int = 1) -> Cases:
    """People with 50 pairs want what als ranks first, those with 2 what popularity does; the rest is noise."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(5, users, 60)).astype(np.float32)
    pairs = np.where(draw.random(users) < long, 50, 2)
    taste = np.where(pairs[:, None] == 50, scores[ALS], scores[POPULARITY])
    taste = taste + 0.3 * draw.normal(size=taste.shape)
    is_hit = np.argsort(np.argsort(-taste, axis=1), axis=1) < 8
    return Cases(scores, np.ones_like(is_hit), is_hit, is_hit.sum(axis=1), pairs)


def learned_from(cases: Cases, **knobs):
    given = {"bins": [0, 10], "min_users": 50, "samples": 500, "seed": 5, **knobs}
    return learned(cases, EQUAL, **given)


def test_users_of_each_bin_get_the_weights_that_are_right_for_them() -> None:
    bins = learned_from(planted(600)).bins
    assert sorted(bins) == [0, 10]
    assert bins[10]["als"] == 1.0
    assert bins[0]["popularity"] == 1.0
    assert bins[10]["popularity"] < 0.15
    assert bins[0]["als"] < 0.15


def test_a_component_that_proves_nothing_weighs_nothing() -> None:
    """Of noise by a bin, at a level of 0.99, a rare one gets in, and then with next to no weight."""
    noise = [
        weights[name]
        for seed in (1, 2)
        for weights in learned_from(planted(600, seed=seed)).bins.values()
        for name in ("content", "history", "trial")
    ]
    assert noise.count(0.0) >= len(noise) - 1
    assert max(noise) <= 0.03


@pytest.mark.filterwarnings("error")
def test_one_component_alone_never_loses_all_weight() -> None:
    """Also where scores say less than the order of candidates does."""
    cases = planted(60, long=1.0)
    first = np.argsort(np.argsort(cases.scores[ALS], axis=1), axis=1) < 8
    against = Cases(cases.scores, cases.is_item, first, first.sum(axis=1), cases.pairs)
    start = {name: float(name == "als") for name in COMPONENTS}
    for weights in learned(against, start, bins=[0], min_users=50, samples=200, seed=5).bins.values():
        assert max(weights.values()) > 0
        assert all(np.isfinite(weight) for weight in weights.values())


def test_a_bin_of_few_users_has_the_weights_of_all() -> None:
    bins = learned_from(planted(600, long=0.03)).bins
    assert bins[10] == bins[0]
    assert bins[0]["popularity"] == 1.0


def test_the_search_leads_to_a_better_ndcg_than_its_start() -> None:
    cases, unseen = planted(600, long=1.0), planted(600, long=1.0, seed=2)
    weights = learned_from(cases).bins[10]
    before = unseen.ndcg(np.ones(5)).mean()
    assert unseen.ndcg(np.array([weights[name] for name in COMPONENTS])).mean() > before + 0.1


def test_without_a_gain_the_start_stands_but_for_what_gains_nothing_in_it() -> None:
    draw = np.random.default_rng(4)
    noise = Cases(
        draw.normal(size=(5, 200, 60)).astype(np.float32),
        np.ones((200, 60), np.bool_),
        draw.random((200, 60)) < 0.1,
        np.full(200, 9),
        np.zeros(200, np.int64),
    )
    start = {"als": 1.0, "content": 0.5, "history": 0.0, "popularity": 0.0, "trial": 0.25}
    got = learned(noise, start, bins=[0, 10], min_users=50, samples=500, seed=5)
    without = noise.ndcg(np.array([1.0, 0, 0, 0, 0.25])).mean()
    assert without > noise.ndcg(np.array([1.0, 0.5, 0, 0, 0.25])).mean()
    assert without > noise.ndcg(np.array([1.0, 0, 0, 0, 0])).mean()
    stands = start | {"content": 0.0}
    assert got.bins == {0: stands, 10: stands}
    assert "no proven gain over the start, which stands but for what gained nothing: content" in got.notes


def test_where_nothing_impersonal_weighs_popularity_still_settles_ties() -> None:
    weights = learned_from(planted(600, long=1.0)).bins[0]
    assert 0 < weights["popularity"] < 0.01


def test_ndcg_is_that_of_its_formula_and_ties_go_to_the_first() -> None:
    scores = np.zeros((5, 1, 4), np.float32)
    scores[ALS, 0] = [1.0, 3.0, 3.0, 9.0]
    is_item = np.array([[True, True, True, False]])
    is_hit = np.array([[True, False, True, False]])
    cases = Cases(scores, is_item, is_hit, np.array([3]), np.array([0]))
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    expected = (1 / np.log2(3) + 1 / np.log2(4)) / ideal
    assert cases.ndcg(np.array([1.0, 0, 0, 0, 0])) == pytest.approx([expected])


def test_cases_hold_every_users_candidates_beside_what_was_right() -> None:
    rows = pa.table(
        {
            "task": ["new", "old", "new", "new"],
            "user_id": ["b", "b", "a", "c"],
            "pairs": pa.array([7, 7, 0, 1], pa.int32()),
            "items": pa.array([[4, 9], [1], [3], []], pa.list_(pa.int32())),
            "scores": pa.array([[*range(10)], [0.0] * 5, [5.0] * 5, []], pa.list_(pa.float32())),
        }
    )
    right = {
        ("new", "b"): {"wanted": 3, "item_indexes": [9, 100]},
        ("new", "a"): {"wanted": 1, "item_indexes": []},
        ("new", "unheard of"): {"wanted": 1, "item_indexes": [3]},
    }
    cases = cases_from(rows, right, "new")
    assert cases.pairs.tolist() == [0, 7]
    assert cases.wanted.tolist() == [1, 3]
    assert cases.is_item.tolist() == [[True, False], [True, True]]
    assert cases.is_hit.tolist() == [[False, False], [False, True]]
    assert cases.scores[:, 1, 1].tolist() == [5, 6, 7, 8, 9]
