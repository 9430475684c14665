"""Strengths, against ten lines of plain Python."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import date, datetime, timedelta

import pytest

from recsys_spark.data.ids import dense_index
from recsys_spark.data.preferences import preferences
from tests.conftest import Frame

DAY = date(2024, 6, 2)
EVENTS = "user_id string, item_id string, event_type string, event_at timestamp, event_date date"
WEIGHTS = {"purchase": 1.0, "view": 0.1}
KNOBS = {"run_date": DAY, "event_weights": WEIGHTS, "half_life_days": 30.0, "cap": 2.0}


def event(user: str, item: str, at: datetime, kind: str = "purchase") -> tuple:
    return (user, item, kind, at, at.date())


def test_strength_is_the_decayed_sum_of_weights_with_a_cap(frame: Frame) -> None:
    draw = random.Random(5)
    start = datetime(2024, 3, 1)
    rows = [
        event(
            f"u{draw.randrange(40)}",
            f"i{draw.randrange(6)}",
            start + timedelta(hours=draw.randrange(24 * 110)),
            draw.choice(["purchase", "view", "unknown"]),
        )
        for _ in range(1500)
    ]
    expected: dict = defaultdict(float)
    for user, item, kind, at, day in rows:
        if at < datetime(2024, 6, 3):
            expected[user, item] += WEIGHTS.get(kind, 0.0) * 0.5 ** ((DAY - day).days / 30.0)
    expected = {pair: min(value, 2.0) for pair, value in expected.items() if value > 0}
    found = {
        (r["user_id"], r["item_id"]): r["strength"]
        for r in preferences(frame(EVENTS, rows), **KNOBS).collect()
    }
    assert found == pytest.approx(expected, rel=1e-12)
    assert max(found.values()) == 2.0


def test_an_event_of_the_day_after_the_run_date_reaches_nothing(frame: Frame) -> None:
    rows = [
        event("u", "today", datetime(2024, 6, 2, 23, 59, 59, 999999)),
        event("u", "tomorrow", datetime(2024, 6, 3, 0, 0, 0)),
    ]
    assert [row["item_id"] for row in preferences(frame(EVENTS, rows), **KNOBS).collect()] == ["today"]


def test_the_last_bit_of_a_strength_does_not_depend_on_partitions(frame: Frame) -> None:
    rows = [event("u", "i", datetime(2024, 1, 1) + timedelta(days=n)) for n in range(150)]
    strengths = {
        preferences(frame(EVENTS, rows, partitions=n), **{**KNOBS, "cap": 99.0}).collect()[0]["strength"]
        for n in (1, 2, 7)
    }
    assert len(strengths) == 1


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
