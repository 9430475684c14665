"""History fades once what a user buys again is overdue, and not before."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from pyspark.sql import DataFrame

from recsys_spark.config.sections import History
from recsys_spark.data.preferences import COUNTED_DAYS, preferences
from recsys_spark.models.history import with_fade
from tests.conftest import Frame
from tests.data.test_preferences import EVENTS, KNOBS

TODAY = date(2024, 6, 30)


def bought(user: str, item: str, *days_ago: int, kind: str = "purchase") -> list[tuple]:
    days = [TODAY - timedelta(days=ago) for ago in days_ago]
    return [(user, item, kind, datetime(day.year, day.month, day.day, 12), day, None) for day in days]


def pairs_of(frame: Frame, rows: list[tuple]) -> DataFrame:
    return preferences(frame(EVENTS, rows), run_date=TODAY, settings=KNOBS)


def faded(
    pairs: DataFrame, half_life: float = 4.0, known: DataFrame | None = None
) -> dict[tuple[str, str], float]:
    settings = History(overdue_half_life=half_life)
    rows = with_fade(pairs, run_date=TODAY, settings=settings, known=known).collect()
    return {(row["user_id"], row["item_id"]): row["fade"] for row in rows}


ROWS = [
    *bought("u1", "weekly", 7, 14, 21),  # every 7 days
    *bought("u2", "monthly", 0, 30),
    *bought("u3", "given up", 200, 205, 205, 210),  # every 5: two lines of one day are one purchase
    *bought("u4", "once", 73),
    *bought("u5", "once", 2),
    *bought("u5", "once", 9, 16, kind="skip"),  # speaks against it, and is no purchase
    *bought("u1", "yearly", 80, COUNTED_DAYS),  # so long ago that it is none of an interval
    *bought("u9", "never", 30, 60, kind="dislike"),  # nothing that speaks for it
]
# The means are 7, 30 and 5; their median, 7, counts as one interval more of everyone's.
LEFT = {
    ("u1", "weekly"): 1.0,
    ("u2", "monthly"): 1.0,
    ("u3", "given up"): 0.5 ** ((200 / ((10 + 7) / 3) - 1) / 4),
    ("u4", "once"): 0.5 ** ((73 / 7 - 1) / 4),
    ("u5", "once"): 1.0,
    ("u1", "yearly"): 0.5 ** ((80 / 7 - 1) / 4),
    ("u9", "never"): 1.0,
}


def test_history_halves_with_each_half_life_of_intervals_overdue(frame: Frame) -> None:
    assert faded(pairs_of(frame, ROWS)) == pytest.approx(LEFT)


def test_the_usual_interval_is_that_of_all_users_where_only_some_are_asked_for(frame: Frame) -> None:
    pairs = pairs_of(frame, ROWS)
    some = faded(pairs.where("user_id = 'u4'"), known=pairs)
    assert some == pytest.approx({("u4", "once"): LEFT["u4", "once"]})


def test_pairs_of_an_earlier_version_which_know_no_days_go_by_the_usual_interval(frame: Frame) -> None:
    pairs = pairs_of(frame, ROWS)
    of_old = pairs.selectExpr(
        "* except (active_days, span_days)", "int(null) active_days", "int(null) span_days"
    )
    assert set(faded(of_old).values()) == {1.0}
    assert faded(of_old, known=pairs)["u3", "given up"] == pytest.approx(0.5 ** ((200 / 7 - 1) / 4))


def test_nothing_fades_where_nobody_bought_anything_again(frame: Frame) -> None:
    rows = [*bought("u1", "film", 350), *bought("u2", "film", 3)]
    assert set(faded(pairs_of(frame, rows)).values()) == {1.0}


def test_switched_off_the_preferences_are_as_they_were(frame: Frame) -> None:
    pairs = pairs_of(frame, bought("u1", "a", 3))
    assert with_fade(pairs, run_date=TODAY, settings=History(overdue_half_life=0.0)) is pairs
