"""Figures by slices of users and of items against a plain-Python oracle."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from pyspark.sql import functions as F

from recsys_spark.evaluation.metrics.metrics import scores_of, tallies
from recsys_spark.evaluation.metrics.slices import BINS, RARE, groups_of, sliced
from tests.evaluation.metrics import oracle

LISTS = "task string, model string, user_id string, item_id string, rank int"


def bin_of(items: int) -> str:
    return [name for least, name in BINS if items >= least][-1]


def test_users_and_items_are_averaged_in_their_slices(frame):
    """Users of several histories and segments, one of neither; items that none, few and many users had."""
    rng = random.Random(1)
    had = {f"u{n}": size for n, size in enumerate([0, 1, 9, 10, 99, 100, 101, 3, 0, 55])}
    segments = {f"u{n}": ("gold", "blue", None)[n % 3] for n in range(9)}
    users_of = {f"i{n}": users for n, users in enumerate([0, 0, 1, 9, 10, 11, 40, 90])}
    lists, relevant, values = [], [], defaultdict(list)
    for task in ("repeats_allowed", "new_items_only"):
        for user, size in had.items():
            wanted = set(rng.sample(sorted(users_of), rng.randint(0, 4)))
            relevant += [(task, user, item) for item in sorted(wanted)]
            for model in ("hybrid", "als"):
                ranked = [(rank, item) for rank, item in enumerate(rng.sample(sorted(users_of), 6), 1)]
                lists += [(task, model, user, item, rank) for rank, item in ranked]
                rare = [
                    ("items", name, {item for item in wanted if users_of[item] < bound})
                    for bound, name in RARE
                ]
                of_user = [
                    ("history", bin_of(size), wanted),
                    ("segment", segments.get(user) or "unknown", wanted),
                ]
                for kind, name, items in (*of_user, *rare):
                    if items:
                        ndcg = oracle.user_metrics(ranked, items, 5)["ndcg@5"]
                        values[task, model, kind, name].append(ndcg)
    pairs = [(user, f"p{n}") for user, size in had.items() for n in range(size)]
    popularity = [(item, users / 100) for item, users in users_of.items() if users]
    tallied = tallies(
        frame(LISTS, lists),
        frame("task string, user_id string, item_id string", relevant),
        ks=(5,),
        item_popularity=frame("item_id string, popularity double", popularity),
        rare=[bound / 100 for bound, _ in RARE],
    )
    groups = groups_of(
        frame("user_id string", [(user,) for user in had]),
        pairs=frame("user_id string, item_id string", pairs),
        people=frame("user_id string, segment string", list(segments.items())),
    )
    rows = sliced(scores_of(tallied, ks=(5,)), groups, metric="ndcg@5").collect()
    found = {
        (row["task"], row["model"], row["slice"], row["name"]): (row["value"], row["users"]) for row in rows
    }
    assert len(found) == len(rows)
    assert {key[2] for key in found} == {"history", "segment", "items"}
    assert found == {key: (pytest.approx(sum(of) / len(of), abs=1e-9), len(of)) for key, of in values.items()}


def test_without_popularity_no_item_is_new(frame):
    lists = frame(LISTS, [("t", "m", "u", "a", 1)])
    relevant = frame("task string, user_id string, item_id string", [("t", "u", "a")])
    tallied = tallies(lists, relevant, ks=(1,), item_popularity=None, rare=[0.5])
    groups = frame("user_id string, history string, segment string", [("u", "0", "gold")])
    found = sliced(scores_of(tallied, ks=(1,)), groups, metric="ndcg@1").orderBy(F.desc("slice")).collect()
    assert [tuple(row) for row in found] == [
        ("t", "m", "segment", "gold", 1.0, 1),
        ("t", "m", "history", "0", 1.0, 1),
    ]


def test_the_longest_histories_have_a_bin_of_their_own():
    assert [bin_of(items) for items in (499, 500, 10**6)] == ["100-499", "500+", "500+"]
