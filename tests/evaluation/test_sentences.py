"""The sentence that says who wins."""

from __future__ import annotations

from recsys_spark.evaluation.metrics.significance import Interval
from recsys_spark.evaluation.sentences import verdict

FAR, NEAR = Interval(0.2, 0.1, 0.3), Interval(0.01, 0.004, 0.016)


def test_a_leader_is_told_with_the_one_that_comes_nearest():
    sentence = verdict({"als": FAR, "item_knn": NEAR})
    assert sentence == "hybrid leads all 2 others in NDCG@10; nearest is item_knn by 0.0100 [0.0040, 0.0160]."


def test_a_lead_that_may_be_none_is_told_as_such():
    sentence = verdict({"als": FAR, "svd": Interval(0.001, -0.002, 0.004)}, leader="als", of="NDCG@20")
    assert sentence == (
        "als leads all 2 others in NDCG@20; nearest is svd by 0.0010 [-0.0020, 0.0040], "
        "which does not exclude zero."
    )


def test_whoever_beats_the_hybrid_is_named_with_the_bounds_turned_round():
    leads = {"als": Interval(-0.03, -0.05, -0.01), "svd": Interval(-0.01, -0.03, 0.01), "content": FAR}
    assert verdict(leads) == (
        "als beats hybrid in NDCG@10 by 0.0300 [0.0100, 0.0500]; ahead of it are also svd."
    )
