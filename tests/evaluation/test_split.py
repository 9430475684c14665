"""No event of the future reaches the past: splits by UTC day, whatever the session's zone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.evaluation.backtest import judged_items
from recsys_spark.evaluation.split import drawn, leave_last_one, relevant_pairs, time_split

EVENTS = "event_id string, user_id string, item_id string, event_at timestamp, source string"
PAIRS = "user_id string, item_id string"
CUTOFF = date(2024, 3, 10)
OPENS = datetime(2024, 3, 11, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@pytest.fixture(params=["UTC", "America/Los_Angeles", "Pacific/Kiritimati"])
def session_zone(spark: SparkSession, request: pytest.FixtureRequest) -> Iterator[str]:
    """Clocks change on 10 March in Los Angeles, and Kiritimati is 14 hours ahead."""
    spark.conf.set("spark.sql.session.timeZone", request.param)
    yield request.param
    spark.conf.set("spark.sql.session.timeZone", "UTC")


def ids(events: DataFrame) -> set[str]:
    rows = [row["event_id"] for row in events.select("event_id").collect()]
    assert len(rows) == len(set(rows))
    return set(rows)


def test_midnight_utc_is_the_border_on_both_sides(frame, session_zone):
    closes = OPENS + timedelta(days=28)
    events = frame(
        EVENTS,
        [
            ("long_before", "u", "i", OPENS - timedelta(days=400), "s"),
            ("last_before", "u", "i", OPENS - TICK, "s"),
            ("first_after", "u", "i", OPENS, "s"),
            ("last_after", "u", "i", closes - TICK, "s"),
            ("too_late", "u", "i", closes, "s"),
            ("timeless", "u", "i", None, "s"),
        ],
    )
    before, after = time_split(events, cutoff=CUTOFF, window_days=28)
    assert ids(before) == {"long_before", "last_before"}
    assert ids(after) == {"first_after", "last_after"}
    assert before.schema == after.schema == events.schema


def test_no_event_leaks_for_any_cutoff_and_window(frame):
    rng = random.Random(1)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    moments = {
        f"e{n}": start
        + timedelta(
            days=rng.randrange(60), microseconds=rng.choice([0, 1, -1, rng.randrange(86_400_000_000)])
        )
        for n in range(600)
    }
    events = frame(EVENTS, [(event, "u", "i", at, "s") for event, at in moments.items()]).cache()
    try:
        for _ in range(6):
            cutoff = date(2024, 1, 1) + timedelta(days=rng.randrange(60))
            days = rng.choice([1, 7, 28])
            border = datetime(cutoff.year, cutoff.month, cutoff.day, tzinfo=UTC) + timedelta(days=1)
            before, after = time_split(events, cutoff=cutoff, window_days=days)
            assert ids(before) == {event for event, at in moments.items() if at < border}
            assert ids(after) == {
                event for event, at in moments.items() if border <= at < border + timedelta(days=days)
            }
    finally:
        events.unpersist()


@pytest.mark.parametrize("days", [0, -1])
def test_a_window_without_a_day_is_refused(frame, days):
    with pytest.raises(ValueError, match=f"window_days: got {days}, expected at least 1"):
        time_split(frame(EVENTS, []), cutoff=CUTOFF, window_days=days)


def test_relevant_pairs_are_distinct_and_new_where_repeats_are_not_allowed(frame):
    after = frame(
        EVENTS,
        [
            ("e1", "u1", "known", OPENS, "s"),
            ("e2", "u1", "new", OPENS, "s"),
            ("e3", "u1", "new", OPENS + TICK, "s"),
            ("e4", "u2", "known", OPENS, "s"),
        ],
    )
    before = frame(PAIRS, [("u1", "known"), ("u1", "known"), ("u3", "new")])

    def pairs(repeats_allowed: bool) -> list[tuple[str, ...]]:
        return sorted(map(tuple, relevant_pairs(after, before, repeats_allowed=repeats_allowed).collect()))

    assert pairs(repeats_allowed=True) == [("u1", "known"), ("u1", "new"), ("u2", "known")]
    assert pairs(repeats_allowed=False) == [("u1", "new"), ("u2", "known")]


def test_the_last_event_of_each_user_is_the_test(frame):
    events = frame(
        EVENTS,
        [
            ("e1", "u1", "a", OPENS, "s"),
            ("e2", "u1", "b", OPENS + TICK, "s"),
            ("e9", "u2", "a", OPENS, "s"),  # the same moment: the higher event_id is later
            ("e3", "u2", "b", OPENS, "s"),
            ("e4", "u3", "a", OPENS, "s"),
            ("e5", "u4", "a", None, "s"),
            ("e6", "u4", "b", OPENS, "s"),
        ],
    )
    train, test = leave_last_one(events)
    assert ids(test) == {"e2", "e9", "e4", "e6"}
    assert ids(train) == {"e1", "e3", "e5"}
    assert train.schema == test.schema == events.schema


def test_leave_last_one_agrees_with_sorting_and_loses_nothing(frame):
    rng = random.Random(2)
    rows = [
        (f"e{n:04d}", f"u{rng.randrange(200)}", "i", OPENS + timedelta(hours=rng.randrange(40)), "s")
        for n in range(1_000)
    ]
    newest: dict[str, tuple[datetime, str]] = {}
    for event, user, _, at, _ in rows:
        newest[user] = max(newest.get(user, (at, event)), (at, event))
    train, test = leave_last_one(frame(EVENTS, rows))
    assert ids(test) == {event for _, event in newest.values()}
    assert ids(train) == {row[0] for row in rows} - ids(test)
    assert test.groupBy("user_id").count().where(F.col("count") > 1).count() == 0


def test_users_drawn_do_not_depend_on_their_events_or_partitions(frame):
    users = [f"u{n}" for n in range(60)]
    once = frame(EVENTS, [(f"e{user}", user, "i", OPENS, "s") for user in users])
    often = frame(EVENTS, [(f"e{user}{n}", user, f"i{n}", OPENS, "s") for user in users for n in (2, 1)], 7)

    def of(events: DataFrame, at_most: int, purpose: str = "judge") -> set[str]:
        return {row["user_id"] for row in drawn(events, at_most, purpose=purpose).collect()}

    first = of(once, 20)
    assert len(first) == 20
    assert of(often, 20) == first
    assert of(once, 20, "teach") != first
    assert of(once, 100) == set(users)


def test_a_sample_of_users_judges_by_all_that_they_had(frame):
    """New to a user is what the user did not have before: a user drawn must bring the history along."""
    before = [(f"u{n}", item) for n in range(60) for item in ("a", "b")]
    events = [("e", user, item, OPENS) for user, _ in before for item in ("b", "c")]
    judged = judged_items(
        frame(EVENTS, [(*event, "s") for event in events]), frame(PAIRS, before), at_most=20
    ).collect()
    users = {row["user_id"] for row in judged}
    assert len(users) == 20
    assert {(row["task"], row["user_id"], row["item_id"]) for row in judged} == {
        (task, user, item)
        for user in users
        for task, item in (("repeats_allowed", "b"), ("repeats_allowed", "c"), ("new_items_only", "c"))
    }
