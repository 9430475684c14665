"""Items that nobody has had, on the first days of the made-up shop."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from recsys_spark.data.reading import preferences_on
from recsys_spark.evaluation.cold_start import judge_cold_start
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import (
    MODEL_COLD_ITEM_FACTORS,
    MODEL_ITEM_FACTORS,
    MODEL_POPULARITY,
    SILVER_INTERACTIONS,
)
from recsys_spark.models.versions import of_version, train_earlier_once, train_once
from recsys_spark.names import COMPONENTS
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import lists
from recsys_spark.ranking.rankable import hybrids, rankable_catalogue, user_factors
from tests.jobs.conftest import Night
from tests.settings import changed
from tests.shop import ITEMS

SMALL = {"enabled": True, "min_items": 20, "dims": 10}
THIRD_DAY = date(2024, 1, 3)


@pytest.mark.parametrize(("enabled", "kept"), [(True, 0.3), (False, 0.0)])
def test_a_nights_lists_keep_places_where_cold_items_are_switched_on(
    night: Night, enabled: bool, kept: float
) -> None:
    cold = {"enabled": enabled, "places": 0.3}
    job = replace(night.job, settings=changed(night.job.settings, cold_items=cold))
    assert {blend.newcomers for blend in hybrids(job, job.run.run_id).values()} == {kept}


@pytest.mark.soak  # one more training; tests/models/test_cold_items.py holds the map to its oracle
def test_items_without_an_event_compete_by_their_words(night: Night) -> None:
    job = replace(night.job, settings=changed(night.job.settings, cold_items=SMALL))
    pairs = preferences_on(job, THIRD_DAY)
    version = train_earlier_once(job, THIRD_DAY, pairs)
    warm, cold = (
        {row["item_id"] for row in of_version(job, table, version).collect()}
        for table in (MODEL_ITEM_FACTORS, MODEL_COLD_ITEM_FACTORS)
    )
    assert not warm & cold
    assert len(warm | cold) == ITEMS
    catalogue = rankable_catalogue(job, version, THIRD_DAY)
    by_als = Variant("new_items_only", "als", {name: float(name == "als") for name in COMPONENTS})
    rows = lists(
        pairs.select("user_id").distinct(),
        preferences=pairs,
        user_factors=user_factors(job, version),
        catalogue=catalogue,
        variants=[by_als, replace(by_als, model="keeping", newcomers=0.3)],
        k=10,
        partitions=2,
    ).collect()
    catalogue.release()
    kept = [row for row in rows if row["model"] == "keeping" and row["source"] == "cold_item"]
    assert {row["rank"] for row in kept} == {8, 9, 10}
    assert {row["item_id"] for row in kept} <= cold
    listed = {row["item_id"] for row in rows if row["model"] == "als"}
    assert listed & cold
    assert listed & warm


@pytest.mark.soak  # one more training
def test_withheld_items_are_known_by_their_words_only(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    versions: list[str] = []

    def noted(job: Job, version: str, *args: object, **knobs: object) -> None:
        versions.append(version)
        train_once(job, version, *args, **knobs)

    monkeypatch.setattr("recsys_spark.evaluation.cold_start.train_once", noted)
    small = SMALL | {"enabled": False}
    job = replace(night.job, settings=changed(night.job.settings, cold_items=small))
    judgement = judge_cold_start(job)
    (version,) = versions
    warm, mapped, sold = (
        {row["item_id"] for row in of_version(job, table, version).collect()}
        for table in (MODEL_ITEM_FACTORS, MODEL_COLD_ITEM_FACTORS, MODEL_POPULARITY)
    )
    known = {f"i{item:03d}" for item in range(ITEMS)}
    assert mapped == known - warm
    # Poison that is taken is of items that have no row of their own: wanted, and nobody can know them.
    sold_at_all = {row["item_id"] for row in job.read(SILVER_INTERACTIONS).select("item_id").collect()}
    strangers = sold_at_all - known - warm
    assert strangers
    assert judgement.items == len(mapped) + len(strangers)
    assert not mapped & (warm | sold)
    # 50 places of 120 items hold much by chance; what one category's words tell is more than that.
    assert 0.4 < judgement.random < 0.5
    assert judgement.recall["content"].low > judgement.random
    assert judgement.recall["als"].mean > judgement.random
    assert judgement.recall["popularity"].mean < judgement.random
    assert judgement.rest["popularity"][1].mean == 0, "words change no popularity"
