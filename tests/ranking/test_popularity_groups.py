"""Users of whom nothing is known get what is popular in their group; nobody else's list changes."""

from __future__ import annotations

from math import log1p
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import catalogue_of, lists
from recsys_spark.ranking.reasons import explained
from recsys_spark.runtime.rows import frame_of
from tests.frames import frames, ids

ITEMS = 12
USERS = {number: (50 - 4 * number, number % 5) for number in range(ITEMS)}  # users, new users
GROUPS = {
    "segment=far": {number: float((7 * number) % ITEMS) for number in range(ITEMS)},
    "segment=near": {3: 9.0, 8: 2.5, 1: 2.0},
}
# What each is: factors, preferences, group. u5's only preference says that they did not like it.
PEOPLE: dict[str, tuple[list[float], dict[int, float], str | None]] = {
    "u0": ([], {}, "segment=near"),
    "u1": ([], {}, "segment=far"),
    "u2": ([], {}, "segment=unheard of"),
    "u3": ([], {}, None),
    "u4": ([0.5, -1.0], {2: 1.0}, "segment=near"),
    "u5": ([], {3: 0.0}, "segment=near"),
    "u6": ([], {4: 2.0}, "segment=far"),
}
WEIGHTS = {
    "repeats_allowed": {"als": 0.5, "content": 0.1, "history": 1.0, "popularity": 0.3, "trial": 0.0},
    "new_items_only": {"als": 1.0, "content": 0.3, "history": 0.0, "popularity": 0.0, "trial": 2.0},
}
CARRIED = {"u0": "segment=near", "u1": "segment=far", "u5": "segment=near"}


def name(item: int) -> str:
    return f"i{item:02d}"


def ranked(spark: SparkSession, *, with_groups: bool, partitions: int = 2) -> list[Any]:
    """The explained lists of everyone and both tasks."""
    pairs = [(u, name(i), s, s == 0) for u, (_, had, _) in PEOPLE.items() for i, s in had.items()]
    counts = [(name(i), users, new, i % 4 != 0) for i, (users, new) in USERS.items()]
    grouped = [(group, name(i), users) for group, items in GROUPS.items() for i, users in items.items()]
    draw = np.random.default_rng(2)
    factors = [(name(i), [float(v) for v in draw.normal(size=2)]) for i in range(ITEMS)]
    words = [(name(i), [i % 3], [1.0]) for i in range(ITEMS)]
    catalogue = catalogue_of(
        **frames(
            spark,
            items=ids(map(name, range(ITEMS))),
            factors=factors,
            vectors=words,
            popularity=counts,
            **({"group_popularity": grouped} if with_groups else {}),
        )
    )
    users = [(user, group) for user, (_, _, group) in PEOPLE.items()]
    known = [(user, factors) for user, (factors, _, _) in PEOPLE.items() if factors]
    variants = [Variant(task, "hybrid", weights) for task, weights in WEIGHTS.items()]
    rows = lists(
        frame_of(spark, users, "user_id string, popularity_group string").repartition(3),
        preferences=frame_of(
            spark, pairs, "user_id string, item_id string, strength double, is_excluded boolean"
        ),
        **frames(spark, user_factors=known),
        catalogue=catalogue,
        variants=variants,
        k=4,
        partitions=partitions,
    )
    slots = explained(rows).collect()
    catalogue.shared.release()
    return sorted(slots, key=lambda row: (row["task"], row["user_id"], row["rank"]))


@pytest.fixture(scope="module")
def grouped(spark: SparkSession) -> list[Any]:
    return ranked(spark, with_groups=True)


def test_a_user_without_factors_and_history_gets_what_is_popular_in_the_group(grouped: list[Any]) -> None:
    for task, weights in WEIGHTS.items():
        for user, group in CARRIED.items():
            rows = [row for row in grouped if (row["task"], row["user_id"]) == (task, user)]
            logs = {i: log1p(GROUPS[group].get(i, 0.0)) for i in range(ITEMS)}
            deviation = np.std([value for i, value in logs.items() if i % 4 != 0])
            free = [i for i in logs if i not in PEOPLE[user][1]]
            best = sorted(free, key=lambda i: (-logs[i], i))[:4]
            assert [row["item_id"] for row in rows] == [name(i) for i in best], (task, user)
            plain = [logs[i] / deviation for i in best]
            assert [row["component_scores"]["popularity_group"] for row in rows] == pytest.approx(plain)
            weight = max(weights["popularity"], weights["trial"])
            assert [row["score"] for row in rows] == pytest.approx([weight * value for value in plain])
            # Of `near` three items are known, and u5 may not get the first of them.
            carried = [row["source"] == "popularity_group" for row in rows]
            assert carried == [logs[i] > 0 for i in best]
            assert rows[0]["reason"] == "Popular with customers like you lately"
            assert not {"popularity", "trial"} & set(rows[0]["component_scores"])


def test_groups_change_no_list_of_anyone_else(spark: SparkSession, grouped: list[Any]) -> None:
    plain = ranked(spark, with_groups=False)
    others = [row for row in grouped if row["user_id"] not in CARRIED]
    assert others == [row for row in plain if row["user_id"] not in CARRIED]
    assert {row["user_id"] for row in others} == {"u2", "u3", "u4", "u6"}
    assert not any("popularity_group" in row["component_scores"] for row in others)


def test_who_else_is_ranked_with_a_user_changes_no_row(spark: SparkSession, grouped: list[Any]) -> None:
    assert ranked(spark, with_groups=True, partitions=7) == grouped
