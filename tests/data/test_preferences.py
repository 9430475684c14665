"""Strengths, against ten lines of plain Python."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import date, datetime, timedelta

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Preferences, Ratings
from recsys_spark.data.ids import dense_index
from recsys_spark.data.preferences import preferences
from tests.conftest import Frame

DAY = date(2024, 6, 2)
EVENTS = (
    "user_id string, item_id string, event_type string, event_at timestamp, event_date date, value double"
)
OUTCOMES = "user_id string, item_id string, outcome_type string, event_at timestamp, event_date date"
SCALE = Ratings(event_type="", min=1.0, max=5.0, neutral=3.0, low="exclude")
KNOBS = Preferences(
    half_life_days=30.0,
    cap=2.0,
    event_weights={"purchase": 1.0, "view": 0.1, "rating": 1.0},
    negative={"dislike": "exclude", "skip": "lower"},
    lower_weight=0.3,
    min_events_per_user=1,
    min_events_per_item=1,
    ratings=SCALE,
)


def event(user: str, item: str, at: datetime, kind: str = "purchase", value: float | None = None) -> tuple:
    return (user, item, kind, at, at.date(), value)


def many(users: int = 40, count: int = 1500) -> list[tuple]:
    draw = random.Random(5)
    kinds = ["purchase"] * 6 + ["view"] * 3 + ["unknown", "skip", "skip"]
    rows = [
        event(
            f"u{draw.randrange(users)}",
            f"i{draw.randrange(6)}",
            datetime(2024, 3, 1) + timedelta(hours=draw.randrange(24 * 94)),
            draw.choice(kinds),
        )
        for _ in range(count)
    ]
    return [*rows, *[event(f"u{n}", "i0", datetime(2024, 5, 1), "dislike") for n in range(0, users, 9)]]


def oracle(rows: list[tuple], *, per_user: int = 1, per_item: int = 1) -> dict[tuple, tuple[float, bool]]:
    """(user, item) -> (strength, whether it is excluded)."""
    total, liked, excluded = defaultdict(float), defaultdict(int), set()
    for user, item, kind, _, day, _ in rows:
        decay = 0.5 ** ((DAY - day).days / 30.0)
        total[user, item] += {"purchase": 1.0, "view": 0.1, "skip": -0.3}.get(kind, 0.0) * decay
        liked[user, item] += kind in {"purchase", "view"}
        if kind == "dislike":
            excluded.add((user, item))
    strength = {
        pair: 0.0 if pair in excluded else min(max(total[pair], 0.0), 2.0)
        for pair in total
        if liked[pair] or pair in excluded
    }
    for place, least in ((0, per_user), (1, per_item)):
        counts: dict = defaultdict(int)
        for pair, value in strength.items():
            counts[pair[place]] += liked[pair] if value > 0 else 0
        strength = {pair: v if counts[pair[place]] >= least else 0.0 for pair, v in strength.items()}
    return {pair: (value, pair in excluded) for pair, value in strength.items()}


def strengths_of(frame, settings: Preferences = KNOBS, outcomes=None) -> dict[tuple, tuple[float, bool]]:
    rows = preferences(frame, run_date=DAY, settings=settings, outcomes=outcomes).collect()
    return {(row["user_id"], row["item_id"]): (row["strength"], row["is_excluded"]) for row in rows}


def test_strength_is_the_decayed_sum_of_weights_less_what_lowers_it_with_a_cap(frame: Frame) -> None:
    rows = many()
    expected, strengths = oracle(rows), strengths_of(frame(EVENTS, rows))
    assert strengths.keys() == expected.keys()
    for pair, (strength, is_excluded) in expected.items():
        assert strengths[pair] == (pytest.approx(strength, abs=1e-12), is_excluded), pair
    values = [strength for strength, _ in strengths.values()]
    # Capped, lowered to nothing and excluded: the data holds them all.
    assert max(values) == 2.0
    assert any(strength == 0 and not is_excluded for strength, is_excluded in strengths.values())
    assert sum(is_excluded for _, is_excluded in strengths.values()) == 5


def test_active_days_are_those_with_an_event_for_the_item_and_span_from_the_first_to_the_last(
    frame: Frame,
) -> None:
    draw = random.Random(3)
    ages = [draw.choice([0, 1, 63, 64, 127, 128, 200, 319, 320, 383, 384, 900]) for _ in range(400)]
    rows = [
        event(
            f"u{n % 40}",
            "i",
            datetime(2024, 6, 2, n % 24) - timedelta(days=age),
            draw.choice(["view", "skip"]),
        )
        for n, age in enumerate(ages)
    ]
    days: dict[str, set[int]] = defaultdict(set)
    for (user, _, kind, *_), age in zip(rows, ages, strict=True):
        if kind == "view":
            days[user] |= {age} if age < 384 else set()
    expected = {user: (len(known), max(known) - min(known) if known else 0) for user, known in days.items()}
    pairs = preferences(frame(EVENTS, rows), run_date=DAY, settings=KNOBS).collect()
    assert {row["user_id"]: (row["active_days"], row["span_days"]) for row in pairs} == expected
    assert max(count for count, _ in expected.values()) > 5


def test_too_few_events_of_a_user_then_of_an_item_leave_nothing_to_train_on(frame: Frame) -> None:
    rows = many(users=60, count=900)
    bounds = {"min_events_per_user": 12, "min_events_per_item": 105}
    expected = oracle(rows, per_user=12, per_item=105)
    strengths = strengths_of(frame(EVENTS, rows), KNOBS.model_copy(update=bounds))
    assert {pair for pair, (strength, _) in strengths.items() if strength > 0} == {
        pair for pair, (strength, _) in expected.items() if strength > 0
    }
    trained = {item for (_, item), (strength, _) in strengths.items() if strength > 0}
    # Some item fell only because users fell first, and pairs stay known without strength.
    alone = oracle(rows, per_item=105)
    assert trained < {item for (_, item), (strength, _) in alone.items() if strength > 0}
    assert strengths.keys() == expected.keys()


def test_ratings_weigh_by_their_place_above_neutral_and_low_ones_exclude_or_lower(frame: Frame) -> None:
    at = datetime(2024, 6, 2)
    rows = [
        event("u", "best", at, "rating", 5.0),
        event("u", "good", at, "rating", 4.0),
        event("u", "beyond", at, "rating", 9.0),
        event("u", "neutral", at, "rating", 3.0),
        event("u", "bad", at, "rating", 1.0),
        event("u", "unsaid", at, "rating"),
        event("u", "bought", at, "purchase", 1.0),
        event("u", "bought and bad", at, "purchase"),
        event("u", "bought and bad", at, "rating", 2.0),
    ]
    liked = {("u", "best"): (1.0, False), ("u", "good"): (0.5, False), ("u", "beyond"): (1.0, False)}
    liked["u", "bought"] = (1.0, False)
    whole = frame(EVENTS, rows)
    on = SCALE.model_copy(update={"event_type": "rating"})
    excluded = {("u", item): (0.0, True) for item in ("neutral", "bad", "bought and bad")}
    pairs = preferences(whole, run_date=DAY, settings=KNOBS.model_copy(update={"ratings": on}))
    rows_by_item = {row["item_id"]: row for row in pairs.collect()}
    assert {
        ("u", item): (row["strength"], row["is_excluded"]) for item, row in rows_by_item.items()
    } == liked | excluded
    assert {item: row["rating"] for item, row in rows_by_item.items()} == {
        "best": 5.0,
        "good": 4.0,
        "beyond": 9.0,
        "neutral": 3.0,
        "bad": 1.0,
        "bought": None,
        "bought and bad": 2.0,
    }
    lower = on.model_copy(update={"low": "lower"})
    lowered = {("u", "bought and bad"): (pytest.approx(0.7), False)}
    assert strengths_of(whole, KNOBS.model_copy(update={"ratings": lower})) == liked | lowered


def test_what_a_mail_was_told_counts_like_an_event_up_to_the_run_date(frame: Frame) -> None:
    at, tomorrow = datetime(2024, 6, 2), datetime(2024, 6, 3)
    rows = [event("u", item, at) for item in ("disliked", "skipped", "tomorrow", "clicked")]
    outcomes = [
        ("u", "disliked", "dislike", at, at.date()),
        ("u", "never had", "dislike", at, at.date()),
        ("u", "skipped", "skip", at, at.date()),
        ("u", "tomorrow", "dislike", tomorrow, tomorrow.date()),
        ("u", "clicked", "click", at, at.date()),
        ("u", None, "unsubscribe", at, at.date()),
        ("u", None, "dislike", at, at.date()),
    ]
    assert strengths_of(frame(EVENTS, rows), outcomes=frame(OUTCOMES, outcomes)) == {
        ("u", "disliked"): (0.0, True),
        ("u", "never had"): (0.0, True),
        ("u", "skipped"): (pytest.approx(0.7), False),
        ("u", "tomorrow"): (1.0, False),
        ("u", "clicked"): (1.0, False),
    }


def test_the_last_bit_of_a_strength_does_not_depend_on_partitions(frame: Frame) -> None:
    rows = [event("u", "i", datetime(2024, 1, 1) + timedelta(days=n)) for n in range(150)]
    wide = KNOBS.model_copy(update={"cap": 99.0})
    strengths = {
        strengths_of(frame(EVENTS, rows[::step], n), wide)["u", "i"] for n, step in ((1, 1), (2, -1), (7, 1))
    }
    assert len(strengths) == 1


def test_an_event_of_long_ago_keeps_its_pair_known(frame: Frame) -> None:
    rows = [event("u", "i", datetime(1971, 1, 1))]
    [(strength, _)] = strengths_of(
        frame(EVENTS, rows), KNOBS.model_copy(update={"half_life_days": 1.0})
    ).values()
    assert strength == 2.0**-44


def test_a_million_events_of_one_pair_sum_exactly_and_overflow_is_the_cap(spark: SparkSession) -> None:
    at = F.lit(datetime(2024, 6, 2))
    events = spark.range(1_000_000).select(
        F.lit("bot").alias("user_id"),
        F.lit("i").alias("item_id"),
        F.lit("purchase").alias("event_type"),
        at.alias("event_at"),
        at.cast("date").alias("event_date"),
        F.lit(None).cast("double").alias("value"),
    )
    eighth = {"event_weights": {"purchase": 0.125}, "cap": 1e7}
    assert strengths_of(events, KNOBS.model_copy(update=eighth)) == {("bot", "i"): (125_000.0, False)}
    heavy = {"event_weights": {"purchase": 1e6}, "cap": 1e7}
    assert strengths_of(events, KNOBS.model_copy(update=heavy)) == {("bot", "i"): (1e7, False)}


def test_an_index_is_the_rank_of_the_sorted_id_whatever_the_partitions(frame: Frame) -> None:
    ids = [f"id{n * 7919 % 1000}" for n in range(300)] + ["", "😀", "Ä", "zz", "Z"]
    expected = {name: rank for rank, name in enumerate(sorted(set(ids)))}
    for partitions in (1, 4):
        indexed = dense_index(
            frame("id string", [(name,) for name in ids + ids], partitions),
            id_column="id",
            index_column="index",
        )
        assert {row["id"]: row["index"] for row in indexed.collect()} == expected
