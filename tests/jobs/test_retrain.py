"""Nights that train nothing: factors of an earlier night, and new users folded into them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Als
from recsys_spark.data.reading import lenient_preferences_on, preferences_on
from recsys_spark.lake.job import Job
from recsys_spark.lake.runs import open_run
from recsys_spark.lake.tables import MODEL_ALS_TRAINING, MODEL_ITEM_FACTORS, MODEL_USER_FACTORS
from recsys_spark.models.als.factors import Factors
from recsys_spark.models.als.pairs import fold_in_pairs
from recsys_spark.models.als.reuse import trained_before
from recsys_spark.models.als.solve import Objective, exact_row, gramian
from recsys_spark.models.versions import (
    backtest_version,
    of_version,
    preferences_of,
    train_als_once,
)
from recsys_spark.names import COMPONENTS
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import lists
from recsys_spark.ranking.rankable import rankable_catalogue, user_factors
from recsys_spark.runtime.rows import frame_of
from tests.jobs.conftest import Night
from tests.settings import changed

ALS_ALONE = Variant("new_items_only", "als", {name: float(name == "als") for name in COMPONENTS})
NEW = {"i006": 3.0, "i012": 1.0, "i024": 2.0}  # a newcomer who loves the first category


def later(night: Night, days: int, **als: Any) -> Job:
    """The night so many days later, opened, with other settings of als."""
    settings = changed(night.job.settings, als=als)
    job = Job(night.job.spark, settings, night.job.run_date + timedelta(days=days))
    open_run(job.lake, settings, job.run_date)
    return job


def test_a_user_who_came_after_training_gets_factors_and_a_list_without_training(
    night: Night, spark: SparkSession
) -> None:
    trained, job = night.job.run.run_id, later(night, 2, retrain_days=3)
    version = job.run.run_id
    had = [("newcomer", item, strength) for item, strength in NEW.items()]
    had += [("newcomer", "never seen", 1.0), ("lost", "never seen", 1.0), ("u000", "i001", 9.0)]
    pairs = frame_of(spark, had, "user_id string, item_id string, strength double")
    assert train_als_once(job, version, pairs) == f"factors of {trained}, 1 users folded in"

    items = {row["item_id"]: row["factors"] for row in of_version(job, MODEL_ITEM_FACTORS, version).collect()}
    before, after = (
        {row["user_id"]: (row["user_index"], row["factors"]) for row in rows.collect()}
        for rows in (of_version(job, MODEL_USER_FACTORS, one) for one in (trained, version))
    )
    index, factors = after.pop("newcomer")
    assert after == before  # "lost" has nothing that the model knows; u000 waits for the next training
    assert index == len(before)
    every = np.array([items[name] for name in sorted(items)], np.float32)
    own = np.array([items[name] for name in NEW], np.float32)
    objective = Objective.of(job.settings.als)
    expected = exact_row(own, gramian(every), np.array(list(NEW.values())), objective)
    np.testing.assert_allclose(factors, expected, rtol=1e-5, atol=1e-6)

    [kept] = of_version(job, MODEL_ALS_TRAINING, version).collect()
    assert (kept["iteration"], kept["loss"], kept["started_from"]) == (0, None, trained)
    assert kept["inputs"] == job.run.inputs
    last = of_version(job, MODEL_ALS_TRAINING, trained).orderBy(F.desc("iteration")).first()
    assert last is not None
    assert (last["iteration"], last["inputs"]) == (job.settings.als.iterations, night.job.run.inputs)
    assert last["loss"] > 0

    catalogue = rankable_catalogue(job, trained, night.job.run_date)
    ranked = lists(
        frame_of(spark, [("newcomer",)], "user_id string"),
        preferences=pairs,
        user_factors=user_factors(job, version),
        catalogue=catalogue,
        variants=[ALS_ALONE],
        k=5,
        partitions=1,
    ).collect()
    catalogue.shared.release()
    scores = {name: float(np.array(items[name]) @ expected) for name in items.keys() - NEW.keys()}
    assert [row["item_id"] for row in ranked] == sorted(scores, key=scores.__getitem__, reverse=True)[:5]
    assert {row["source"] for row in ranked} == {"als"}
    assert sum(int(row["item_id"][1:]) % 6 == 0 for row in ranked) >= 4

    # What was taken over is not taken over again: the night that trained is, while it is young enough.
    next_day = later(night, 3, retrain_days=4)
    assert trained_before(next_day, next_day.run.run_id, next_day.run_date) == trained
    next_day = replace(next_day, settings=changed(next_day.settings, als={"retrain_days": 3}))
    assert trained_before(next_day, next_day.run.run_id, next_day.run_date) is None


def test_only_factors_of_equal_settings_are_taken_over_and_a_backtest_takes_those_of_a_backtest(
    night: Night,
) -> None:
    job = later(night, 1, retrain_days=7)
    cutoff = job.run_date - timedelta(days=28)
    names = {job.run.run_id: job.run_date, backtest_version(job, cutoff): cutoff, "backtest-other": cutoff}
    earlier = backtest_version(night.job, cutoff - timedelta(days=1))
    none = [None, None, None]
    for section, values, expected in (
        ("als", {}, [night.job.run.run_id, earlier, None]),
        ("als", {"rank": 9}, none),
        ("preferences", {"half_life_days": 9.0}, none),
    ):
        other = replace(job, settings=changed(job.settings, **{section: values}))
        assert [trained_before(other, version, day) for version, day in names.items()] == expected


def test_users_of_too_few_events_are_folded_in_from_all_that_they_have(night: Night) -> None:
    strict = {"min_events_per_user": 25, "min_events_per_item": 2}
    job = replace(night.job, settings=changed(night.job.settings, preferences=strict))
    pairs = preferences_on(job, job.run_date)
    trained = {row["user_id"] for row in pairs.where("strength > 0").select("user_id").distinct().collect()}
    afresh = partial(lenient_preferences_on, job, job.run_date)
    folded_in, expected = (
        {(row["user_id"], row["item_id"]): row["strength"] for row in rows.collect()}
        for rows in (fold_in_pairs(pairs, job.settings, afresh=afresh), preferences_of(night.job))
    )
    few = {user for user, _ in expected} - trained
    assert 20 < len(few) < 180
    assert {key: value for key, value in folded_in.items() if key[0] in few} == {
        key: value for key, value in expected.items() if key[0] in few
    }
    assert {user for user, _ in folded_in} == {user for user, _ in expected}


def test_a_night_of_explicit_feedback_is_trained_on_ratings_low_ones_too(
    night: Night, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That both trainers predict what they are given is shown in tests/models/als/test_fit.py."""
    given: list[tuple[Any, ...]] = []

    class Noted(Exception):  # noqa: N818 - no error: nothing is to be stored
        pass

    def noted(pairs: DataFrame, settings: Als, **_: object) -> Factors:
        given.extend((row["user_id"], row["item_id"], row["strength"]) for row in pairs.collect())
        assert settings.feedback == "explicit"
        raise Noted

    monkeypatch.setattr("recsys_spark.models.versions.fit_als", noted)
    rows = [("u0", "liked", 0.7, 4.5), ("u0", "hated", 0.0, 0.5), ("u1", "bought", 3.0, None)]
    pairs = frame_of(spark, rows, "user_id string, item_id string, strength double, rating double")
    job = replace(night.job, settings=changed(night.job.settings, als={"feedback": "explicit"}))
    with pytest.raises(Noted):
        train_als_once(job, "explicit", pairs)
    assert sorted(given) == [("u0", "hated", 0.5), ("u0", "liked", 4.5)]
