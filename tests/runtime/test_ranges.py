"""Partitions that are ranges of a key, against the sorted keys."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from pyspark.sql import functions as F

from recsys_spark.runtime.ranges import bounds_reached, in_ranges
from tests.conftest import Frame

KEY = ("campaign", "user_id")


@pytest.mark.parametrize("users", [1, 3, 700])
def test_partitions_are_ranges_in_order_and_hold_every_row_once(frame: Frame, users: int) -> None:
    draw = random.Random(7)
    rows = [(draw.choice(["b", "a", "ä"]), f"u{draw.randrange(users)}", n) for n in range(2000)]
    given = frame("campaign string, user_id string, n int", rows, 5)
    found = (
        in_ranges(given, KEY, keys=given, partitions=4).withColumn("part", F.spark_partition_id()).collect()
    )
    assert sorted((row["campaign"], row["user_id"], row["n"]) for row in found) == sorted(rows)
    held = [[(row["campaign"], row["user_id"]) for row in found if row["part"] == part] for part in range(4)]
    for before, after in pairwise(held):
        assert not before or not after or max(before) < min(after)
    if users == 700:
        assert min(len(part) for part in held) > 300, "the ranges are about equal"


def test_a_sample_that_knows_few_of_the_keys_tears_none(frame: Frame) -> None:
    rows = [("a", f"u{n % 40:02d}", n) for n in range(400)]
    given = frame("campaign string, user_id string, n int", rows, 3)
    few = given.where("user_id in ('u07', 'u31')")
    found = in_ranges(given, KEY, keys=few, partitions=3).withColumn("part", F.spark_partition_id())
    parts = dict(found.select("user_id", "part").distinct().collect())
    assert len(parts) == 40
    assert found.select("user_id", "part").distinct().count() == 40
    assert [parts[user] for user in sorted(parts)] == sorted(parts.values())
    assert len(set(parts.values())) > 1


def test_without_keys_all_is_one_range(frame: Frame) -> None:
    given = frame("campaign string, user_id string, n int", [], 2)
    assert in_ranges(given, KEY, keys=given, partitions=3).collect() == []


def test_as_many_ranges_as_a_large_cluster_has_are_no_deeper_plan(frame: Frame) -> None:
    """A sum of five hundred comparisons is a plan that overflows Spark's stack."""
    given = frame("campaign string, user_id string", [("a", f"u{n:04d}") for n in range(1000)], 2)
    bounds = [("a", f"u{n:04d}") for n in range(2, 1000, 2)]
    found = given.select("user_id", bounds_reached(KEY, bounds).alias("part")).collect()
    assert {row["user_id"]: row["part"] for row in found} == {f"u{n:04d}": n // 2 for n in range(1000)}
