"""The blend's weights, learned on a night of the made-up shop."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest
from pyspark.sql import functions as F

from recsys_spark.evaluation.backtest import window_events
from recsys_spark.evaluation.weights import fit as blend_fit
from recsys_spark.evaluation.weights.fit import weigh_once
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import MODEL_BLEND_WEIGHTS
from recsys_spark.names import COMPONENTS, TASKS
from recsys_spark.ranking.rankable import hybrids
from tests.jobs.conftest import Night
from tests.settings import changed

VERSION = "learned for a test"


def learning(job: Job, **changes: object) -> Job:
    blend = {"weights": "learned", "min_users": 60, "bins": [0, 12], **changes}
    return replace(job, settings=changed(job.settings, blend=blend))


def stored(job: Job, version: str) -> dict:
    rows = job.read(MODEL_BLEND_WEIGHTS).where(F.col("model_version") == version).collect()
    return {(row["task"], row["min_pairs"], row["component"]): row["weight"] for row in rows}


def test_a_night_without_learning_stores_the_configured_weights_once_for_everyone(night: Night) -> None:
    expected = {
        (task, 0, name): weight
        for task in TASKS
        for name, weight in night.job.settings.blend.fixed(task).items()
    }
    assert stored(night.job, night.job.run.run_id) == expected


def test_weights_are_learned_from_the_window_that_ends_with_the_day_and_kept(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[date, int]] = []

    def watched(job: Job, cutoff: date, *, days: int):
        looked.append((cutoff, days))
        return window_events(job, cutoff, days=days)

    monkeypatch.setattr(blend_fit, "window_events", watched)
    job = learning(night.job)
    notes = weigh_once(job, VERSION, job.run_date)
    assert looked == [(job.run_date - timedelta(days=28), 28)]
    assert any("NDCG@10" in note for note in notes)
    weights = stored(job, VERSION)
    assert set(weights) == {(task, at, name) for task in TASKS for at in (0, 12) for name in COMPONENTS}
    assert weights["repeats_allowed", 0, "history"] > 0, "half of all purchases are staples"
    assert weights["new_items_only", 0, "history"] == 0
    blend = hybrids(job, VERSION)["repeats_allowed"]
    assert blend.weights["history"] == weights["repeats_allowed", 0, "history"]
    assert set(blend.longer) == {12}
    assert weigh_once(job, VERSION, job.run_date) == ()
    assert stored(job, VERSION) == weights


def test_where_there_is_too_little_to_learn_from_the_configured_weights_stand(night: Night) -> None:
    job = learning(night.job)
    first_days = date(2024, 1, 10)
    notes = weigh_once(job, "nothing to learn from", first_days)
    assert all("as configured: no preferences on 2023-12-13" in note for note in notes)
    assert {at for _, at, _ in stored(job, "nothing to learn from")} == {0}
