"""What `recsys evaluate` prints and writes of a judgement, without one being made."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recsys_spark.cli import app
from recsys_spark.evaluation.judgement import Judgement
from recsys_spark.evaluation.metrics.ratings import RatingJudgement
from recsys_spark.evaluation.metrics.significance import Interval
from recsys_spark.names import COMPONENTS, TASKS

NAMES = (
    *("precision", "recall", "f1", "ndcg", "map", "hit_rate", "coverage", "mean_popularity"),
    *("recall_capped", "mrr", "serendipity", "diversity", "novelty", "gini"),
)
MODELS = ("hybrid", *COMPONENTS, "item_knn")


def judgement() -> Judgement:
    """Every figure differs: a model's number before the point, a metric's after it. item_knn beats the hybrid."""
    values = {
        model: {f"{name}@10": m + n / 100 for n, name in enumerate(NAMES)} for m, model in enumerate(MODELS)
    }
    leads = {model: Interval(0.2, 0.1, 0.3) for model in COMPONENTS}
    leads["item_knn"] = Interval(-0.004, -0.006, -0.001)
    ndcg = dict.fromkeys(MODELS, 0.125)
    slices = {
        "history": {"1-9": (30, {**ndcg, "hybrid": 0.777}), "0": (11, ndcg)},
        "items": {"nobody had": (5, {**ndcg, "content": 0.3333})},
        "segment": {f"s{n}": (n, ndcg) for n in range(1, 11)},
    }
    return Judgement(
        date(2024, 5, 6),
        date(2024, 6, 2),
        dict.fromkeys(TASKS, values),
        dict.fromkeys(TASKS, 41),
        dict.fromkeys(TASKS, leads),
        dict.fromkeys(TASKS, slices),
        {task: {"1-9": ("als", Interval(0.0123, 0.01, 0.02))} for task in TASKS},
        ("item_knn",),
        ("something is left out",),
        RatingJudgement({"als": {"rmse": 0.91, "mae": 0.7}, "bias": {"rmse": 0.88, "mae": 0.68}}, 40, 3),
    )


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict]:
    monkeypatch.setattr("recsys_spark.commands.judge.evaluation_tables.job_of", lambda *_: None)
    monkeypatch.setattr(
        "recsys_spark.commands.judge.evaluation_tables.nights.judge_by_window", lambda *_, **__: judgement()
    )
    out = tmp_path / "figures.json"
    done = CliRunner().invoke(
        app, ["evaluate", "--env", "demo", "--run-date", "2024-06-02", "--json", str(out)]
    )
    assert done.exit_code == 0, done.output
    return done.stdout, json.loads(out.read_text())


def row_of(text: str, model: str, nth: int) -> list[str]:
    """The cells of the model's nth row in the whole output."""
    rows = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row] for row in rows if row[0].strip() == model][nth]


def test_the_tables_hold_every_metric_and_slice(printed: tuple[str, dict]) -> None:
    text, _ = printed
    assert row_of(text, "als", 0)[1:] == [f"{1 + n / 100:.4f}" for n in range(8)] + [
        "+0.2000 [+0.1000, +0.3000]"
    ]
    assert row_of(text, "als", 1)[1:] == [f"{1 + n / 100:.4f}" for n in range(8, 14)]
    assert row_of(text, "hybrid", 2)[1:] == ["0.1250", "0.7770", "0.1250"]
    assert row_of(text, "content", 2)[1:] == ["0.1250", "0.1250", "0.3333"]
    assert row_of(text, "component", 0) == ["component", "", "[+0.0100, +0.0200]", ""]
    assert "NDCG@10 by segment (8 of 10)" in text
    assert "(10 users)" in text
    assert "(2 users)" not in text


def test_a_sentence_under_each_task_says_who_wins(printed: tuple[str, dict]) -> None:
    text, _ = printed
    sentence = "item_knn beats hybrid in NDCG@10 by 0.0040 [0.0010, 0.0060]."
    assert text.splitlines().count(sentence) == len(TASKS)
    assert "something is left out" in text


def test_predicted_ratings_are_told_with_what_could_not_be_predicted(printed: tuple[str, dict]) -> None:
    text, figures = printed
    assert "40 ratings of pairs that were not rated before; 3 further ones are of users or items" in text
    assert row_of(text, "bias", 0) == ["bias", "0.8800", "0.6800"]
    assert figures["ratings"]["als"] == {"rmse": 0.91, "mae": 0.7}


def test_json_has_slices_and_leads_among_the_figures_of_a_model(printed: tuple[str, dict]) -> None:
    figures = printed[1]["new_items_only"]
    assert set(figures) == set(MODELS)
    assert figures["hybrid"]["gini@10"] == 0.13
    assert figures["hybrid"]["ndcg@10|history:1-9"] == 0.777
    assert figures["content"]["ndcg@10|items:nobody had"] == 0.3333
    assert figures["item_knn"]["ndcg@10|segment:s1"] == 0.125
    lead = "hybrid_leads_ndcg@10"
    assert {name: figures["item_knn"][name] for name in (lead, f"{lead}_low", f"{lead}_high")} == {
        lead: -0.004,
        f"{lead}_low": -0.006,
        f"{lead}_high": -0.001,
    }
    assert figures["als"]["hybrid_leads_ndcg@10|history:1-9_low"] == 0.01
