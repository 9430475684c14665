"""What ALS learns from."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from recsys_spark.config.load import load_settings
from recsys_spark.config.sections import Settings
from recsys_spark.models.als.pairs import training_pairs
from tests.conftest import Frame
from tests.settings import changed

ROWS = [
    ("u1", "a", 2.0, 4.5),
    ("u1", "b", 0.0, 1.0),
    ("u1", "c", 1.0, None),
    ("u2", "a", 0.0, 2.0),
    ("u2", "b", 0.5, 4.0),
    ("u3", "a", 0.7, 5.0),
]


def test_strengths_above_zero_teach_or_every_rating_where_feedback_is_explicit(frame: Frame) -> None:
    pairs = frame("user_id string, item_id string, strength double, rating double", ROWS)
    implicit = load_settings("demo")
    explicit = changed(implicit, als={"feedback": "explicit"})
    rated = {(user, item, rating) for user, item, _, rating in ROWS if rating is not None}
    liked = {(user, item, strength) for user, item, strength, _ in ROWS if strength > 0}
    at_least_two = changed(explicit, preferences={"min_events_per_user": 2})
    for settings, expected in (
        (implicit, liked),
        (explicit, rated),
        (at_least_two, {row for row in rated if row[0] != "u3"}),
    ):
        trained = training_pairs(pairs, settings).select("user_id", "item_id", "strength").collect()
        assert {tuple(row) for row in trained} == expected


def test_explicit_feedback_without_low_ratings_is_refused() -> None:
    whole = load_settings("demo").model_dump()
    whole["preferences"]["ratings"]["event_type"] = "rating"
    whole["als"]["feedback"] = "explicit"
    assert Settings.model_validate(whole).als.feedback == "explicit"
    whole["preferences"]["ratings"]["low"] = "ignore"
    with pytest.raises(ValidationError, match='needs preferences.ratings .* low = "exclude", got'):
        Settings.model_validate(whole)
