"""Items that nobody has had, on the first days of the made-up shop."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from recsys_spark.config import COMPONENTS
from recsys_spark.data.reading import preferences_on
from recsys_spark.lake.tables import MODEL_COLD_ITEM_FACTORS, MODEL_ITEM_FACTORS
from recsys_spark.models.versions import of_version, train_earlier_once
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import lists
from recsys_spark.ranking.rankable import rankable_catalogue, user_factors
from tests.jobs.conftest import Night
from tests.shop import ITEMS

THIRD_DAY = date(2024, 1, 3)


@pytest.mark.soak  # one more training; tests/models/test_cold_items.py holds the map to its oracle
def test_items_without_an_event_compete_by_their_words(night: Night) -> None:
    settings = night.job.settings
    enabled = settings.cold_items.model_copy(update={"enabled": True, "min_items": 20, "dims": 10})
    job = replace(night.job, settings=settings.model_copy(update={"cold_items": enabled}))
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
        variants=[by_als],
        k=10,
        partitions=2,
    ).collect()
    catalogue.shared.release()
    listed = {row["item_id"] for row in rows}
    assert listed & cold
    assert listed & warm
