"""From which night a warm start takes its factors, and what is kept of a training."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.sections import Als, Settings
from recsys_spark.lake.job import Job
from recsys_spark.lake.runs import open_run
from recsys_spark.lake.tables import MODEL_ALS_TRAINING, MODEL_ITEM_FACTORS, MODEL_USER_FACTORS
from recsys_spark.models.als.nights import earlier_night
from recsys_spark.models.versions import train_als_once
from tests.conftest import Frame
from tests.models.als.test_fit import PAIRS, als
from tests.models.als.test_linear import EVENTS
from tests.settings import demo_in


def with_als(root: Path, trained_by: Als) -> Settings:
    """The demo's settings with a lake under root and these of ALS."""
    return demo_in(root).model_copy(update={"als": trained_by})


@pytest.mark.soak  # two trainings and some twenty Delta commits
def test_a_night_begins_from_the_one_before_it_and_says_so_but_a_backtest_does_not(
    spark: SparkSession, frame: Frame, tmp_path: Path
) -> None:
    settings = with_als(tmp_path, als(rank=3, alpha=2.0, iterations=3, warm_start=True))
    pairs = frame(PAIRS, [(f"u{u}", f"i{i}", 1.0) for u in range(8) for i in range(6) if (u * i) % 3 != 1])
    versions = []
    for day in (date(2024, 5, 2), date(2024, 5, 3)):
        job = Job(spark, settings, day)
        versions.append(open_run(job.lake, settings, day).run_id)
        assert train_als_once(job, versions[-1], pairs)
    rows = job.read(MODEL_ALS_TRAINING).orderBy("model_version", "iteration").collect()
    assert [(row["model_version"], row["iteration"], row["started_from"]) for row in rows] == [
        *((versions[0], n, None) for n in (1, 2, 3)),
        *((versions[1], n, versions[0]) for n in (1, 2, 3)),
    ]
    assert rows[3]["loss"] < rows[2]["loss"] < rows[0]["loss"]
    assert json.loads(rows[0]["parameters"])["rank"] == 3
    assert {row["trainer"] for row in rows} == {"cg"}
    # A backtest judges by days before this night: it may know nothing of nights at all.
    assert earlier_night(job, "backtest-20240405-0123456789") is None
    # Another rank is another model, and another environment another shop.
    for other in ({"als": als(rank=5, warm_start=True)}, {"env": "elsewhere"}):
        assert earlier_night(Job(spark, settings.model_copy(update=other), job.run_date), versions[1]) is None


def test_a_night_with_other_factors_in_the_place_of_als_keeps_them_and_how_they_were_made(
    spark: SparkSession, frame: Frame, tmp_path: Path
) -> None:
    settings = with_als(tmp_path, als(trainer="item2vec", rank=3))
    job = Job(spark, settings, date(2024, 5, 2))
    version = open_run(job.lake, settings, job.run_date).run_id
    pairs = frame(PAIRS, [(f"u{u}", f"i{i}", 1.0) for u in range(8) for i in range(6)])
    events = frame(
        EVENTS, [(f"e{u}-{i}", f"u{u}", f"i{i}", "2024-01-01", None) for u in range(8) for i in range(5)]
    )
    assert train_als_once(job, version, pairs, events=events) == "trained"
    [kept] = job.read(MODEL_ALS_TRAINING).collect()
    assert (kept["trainer"], kept["loss"], kept["started_from"]) == ("item2vec", None, None)
    assert sorted(row["item_id"] for row in job.read(MODEL_ITEM_FACTORS).collect()) == [
        f"i{n}" for n in range(5)
    ]
    users = job.read(MODEL_USER_FACTORS).collect()
    assert sorted(row["user_id"] for row in users) == [f"u{n}" for n in range(8)]
    assert len({tuple(row["factors"]) for row in users}) == 1, "all had the same"
