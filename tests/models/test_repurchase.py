"""History fades once what a user buys again is overdue, and not before."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from recsys_spark.config import History
from recsys_spark.models.repurchase import with_fade
from tests.conftest import Frame

TODAY = date(2024, 6, 30)
EVENTS = "user_id string, item_id string, event_at timestamp, event_date date"
PAIRS = "user_id string, item_id string, strength double, events long, last_event_at timestamp"


def bought(user: str, item: str, *days_ago: int) -> list[tuple]:
    days = [TODAY - timedelta(days=ago) for ago in days_ago]
    return [(user, item, datetime(day.year, day.month, day.day, 12), day) for day in days]


def faded(frame: Frame, rows: list[tuple], half_life: float) -> dict[tuple[str, str], float]:
    last: dict[tuple[str, str], list[datetime]] = {}
    for user, item, at, day in rows:
        last.setdefault((user, item), []).extend([at] if day <= TODAY else [])
    pairs = [(user, item, 1.0, len(known), max(known)) for (user, item), known in sorted(last.items())]
    pairs.append(("u9", "old", 0.0, 0, datetime(2023, 1, 1)))
    found = with_fade(
        frame(PAIRS, pairs),
        events=frame(EVENTS, rows),
        run_date=TODAY,
        settings=History(overdue_half_life=half_life),
    )
    return {(row["user_id"], row["item_id"]): row["fade"] for row in found.collect()}


def test_history_halves_with_each_half_life_of_intervals_overdue(frame: Frame) -> None:
    rows = [
        *bought("u1", "weekly", 7, 14, 21),  # every 7 days
        *bought("u2", "monthly", 0, 30),
        *bought("u3", "given up", 200, 205, 205, 210),  # every 5: two lines of one day are one purchase
        *bought("u4", "once", 73),
        *bought("u5", "once", 2),
        *bought("u1", "later", 1, -3),  # not yet known: bought once
    ]
    # The means are 7, 30 and 5; their median, 7, counts as one interval more of everyone's.
    assert faded(frame, rows, half_life=4.0) == pytest.approx(
        {
            ("u1", "weekly"): 1.0,
            ("u2", "monthly"): 1.0,
            ("u3", "given up"): 0.5 ** ((200 / ((10 + 7) / 3) - 1) / 4),
            ("u4", "once"): 0.5 ** ((73 / 7 - 1) / 4),
            ("u5", "once"): 1.0,
            ("u1", "later"): 1.0,
            ("u9", "old"): 1.0,  # a preference without an event that speaks for it
        }
    )


def test_nothing_fades_where_nobody_bought_anything_again(frame: Frame) -> None:
    rows = [*bought("u1", "film", 500), *bought("u2", "film", 3)]
    assert set(faded(frame, rows, half_life=4.0).values()) == {1.0}


def test_switched_off_the_preferences_are_as_they_were(frame: Frame) -> None:
    pairs = frame(PAIRS, [("u1", "a", 1.0, 1, datetime(2024, 1, 1))])
    off = with_fade(pairs, events=frame(EVENTS, []), run_date=TODAY, settings=History(overdue_half_life=0.0))
    assert off is pairs
