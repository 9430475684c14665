"""An item that nobody has had counts as popular as the mean, not as what nobody wants."""

from __future__ import annotations

from math import log1p

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.names import COMPONENTS
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import catalogue_of, lists
from recsys_spark.ranking.reasons import explained
from recsys_spark.runtime.rows import frame_of
from tests.frames import frames, ids

# By item: users and first-time users lately, or None for an item that nobody has had; i5 is of long ago.
COUNTS = {"i0": (40, 9), "i1": (9, 8), "i2": (2, 1), "i3": (1, 0), "i4": None, "i5": (0, 0), "i6": None}
REFERENCE = ("i0", "i1", "i2", "i3")
WEIGHTS = {"als": 0.0, "content": 0.0, "history": 0.0, "popularity": 1.0, "trial": 0.5}


@pytest.mark.parametrize("prior", [0.0, 1.0, 1.5])
def test_unknown_popularity_is_the_mean_of_what_is_sold(spark: SparkSession, prior: float) -> None:
    cold = [item for item, counts in COUNTS.items() if counts is None]
    known = [(item, *counts, item in REFERENCE) for item, counts in COUNTS.items() if counts]
    catalogue = catalogue_of(
        **frames(spark, items=ids(COUNTS), factors=[], vectors=[("i0", [0], [1.0])], popularity=known),
        cold=frame_of(spark, [(item, [0.0]) for item in cold], "item_id string, factors array<float>"),
        prior=prior,
    )
    is_sold = catalogue.shared.load().extra["is_sold"].tolist()
    ranked = lists(
        **frames(spark, users=[("u",)], preferences=[], user_factors=[]),
        catalogue=catalogue,
        variants=[Variant("new_items_only", "hybrid", WEIGHTS)],
        k=len(COUNTS),
        partitions=1,
    )
    rows = explained(ranked, cold_items=frame_of(spark, ids(cold), "item_id string"))
    slots = {row["item_id"]: row for row in rows.collect()}
    catalogue.shared.release()

    score = dict.fromkeys(COUNTS, 0.0)
    for place, name in enumerate(("popularity", "trial")):
        logs = {item: log1p(counts[place]) for item, counts in COUNTS.items() if counts}
        reference = [logs[item] for item in REFERENCE]
        logs |= dict.fromkeys(cold, prior * float(np.mean(reference)))
        deviation = np.std(reference)
        for item, value in logs.items():
            given = slots[item]["component_scores"][name]
            assert given == pytest.approx(value / deviation, abs=1e-6), (item, name)
            score[item] += WEIGHTS[name] * value / deviation
    order = sorted(COUNTS, key=lambda item: (-round(score[item], 6), item))
    assert sorted(slots, key=lambda item: slots[item]["rank"]) == order
    assert is_sold == [bool(counts and counts[0]) for counts in COUNTS.values()], "a prior sells nothing"
    sources = {item: slots[item]["source"] for item in ("i0", *cold)}
    assert sources == {"i0": "popularity", "i4": "cold_item", "i6": "cold_item"}
    assert set(COMPONENTS) >= set(slots["i4"]["component_scores"])


def test_the_prior_holds_for_the_popularity_of_a_group_too(spark: SparkSession) -> None:
    counts = {"i0": 8.0, "i1": 3.0, "i2": 1.0}
    catalogue = catalogue_of(
        **frames(
            spark,
            items=ids([*counts, "new"]),
            factors=[],
            vectors=[("i0", [0], [1.0])],
            popularity=[(item, 1, 1, True) for item in counts],
            group_popularity=[("segment=a", item, users) for item, users in counts.items()],
            cold=[("new",)],
        ),
        prior=1.0,
    )
    ranked = lists(
        frame_of(spark, [("u", "segment=a")], "user_id string, popularity_group string"),
        **frames(spark, preferences=[], user_factors=[]),
        catalogue=catalogue,
        variants=[Variant("new_items_only", "hybrid", WEIGHTS)],
        k=4,
        partitions=1,
    )
    rows = explained(ranked, cold_items=frame_of(spark, [("new",)], "item_id string")).collect()
    catalogue.shared.release()
    logs = np.log1p(list(counts.values()))
    (newcomer,) = (row for row in rows if row["item_id"] == "new")
    expected = logs.mean() / logs.std()
    assert newcomer["component_scores"]["popularity_group"] == pytest.approx(expected, abs=1e-6)
    assert newcomer["source"] == "cold_item"
    assert [row["item_id"] for row in sorted(rows, key=lambda row: row["rank"])] == ["i0", "new", "i1", "i2"]
