"""A judgement as the lake keeps it, read back."""

from __future__ import annotations

from recsys_spark.evaluation.stored import stored


def row(model: str, metric: str, value: float, low: float | None = None, high: float | None = None) -> dict:
    values = {"value": value, "low": low, "high": high, "users": 40}
    return {"task": "repeats_allowed", "model": model, "metric": metric, **values}


def test_a_stored_judgement_gives_figures_who_wins_and_slices():
    figures = stored(
        [
            row("als", "ndcg@10", 0.3, 0.05, 0.15),
            row("item_knn", "ndcg@10", 0.42, -0.03, -0.01),
            row("hybrid", "ndcg@10", 0.4),
            row("hybrid", "mrr@10", 0.7),
            row("hybrid", "ndcg@10|segment:a: b", 0.5),
            row("als", "ndcg@10|segment:a: b", 0.2),
        ]
    )
    assert figures.metrics["repeats_allowed"]["hybrid"] == {"ndcg@10": 0.4, "mrr@10": 0.7}
    assert figures.verdicts == {
        "repeats_allowed": "item_knn beats hybrid in NDCG@10 by 0.0200 [0.0100, 0.0300]."
    }
    assert figures.slices == {"repeats_allowed": {"segment": {"a: b": (40, {"hybrid": 0.5, "als": 0.2})}}}
