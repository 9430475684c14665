"""Figures by length of history against a plain-Python oracle."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from recsys_spark.evaluation.slices import BINS, by_history

SCORES = "task string, model string, user_id string, n long, `ndcg@10` double"


def bin_of(items: int) -> str:
    return [name for least, name in BINS if items >= least][-1]


def test_users_are_averaged_in_the_bin_of_what_they_had(frame):
    rng = random.Random(1)
    had = {f"u{n}": size for n, size in enumerate([0, 1, 9, 10, 99, 100, 101, 3, 0, 55])}
    scores, values = [], defaultdict(list)
    for task in ("repeats_allowed", "new_items_only"):
        for model in ("hybrid", "als"):
            for user, size in had.items():
                is_judged, value = rng.random() < 0.8, rng.random()
                scores.append((task, model, user, int(is_judged), value if is_judged else None))
                if is_judged:
                    values[task, model, bin_of(size)].append(value)
    pairs = frame(
        "user_id string, item_id string", [(user, f"i{n}") for user, size in had.items() for n in range(size)]
    )
    rows = by_history(frame(SCORES, scores), pairs, metric="ndcg@10").collect()
    found = {(row["task"], row["model"], row["history"]): (row["value"], row["users"]) for row in rows}
    assert found == {
        key: (pytest.approx(sum(of_bin) / len(of_bin)), len(of_bin)) for key, of_bin in values.items()
    }


def test_the_longest_histories_have_a_bin_of_their_own():
    assert [bin_of(items) for items in (499, 500, 10**6)] == ["100-499", "500+", "500+"]
