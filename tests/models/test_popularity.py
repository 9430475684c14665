"""Popularity in groups of users and with the season, against the formula in plain Python."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta

import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.sections import Popularity
from recsys_spark.models.popularity import ahead, group_of_user, group_popularity
from recsys_spark.runtime.rows import frame_of
from tests.conftest import Frame

DAY = date(2024, 6, 2)
EVENTS = "user_id string, item_id string, event_at timestamp, event_date date"
Event = tuple[str, str, int]


def settings(**changes: object) -> Popularity:
    given = {"window_days": 28, "by": ["segment"], "group_prior": 5.0, "max_groups": 2}
    return Popularity.model_validate({**given, "season_weight": 0.0, "season_days": 28, **changes})


def events_of(spark: SparkSession, events: list[Event]) -> object:
    rows = []
    for user, item, days_ago in events:
        at = datetime(DAY.year, DAY.month, DAY.day, 12) - timedelta(days=days_ago)
        rows.append((user, item, at, at.date()))
    return frame_of(spark, rows, EVENTS).repartition(3)


def drawn(*, oldest: int) -> list[Event]:
    draw = random.Random(5)
    return [(f"u{draw.randrange(30)}", f"i{draw.randrange(9)}", draw.randrange(oldest)) for _ in range(400)]


def group(user: str) -> str | None:
    """Of 30 users 10 are large, 8 middling, 5 small, 7 of no group."""
    number = int(user[1:])
    return ["segment=large", "segment=middling", "segment=small", None][
        sum(number >= at for at in (10, 18, 23))
    ]


def oracle(events: list[Event], given: Popularity) -> dict[tuple[str, str], float]:
    first, last = ahead(DAY, given.season_days)
    day_of = {event: DAY - timedelta(days=event[2]) for event in events}
    recent = {(u, i) for u, i, ago in events if 0 <= ago < given.window_days}
    season = {event[:2] for event in events if first <= day_of[event] <= last}
    n_recent, n_season = (len({user for user, _ in pairs}) for pairs in (recent, season))
    s = given.season_weight if n_season and min(day_of.values()) < first else 0.0

    def mixed(item: str, members: set[str]) -> float:
        n, a = (sum(i == item and u in members for u, i in pairs) for pairs in (recent, season))
        return (1 - s) * n + (s * a * n_recent / n_season if s else 0.0)

    users = {u for u, _, _ in events}
    items = {i for _, i in recent | (season if s else set())}
    found = {("everyone", i): mixed(i, users) for i in items} if s else {}
    sizes = {g: len({u for u, _ in recent if group(u) == g}) for g in map(group, users) if g}
    for g in sorted(sizes, key=lambda g: (-sizes[g], g))[: given.max_groups]:
        members = {u for u in users if group(u) == g}
        for i in items:
            found[g, i] = mixed(i, members) + given.group_prior * mixed(i, users) / n_recent
    return found


@pytest.mark.parametrize("oldest", [60, 500], ids=["two months", "more than a year"])
@pytest.mark.parametrize("season_weight", [0.0, 0.4])
def test_a_group_counts_its_own_users_and_the_prior_and_a_year_brings_the_season(
    spark: SparkSession, oldest: int, season_weight: float
) -> None:
    events, given = drawn(oldest=oldest), settings(season_weight=season_weight)
    groups = frame_of(spark, [(f"u{n}", group(f"u{n}")) for n in range(30)], "user_id string, group string")
    found = group_popularity(events_of(spark, events), run_date=DAY, settings=given, groups=groups).collect()
    expected = oracle(events, given)
    assert {g for g, _ in expected} >= {"segment=large", "segment=middling"}
    assert ("everyone" in {g for g, _ in expected}) == (season_weight > 0 and oldest == 500)
    assert {(row["group"], row["item_id"]): row["users"] for row in found} == pytest.approx(expected)


def test_what_sold_in_the_coming_weeks_a_year_ago_comes_first_in_its_season(spark: SparkSession) -> None:
    ago = (DAY - date(2023, 6, 10)).days
    events = [(f"u{n}", "ice cream", ago) for n in range(8)] + [("u0", "ice cream", 400)]
    events += [(f"u{n}", "bread", 3) for n in range(5)] + [("u9", "ice cream", 3)]
    nobody = frame_of(spark, [], "user_id string, group string")
    given = settings(by=[], season_weight=0.5)
    rows = group_popularity(events_of(spark, events), run_date=DAY, settings=given, groups=nobody).collect()
    assert {row["item_id"]: row["users"] for row in rows} == pytest.approx(
        {"bread": 0.5 * 5, "ice cream": 0.5 * 1 + 0.5 * 8 * 6 / 8}
    )


def test_the_weeks_ahead_of_a_leap_day_are_those_after_the_28th() -> None:
    assert ahead(date(2024, 2, 29), 7) == (date(2023, 3, 1), date(2023, 3, 7))
    assert ahead(date(2024, 12, 20), 28) == (date(2023, 12, 21), date(2024, 1, 17))


def test_a_user_is_in_a_group_only_where_all_of_its_columns_are_given(frame: Frame) -> None:
    users = frame(
        "user_id string, country string, segment string",
        [("a", "NZ", "gold"), ("b", None, "gold"), ("c", "NZ", None)],
    )
    both = {row["user_id"]: row["group"] for row in group_of_user(users, by=["country", "segment"]).collect()}
    assert both == {"a": "country=NZ, segment=gold", "b": None, "c": None}
    one = {row["user_id"]: row["group"] for row in group_of_user(users, by=["segment"]).collect()}
    assert one == {"a": "segment=gold", "b": "segment=gold", "c": None}
