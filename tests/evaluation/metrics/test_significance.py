"""The bootstrap against known distributions; pairs that are pairs."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_spark.evaluation.metrics import significance
from recsys_spark.evaluation.metrics.significance import Interval, paired_bootstrap, paired_scores

PER_USER = "task string, model string, user_id string, metric string, value double"


def test_the_interval_is_that_of_the_normal_distribution_for_many_users():
    differences = np.random.default_rng(1).normal(0.02, 0.3, size=4_000)
    error = differences.std() / np.sqrt(differences.size)
    interval = paired_bootstrap(differences, seed=7)
    assert interval.mean == pytest.approx(differences.mean(), abs=1e-15)
    assert interval.low == pytest.approx(differences.mean() - 1.96 * error, abs=0.06 * error)
    assert interval.high == pytest.approx(differences.mean() + 1.96 * error, abs=0.06 * error)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    # 2,000 trials have a standard error of 0.007; percentile intervals fall short by 0.01 at 150 users.
    rng, trials = np.random.default_rng(2), 2_000
    held = 0
    for trial in range(trials):
        interval = paired_bootstrap(
            rng.exponential(1.0, size=150) - 1.0, samples=1_000, seed=trial, level=0.9
        )
        held += interval.low <= 0.0 <= interval.high
    assert held / trials == pytest.approx(0.9, abs=0.035)


def test_a_clear_difference_excludes_zero_and_noise_does_not():
    rng = np.random.default_rng(4)
    assert paired_bootstrap(rng.normal(0.1, 0.2, 500), seed=1).excludes_zero
    assert paired_bootstrap(rng.normal(-0.1, 0.2, 500), seed=1).excludes_zero
    assert not paired_bootstrap(np.tile([0.1, -0.1], 250), seed=1).excludes_zero
    assert not paired_bootstrap(np.zeros(10), seed=1).excludes_zero


def test_one_seed_gives_one_interval_however_much_memory_there_is(monkeypatch):
    differences = np.random.default_rng(5).normal(size=97)
    whole = paired_bootstrap(differences, samples=999, seed=11)
    monkeypatch.setattr(significance, "DRAWS_PER_CHUNK", 1_000)
    assert paired_bootstrap(differences, samples=999, seed=11) == whole
    assert paired_bootstrap(differences, samples=999, seed=12) != whole


def test_a_wider_level_gives_a_wider_interval():
    differences = np.random.default_rng(6).normal(size=200)
    narrow, wide = (paired_bootstrap(differences, seed=1, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_equal_differences_leave_no_room():
    assert paired_bootstrap(np.full(8, 0.25), seed=1) == Interval(mean=0.25, low=0.25, high=0.25)


@pytest.mark.parametrize(
    ("differences", "knobs", "message"),
    [
        ([], {}, "at least one"),
        ([[1.0]], {}, "one number a user"),
        ([1.0, float("nan")], {}, "finite"),
        ([1.0], {"samples": 0}, "samples: got 0"),
        ([1.0], {"level": 1.0}, "level: got 1.0"),
    ],
)
def test_what_has_no_interval_is_refused(differences, knobs, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(np.array(differences), seed=1, **knobs)


def test_pairs_are_by_user_and_in_the_order_of_user_ids(frame):
    per_user = frame(
        PER_USER,
        [
            # Other tasks and metrics order the models the other way round, so that a mix-up shows.
            (task, model, user, metric, value if (task, metric) == ("t", "ndcg@10") else 7.0 - 2 * value)
            for user, als, hybrid in (("u10", 0.5, 0.75), ("u2", 1.0, 0.0), ("u1", 0.25, 0.5))
            for model, value in (("als", als), ("hybrid", hybrid), ("content", 9.0))
            for task, metric in (("t", "ndcg@10"), ("t", "map@10"), ("other", "ndcg@10"))
        ],
    )
    paired = paired_scores(per_user, metric="ndcg@10", models=["hybrid", "als", "content"], task="t")
    assert paired.users == ["u1", "u10", "u2"]
    assert paired.difference("hybrid", "als").tolist() == [0.25, 0.25, -1.0]
    assert paired.difference("hybrid", "content").tolist() == [-8.5, -8.25, -9.0]
    assert paired.difference("hybrid", "als").dtype == np.float64


def test_a_model_that_is_not_there_is_named(frame):
    per_user = frame(PER_USER, [("t", "als", "u1", "ndcg@10", 0.5), ("t", "als", "u2", "ndcg@10", 0.5)])
    with pytest.raises(ValueError, match="no rows of metric 'ndcg@10', task 't', model 'hybrd'"):
        paired_scores(per_user, metric="ndcg@10", models=["hybrd", "als"], task="t")
    with pytest.raises(ValueError, match="no rows of metric 'ndcg@5', task 't'"):
        paired_scores(per_user, metric="ndcg@5", models=["als", "als"], task="t")


def test_a_user_with_one_model_only_is_no_pair(frame):
    per_user = frame(
        PER_USER, [("t", m, u, "ndcg@10", 0.5) for m, u in (("a", "u1"), ("a", "u2"), ("b", "u1"))]
    )
    with pytest.raises(ValueError, match=r"1 of 2 users .* other models than 'b' only, user 'u2' first"):
        paired_scores(per_user, metric="ndcg@10", models=["a", "b"], task="t")
