"""What a user dislikes comes back in no list, and what they only know comes back where repeats may."""

from __future__ import annotations

from collections import defaultdict

from pyspark.sql import SparkSession

from recsys_spark.names import COMPONENTS, TASKS
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import catalogue_of, lists
from recsys_spark.runtime.rows import frame_of
from tests.frames import frames, ids


def test_an_excluded_pair_is_in_no_list_and_one_of_strength_0_counts_as_seen(spark: SparkSession) -> None:
    counts = [(item, 9 - n, 1, True) for n, item in enumerate("abcd")]
    catalogue = catalogue_of(**frames(spark, items=ids("abcd"), factors=[], vectors=[], popularity=counts))
    weights = {**dict.fromkeys(COMPONENTS, 0.0), "popularity": 1.0, "history": 1.0}
    pairs = [("u", "a", 0.0, True), ("u", "b", 0.0, False), ("u", "c", 2.0, False), ("v", "b", 0.0, True)]
    try:
        rows = lists(
            **frames(spark, users=ids("uvw"), user_factors=[]),
            preferences=frame_of(
                spark, pairs, "user_id string, item_id string, strength double, is_excluded boolean"
            ),
            catalogue=catalogue,
            variants=[Variant(task, "hybrid", weights) for task in TASKS],
            k=4,
            partitions=2,
        ).collect()
    finally:
        catalogue.shared.release()
    listed = defaultdict(str)
    for row in sorted(rows, key=lambda row: row["rank"]):
        listed[row["task"], row["user_id"]] += row["item_id"]
    assert listed == {
        ("repeats_allowed", "u"): "cbd",
        ("new_items_only", "u"): "d",
        ("repeats_allowed", "v"): "acd",
        ("new_items_only", "v"): "acd",
        ("repeats_allowed", "w"): "abcd",
        ("new_items_only", "w"): "abcd",
    }
