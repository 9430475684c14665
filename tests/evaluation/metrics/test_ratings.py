"""Predicted ratings against a plain-Python oracle."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from recsys_spark.config.sections import Ratings
from recsys_spark.evaluation.metrics.ratings import judged_ratings, new_ratings, with_prediction
from tests.evaluation.metrics import oracle

SCALE = Ratings(event_type="rating", min=1.0, max=5.0, neutral=3.0, low="exclude")
RATED = "user_id string, item_id string, rating double"


def test_errors_are_over_the_pairs_with_factors_and_predictions_stay_on_the_scale(frame):
    rng = random.Random(3)
    users = {f"u{n}": [rng.uniform(-1, 3), rng.uniform(0, 2)] for n in range(12)}
    items = {f"i{n}": [rng.uniform(0, 2), rng.uniform(0, 2)] for n in range(15)}
    pairs = [(f"u{rng.randrange(15)}", f"i{n}") for n in range(18) for _ in range(4)]
    rated = {pair: rng.choice([1.0, 2.5, 4.0, 5.0]) for pair in pairs}
    expected, cut = [], 0
    for (user, item), rating in rated.items():
        if user in users and item in items:
            product = sum(x * y for x, y in zip(users[user], items[item], strict=True))
            expected.append((rating, min(max(product, 1.0), 5.0)))
            cut += not 1.0 <= product <= 5.0
    assert 0 < cut < len(expected) < len(rated)
    predicted = with_prediction(
        frame(RATED, [(*pair, rating) for pair, rating in rated.items()]),
        user_factors=frame("user_id string, factors array<double>", list(users.items())),
        item_factors=frame("item_id string, factors array<double>", list(items.items())),
        scale=SCALE,
    )
    judged = judged_ratings(predicted)
    assert (judged.pairs, judged.unknown) == (len(expected), len(rated) - len(expected))
    assert judged.values == {"als": pytest.approx(oracle.rating_errors(expected), abs=1e-9)}


def test_other_models_are_judged_by_the_same_pairs(frame):
    predicted = frame(
        f"{RATED}, predicted double",
        [("u", "a", 4.0, 3.0), ("u", "b", 2.0, 2.5), ("v", "a", 1.0, None)],
    )
    beside = pa.table(
        {
            "model": ["bias"] * 3,
            "user_id": ["u", "u", "v"],
            "item_id": ["b", "a", "a"],
            "predicted": [2.0, 3.5, 5.0],
        }
    )
    judged = judged_ratings(predicted, beside)
    assert judged.values == {
        "als": pytest.approx(oracle.rating_errors([(4.0, 3.0), (2.0, 2.5)])),
        "bias": pytest.approx(oracle.rating_errors([(4.0, 3.5), (2.0, 2.0)])),
    }
    assert (judged.pairs, judged.unknown) == (2, 1)


def test_ratings_of_the_window_are_those_of_pairs_that_were_not_rated_before(frame):
    events = frame(
        "user_id string, item_id string, event_type string, value double",
        [
            ("u", "a", "rating", 4.0),
            ("u", "b", "rating", 1.0),
            ("v", "a", "purchase", 9.0),
            ("v", "b", "rating", None),
            ("v", "c", "rating", 2.0),
        ],
    )
    before = frame("user_id string, item_id string", [("u", "a"), ("v", "b")])
    new = new_ratings(events, before, event_type="rating").orderBy("user_id").collect()
    assert [tuple(row) for row in new] == [("u", "b", 1.0), ("v", "c", 2.0)]
