"""Who is no person: each rule finds the one made to break it, and nobody else."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from recsys_spark.config.sections import Bots
from recsys_spark.data.bots import excluded_users, without
from recsys_spark.runtime import broadcasts as near
from tests.conftest import Frame
from tests.settings import with_defaults

DAY = date(2024, 6, 2)
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
SCHEMA = (
    "event_id string, user_id string, item_id string, event_at timestamp, basket_id string, event_date date, "
    "source string"
)
STRICT = with_defaults(
    Bots,
    max_events_per_day=40,
    min_events=50,
    max_catalogue_share=0.5,
    min_items=60,
    max_same_second_share=0.5,
    max_item_share=0.9,
)
OFF = STRICT.model_copy(
    update={
        "max_events_per_day": 0,
        "max_catalogue_share": 0.0,
        "max_same_second_share": 0.0,
        "max_item_share": 0.0,
    }
)


def events() -> list[tuple]:
    """People: a household with large receipts, a regular of one item, a small user. The rest are not."""
    rows: list[tuple] = []

    def event(user: str, item: int, at: datetime, basket: str | None = None) -> None:
        rows.append((f"e{len(rows)}", user, f"i{item}", at, basket, at.date(), "shop"))

    def days(n: float) -> timedelta:
        return timedelta(days=n)

    for n in range(120):
        receipt = NOON + days(n // 30)
        event("household", n % 58, receipt, f"receipt {n // 30}")
        event("clicker", n % 5, NOON + days(n // 20) + timedelta(seconds=n))
        event("crawler", n, NOON + days(n % 30) + timedelta(minutes=n))
        event("machine", n % 20, NOON + days(n // 12), None)
        event("pusher", 7 if n % 20 else n, NOON + days(n % 30) + timedelta(minutes=n))
        event("future", n, NOON + days(90) + timedelta(minutes=n))
    for n in range(41):
        event("hurried", n % 9, NOON + timedelta(seconds=n))
    for n in range(40):
        event("busy", n % 9, NOON + timedelta(seconds=n))
    for n in range(49):
        event("loyal", 7, NOON + days(n % 30) + timedelta(minutes=n))
    return rows


def test_each_rule_names_who_breaks_it_with_what_was_seen_and_allowed(frame: Frame) -> None:
    excluded = excluded_users(frame(SCHEMA, events()), DAY, bots=STRICT).collect()
    assert all(row["run_date"] == DAY for row in excluded)
    assert {(row["user_id"], row["reason"]): (row["observed"], row["allowed"]) for row in excluded} == {
        # 41 on one day; 40 are allowed.
        ("hurried", "events_per_day"): (41.0, 40.0),
        # All 120 items that anyone had.
        ("crawler", "catalogue_share"): (1.0, 0.5),
        # Twelve at one instant, without a receipt; a household's lines are one act each receipt.
        ("machine", "same_second_share"): (1.0, 0.5),
        # 114 of 120 with one item; the loyal user has too few events to be judged.
        ("pusher", "item_share"): (114 / 120, 0.9),
    }


def test_rules_of_many_events_judge_nobody_with_fewer(frame: Frame) -> None:
    lenient = STRICT.model_copy(update={"min_events": 121})
    excluded = excluded_users(frame(SCHEMA, events()), DAY, bots=lenient).collect()
    assert [(row["user_id"], row["reason"]) for row in excluded] == [("hurried", "events_per_day")]
    without_days = lenient.model_copy(update={"max_events_per_day": 0})
    assert excluded_users(frame(SCHEMA, events()), DAY, bots=without_days).collect() == []


def test_users_too_many_to_be_sent_around_are_judged_alike(frame: Frame, monkeypatch) -> None:
    whole = frame(SCHEMA, events())
    few = {tuple(row) for row in excluded_users(whole, DAY, bots=STRICT).collect()}
    monkeypatch.setattr(near, "NEAR_ROWS", 0)
    assert {tuple(row) for row in excluded_users(whole, DAY, bots=STRICT).collect()} == few
    assert len(few) == 4


def test_without_a_limit_nobody_is_excluded(frame: Frame) -> None:
    whole = frame(SCHEMA, events())
    nobody = excluded_users(whole, DAY, bots=OFF)
    assert nobody.collect() == []
    assert without(whole, nobody).count() == len(events())


def test_events_of_excluded_users_are_gone_and_all_others_stay(frame: Frame) -> None:
    whole = frame(SCHEMA, events())
    one_rule = OFF.model_copy(update={"max_events_per_day": 40})
    left = without(whole, excluded_users(whole, DAY, bots=one_rule)).groupBy("user_id").count().collect()
    expected = {"household", "clicker", "crawler", "machine", "pusher", "future", "busy", "loyal"}
    assert {row["user_id"] for row in left} == expected
