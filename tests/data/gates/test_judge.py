"""The gates: what is counted, what it is compared with, what is told, and what may not be shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pyspark import StorageLevel
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.load import load_settings
from recsys_spark.config.sections import Settings
from recsys_spark.data.gates import judge as quality
from recsys_spark.data.gates.bounds import Check
from recsys_spark.data.gates.figures import (
    BATCH_METRIC,
    checkpointed_and_counted,
    counted,
    duplicate_keys,
    good_figures,
    reason_figures,
    unknown_items,
)
from recsys_spark.data.gates.past_nights import Past, past_nights
from recsys_spark.data.gates.suites import (
    audience_check,
    freshness_check,
    interaction_check,
    item_check,
    list_check,
    outcome_check,
    preference_check,
    user_check,
    whole_check,
)
from recsys_spark.errors import QualityGateError
from recsys_spark.lake.job import Job
from recsys_spark.lake.runs import open_run
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import OPS_METRICS, OPS_QUALITY, SILVER_ITEMS, SILVER_PREFERENCES
from recsys_spark.push.gate import Verdict
from recsys_spark.push.list_suite import list_figures
from recsys_spark.runtime.rows import frame_of
from recsys_spark.stages.preferences import judge_preferences
from tests.conftest import Frame
from tests.settings import demo_in
from tests.tables import rows_for

DAY = date(2024, 6, 2)
DAY_NUMBER = (DAY - date(1970, 1, 1)).days


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings("demo")


def failed(check: Check) -> dict[str, tuple]:
    """Figures outside of their bounds, by plain comparison: the oracle for Great Expectations."""
    return {
        bound.column: bounds(check.figures[bound.column], bound.low, bound.high)
        for bound in check.bounds
        if (bound.low is not None and check.figures[bound.column] < bound.low)
        or (bound.high is not None and check.figures[bound.column] > bound.high)
    }


def bounds(*values: float | None) -> tuple[float | None, ...]:
    return tuple(None if value is None else round(value, 9) for value in values)


USUAL = Past(
    nights=tuple(
        {"rows": rows, "events_purchase": rows * 0.1, "events_view": rows * 0.9, "null_value": rows * 0.05}
        for rows in (900, 1000, 1100, 1000, 5000, 1000, 1000)
    )
)
GOOD = {
    "rows": 2000,
    "rows_in": 2200,
    "rejected": 20,
    "unknown_items": 10,
    "last_day": DAY_NUMBER,
    "events_purchase": 210,
    "events_view": 1790,
    "null_value": 120,
}


@pytest.mark.parametrize(
    ("change", "past", "broken"),
    [
        ({}, USUAL, {}),
        ({"rows": 299, "events_purchase": 30, "events_view": 269}, USUAL, {"volume_ratio": (0.299, 0.3, 3)}),
        ({"rows": 299}, replace(USUAL, tonight={"rows": 600.0}), {}),
        ({"rows": 299}, replace(USUAL, nights=USUAL.nights[1:]), {}),
        (
            {"rows": 3001, "events_purchase": 300, "events_view": 2701},
            USUAL,
            {"volume_ratio": (3.001, 0.3, 3)},
        ),
        ({"events_purchase": 30}, USUAL, {"events_purchase_share": (0.015, 0.02, 0.3)}),
        ({"events_view": 1390}, USUAL, {"events_view_share": (0.695, 0.7, 1.0)}),
        ({"null_value": 501}, USUAL, {"null_value_share": (0.2505, None, 0.25)}),
        ({"null_value": 501}, Past(), {}),
        ({"rejected": 111}, Past(), {"rejected_share": (111 / 2200, None, 0.05)}),
        ({"rows_in": 60000}, Past(), {"duplicate_share": (1 - 2000 / 59980, None, 0.95)}),
        ({"unknown_items": 101}, Past(), {"unknown_item_share": (0.0505, None, 0.05)}),
        ({"last_day": DAY_NUMBER - 8}, Past(), {"newest_age_days": (8, None, 7)}),
        ({"last_day": DAY_NUMBER + 3}, Past(), {}),
        ({"before_2000": 1000, "in_january": 1900}, Past(), {}),
        ({"before_2000": 1001}, Past(), {"before_2000_share": (0.5005, None, 0.5)}),
        ({"in_january": 1901}, Past(), {"january_share": (0.9505, None, 0.95)}),
        # The night of 2 June has events of 1 June.
        ({"on_first": 2000}, Past(), {}),
        ({"rows": 0, "rows_in": 0, "rejected": 0}, Past(), {"rows": (0, 1, None)}),
    ],
)
def test_a_batch_is_judged_as_a_whole_and_beside_the_last_nights(
    settings: Settings, change: dict, past: Past, broken: dict
) -> None:
    figures = {**GOOD, **change}
    check = whole_check(figures, quality=settings.quality, clean=settings.clean, run_date=DAY, past=past)
    assert failed(check) == {name: bounds(*values) for name, values in broken.items()}


@pytest.mark.parametrize(
    ("run_date", "rows", "told"),
    [
        (date(2024, 6, 20), 100, {"january_share", "first_of_month_share"}),
        (date(2024, 6, 4), 100, {"january_share"}),
        (date(2024, 3, 1), 100, {"january_share"}),
        (date(2024, 2, 29), 100, {"first_of_month_share"}),
        (date(2024, 1, 5), 100, {"first_of_month_share"}),
        (date(2024, 1, 2), 100, set()),
        (date(2024, 6, 20), 99, set()),
    ],
)
def test_times_that_all_fall_on_a_first_of_january_are_told_but_in_the_nights_that_have_them(
    settings: Settings, run_date: date, rows: int, told: set[str]
) -> None:
    figures = {"rows": rows, "in_january": rows, "on_first": rows}
    check = whole_check(figures, quality=settings.quality, clean=settings.clean, run_date=run_date)
    assert set(failed(check)) == told


def test_few_rows_are_not_compared_by_their_shares(settings: Settings) -> None:
    figures = {**GOOD, "rows": 999, "events_view": 0}
    check = whole_check(figures, quality=settings.quality, clean=settings.clean, run_date=DAY, past=USUAL)
    assert failed(check) == {}


def test_items_and_preferences_and_lists_have_suites_of_their_own(settings: Settings) -> None:
    thresholds = settings.quality
    items = {"rows": 10, "rows_in": 21, "rejected": 11, "null_title": 3, "null_item_id": 0, "bad_validity": 1}
    assert set(failed(item_check(items, quality=thresholds))) == {
        "untitled_share",
        "rejected_share",
        "bad_validity",
    }
    pairs = {"rows": 10, "bad_strength": 1, "duplicate_keys": 2, "unknown_items": 1, "last_day": DAY_NUMBER}
    check = preference_check(pairs, quality=thresholds, run_date=DAY)
    assert set(failed(check)) == {"bad_strength", "duplicate_keys", "unknown_item_share"}
    lists = {"rows": 10, "null_values": 0, "out_of_range_rank": 1, "not_finite": 1, "unknown_items": 0}
    past = Past(nights=({"rows": 100.0},) * 7)
    assert set(failed(list_check(lists, quality=thresholds, past=past))) == {
        "out_of_range_rank",
        "not_finite",
        "volume_ratio",
    }


PEOPLE = Past(
    nights=({"rows": 1000.0, "consented": 700.0, "null_country": 10.0, "outcomes_open": 300.0},) * 7
)


@pytest.mark.parametrize(
    ("judge", "change", "past", "broken"),
    [
        (user_check, {"consented": 1000}, PEOPLE, {}),
        (user_check, {"consented": 1810}, PEOPLE, {"consented_share": (0.905, 0.5, 0.9)}),
        (user_check, {"consented": 990}, PEOPLE, {"consented_share": (0.495, 0.5, 0.9)}),
        (user_check, {"consented": 0}, Past(), {}),
        (
            user_check,
            {"consented": 1400, "null_country": 500},
            PEOPLE,
            {"null_country_share": (0.25, None, 0.21)},
        ),
        (
            user_check,
            {"rejected": 111, "rows_in": 2200},
            Past(),
            {"rejected_share": (111 / 2200, None, 0.05)},
        ),
        (user_check, {"rows": 20001, "consented": 14000}, PEOPLE, {"volume_ratio": (20.001, 0, 20)}),
        (user_check, {"null_user_id": 1}, Past(), {"null_user_id": (1, None, 0)}),
        (audience_check, {"bad_validity": 2}, PEOPLE, {"bad_validity": (2, None, 0)}),
        (audience_check, {"rows": 0}, Past(), {"rows": (0, 1, None)}),
        (outcome_check, {"outcomes_open": 500}, PEOPLE, {}),
        (outcome_check, {"outcomes_open": 10}, PEOPLE, {"outcomes_open_share": (0.005, 0.1, 0.5)}),
        (outcome_check, {"duplicate_keys": 1}, Past(), {"duplicate_keys": (1, None, 0)}),
        # Unsubscribes that match nobody: told, until they are most of many.
        (outcome_check, {"outcomes_unsubscribe": 19, "unmatched_unsubscribes": 19}, Past(), {}),
        (outcome_check, {"outcomes_unsubscribe": 20, "unmatched_unsubscribes": 10}, Past(), {}),
        (
            outcome_check,
            {"outcomes_unsubscribe": 20, "unmatched_unsubscribes": 11},
            Past(),
            {"unmatched_unsubscribe_share": (0.55, None, 0.5)},
        ),
        (
            outcome_check,
            {"rejected": 111, "rows_in": 2200},
            Past(),
            {"rejected_share": (111 / 2200, None, 0.05)},
        ),
    ],
)
def test_users_audiences_and_outcomes_are_judged_like_items(
    settings: Settings, judge: Callable[..., Check], change: dict, past: Past, broken: dict
) -> None:
    check = judge({"rows": 2000, **change}, quality=settings.quality, past=past)
    assert failed(check) == {name: bounds(*values) for name, values in broken.items()}


def test_unsubscribes_that_match_nobody_are_told_whatever_their_share(settings: Settings) -> None:
    def told(**figures: float) -> set[str]:
        check = outcome_check({"rows": 50, **figures}, quality=settings.quality)
        return {bound.column for bound in check.bounds if "unsubscribe" in bound.column}

    assert told(outcomes_unsubscribe=1, unmatched_unsubscribes=1) == {"unmatched_unsubscribe_share"}
    assert told(outcomes_unsubscribe=1, unmatched_unsubscribes=0) == {"unmatched_unsubscribe_share"}
    assert told(outcomes_unsubscribe=0) == told(outcomes_unsubscribe=1) == set()


def test_what_is_known_must_be_fresh_where_no_event_is_new(settings: Settings) -> None:
    def judged(age: int) -> Check:
        return freshness_check(float(DAY_NUMBER - age), quality=settings.quality, run_date=DAY)

    assert failed(judged(8)) == {"newest_age_days": (8, None, 7)}
    assert judged(7).figures == {"newest_age_days": 7}
    assert failed(judged(7)) == failed(judged(-3)) == {}


def test_great_expectations_agrees_and_tells_what_it_saw_and_what_was_allowed(
    settings: Settings, tmp_path: Path
) -> None:
    figures = {**GOOD, "null_user_id": 1, "duplicate_keys": 0, "rejected": 1111, "events_purchase": 30}
    whole = whole_check(figures, quality=settings.quality, clean=settings.clean, run_date=DAY, past=USUAL)
    checks = [interaction_check(figures), whole]
    results = quality.validate(checks, docs=tmp_path, stage="clean")
    unmet = {result.column for result in results if not result.is_success}
    assert unmet == {name for check in checks for name in failed(check)}
    assert len(results) == sum(len(check.bounds) for check in checks)
    with pytest.raises(QualityGateError) as error:
        quality.require_success(results)
    sentence = str(error.value)
    null_users = "silver.interactions: expect_column_max_to_be_between(null_user_id) observed 1, allowed <= 0"
    assert null_users in sentence
    assert "(rejected_share) observed 0.505, allowed <= 0.05" in sentence
    assert "(events_purchase_share) observed 0.015, allowed >= 0.02 and <= 0.3" in sentence
    assert error.value.exit_code == 3


def test_the_docs_of_one_stage_leave_those_of_another_and_replace_their_own(tmp_path: Path) -> None:
    def pages(stage: str) -> list[Path]:
        return sorted((tmp_path / stage / "validations").rglob("*.html"))

    for stage in ("clean", "preferences", "clean"):
        quality.validate([interaction_check({"null_user_id": 0})], docs=tmp_path, stage=stage)
    assert (len(pages("clean")), len(pages("preferences"))) == (1, 1)
    assert "null_user_id" in pages("clean")[0].read_text(encoding="utf-8")
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="clean/index.html"' in index
    assert 'href="preferences/index.html"' in index


def test_figures_are_counts_of_the_rows_and_hold_none_of_their_values(
    frame: Frame, settings: Settings
) -> None:
    clean = settings.clean.model_copy(update={"event_types": ["purchase", "view"], "max_abs_value": 100.0})
    nan, at = float("nan"), datetime(2024, 5, 1)
    rows = [
        ("e1", "u1", "i1", "purchase", at, date(2024, 5, 1), 1.0, None, None, []),
        ("e1", "u1", "i1", "view", at, date(2024, 5, 3), -101.0, 5.0, "b", []),
        ("e2", None, "i2", "view", at, date(2024, 4, 30), nan, 5.0, "b", []),
        ("e3", "u2", "i9", "wish", at, date(2024, 5, 2), None, nan, "b", []),
        ("e4", "u2", "i9", "wish", at, date(2030, 5, 2), None, 1.0, "b", ["bad"]),
    ]
    events = frame(
        "event_id string, user_id string, item_id string, event_type string, event_at timestamp, "
        "event_date date, quantity double, value double, basket_id string, reject_reasons array<string>",
        rows,
    )
    is_good = F.size("reject_reasons") == 0
    good = events.where(is_good)
    expressions = {
        **good_figures("interactions", clean=clean, among=is_good),
        **reason_figures(["bad", "worse"]),
    }
    kept, figures = checkpointed_and_counted(events, expressions, StorageLevel.MEMORY_AND_DISK)
    assert kept.count() == len(rows)
    assert {name: figures.pop(name) for name in ("rejected", "reject_bad", "reject_worse")} == {
        "rejected": 1,
        "reject_bad": 1,
        "reject_worse": 0,
    }
    epoch = date(1970, 1, 1)
    assert figures == {
        "rows": 4,
        "null_event_id": 0,
        "null_user_id": 1,
        "null_item_id": 0,
        "null_event_type": 0,
        "null_event_at": 0,
        "null_quantity": 1,
        "null_value": 1,
        "null_basket_id": 1,
        "out_of_range_quantity": 2,
        "out_of_range_value": 1,
        "events_purchase": 1,
        "events_view": 2,
        "unknown_event_type": 1,
        "before_2000": 0,
        "in_january": 0,
        "on_first": 1,
        "first_day": (date(2024, 4, 30) - epoch).days,
        "last_day": (date(2024, 5, 3) - epoch).days,
    }
    assert duplicate_keys(good, ["event_id"]) == 1
    assert unknown_items(good, frame("item_id string", [("i1",), ("i1",), ("i2",)])) == 1


def test_figures_of_users_and_outcomes_tell_consent_and_types(frame: Frame, settings: Settings) -> None:
    first, last = date(1970, 1, 1), date(9999, 12, 31)
    users = frame(
        "user_id string, country string, region string, segment string, age_band string, "
        "is_consented boolean, valid_from date, valid_to date, is_good boolean",
        [
            ("u1", "AT", None, None, None, True, first, last, True),
            ("u2", None, None, None, None, False, last, last, True),
            ("u3", None, None, None, None, True, first, last, False),
        ],
    )
    is_good = F.col("is_good")
    found = counted(users, good_figures("users", clean=settings.clean, among=is_good))
    assert {name: found[name] for name in ("rows", "consented", "bad_validity", "null_country")} == {
        "rows": 2,
        "consented": 1,
        "bad_validity": 1,
        "null_country": 1,
    }
    at = datetime(2024, 5, 1)
    outcomes = frame(
        "event_id string, run_date date, channel string, campaign string, user_id string, item_id string, "
        "outcome_type string, event_at timestamp, is_good boolean",
        [
            ("o1", DAY, "email", "c", "u1", None, "open", at, True),
            ("o2", DAY, "email", "c", "u1", "i1", "click", at, True),
            ("o3", DAY, "email", "c", "u1", "i1", "applause", at, True),
            ("o4", DAY, "email", "c", "u1", "i1", "click", at, False),
        ],
    )
    found = counted(outcomes, good_figures("outcomes", clean=settings.clean, among=is_good))
    assert {name: value for name, value in found.items() if value} == {
        "rows": 3,
        "null_item_id": 1,
        "unknown_outcome_type": 1,
        "outcomes_open": 1,
        "outcomes_click": 1,
    }


def test_the_past_sums_deliveries_of_a_night_and_takes_the_last_of_what_was_made_twice(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = Lake(spark, str(tmp_path))

    def record(day: int, label: str, value: float, hour: int = 0, metric: str = BATCH_METRIC) -> tuple:
        at = datetime(2024, 5, day, hour, tzinfo=UTC)
        return ("r", at.date(), "clean", metric, label, float(value), at)

    rows = [
        record(1, "interactions.rows", 1000),
        record(2, "interactions.rows", 10),
        record(2, "interactions.rows", 30, hour=5),
        record(2, "interactions_2.rows", 7),
        record(2, "interactions.rows", 9999, metric="other"),
        record(3, "interactions.rows", 50),
        record(3, "interactions.events_view", 25),
        record(4, "interactions.rows", 5),
        record(5, "interactions.rows", 8888),
    ]
    lake.append(OPS_METRICS, frame_of(spark, rows, OPS_METRICS.schema).repartition(3))
    summed = past_nights(lake, "interactions", run_date=date(2024, 5, 4), nights=2, adds_up=True)
    assert summed == Past(({"rows": 50, "events_view": 25}, {"rows": 40}), {"rows": 5})
    assert summed.usual("rows") == 45
    assert summed.usual("events_view", per="rows") == 0.5
    last = past_nights(lake, "interactions", run_date=date(2024, 5, 4), nights=9, adds_up=False)
    assert last == Past(({"rows": 50, "events_view": 25}, {"rows": 30}, {"rows": 1000}), {})


def test_preferences_that_fail_are_told_and_are_gone(spark: SparkSession, tmp_path: Path) -> None:
    job = Job(spark, demo_in(tmp_path, lake={"wait_seconds": 0}), DAY)
    at = datetime(2024, 6, 1)
    values = {"run_date": DAY, "item_id": "i1", "strength": 1.0, "events": 1, "last_event_at": at}
    values |= {"rating": None, "is_excluded": False, "active_days": 1, "span_days": 0}
    pairs = [{**values, "user_id": "u1"}, {**values, "user_id": "u1"}, {**values, "user_id": "u2"}]
    pairs.append({**values, "user_id": "u1", "run_date": date(2024, 6, 1)})
    job.append(SILVER_PREFERENCES, rows_for(spark, SILVER_PREFERENCES, *pairs))
    job.append(SILVER_ITEMS, rows_for(spark, SILVER_ITEMS, {"item_id": "i1"}))
    open_run(job.lake, job.settings, DAY)
    with pytest.raises(
        QualityGateError, match=r"preferences of 2024-06-02 were not kept: silver.preferences"
    ):
        judge_preferences(job)
    assert [row["run_date"] for row in job.read(SILVER_PREFERENCES).collect()] == [date(2024, 6, 1)]
    verdicts = {row["column_name"]: row["is_success"] for row in job.read(OPS_QUALITY).collect()}
    assert [name for name, is_success in verdicts.items() if not is_success] == ["duplicate_keys"]
    assert {"rows", "bad_strength", "unknown_item_share", "null_user_id"} <= set(verdicts)


def test_the_figures_of_the_lists_count_slots_that_no_list_may_have(frame: Frame, settings: Settings) -> None:
    rows = [
        ("email", "weekly_staples", "u1", 1, "i1", 1.0),
        ("email", "weekly_staples", "u1", 11, "i2", 1.0),
        ("email", "something_new", "u1", 0, "i2", 1.0),
        ("email", "something_new", "u1", None, "i2", 1.0),
        ("email", "nobody's", "u1", 1, "i2", 1.0),
        ("email", "something_new", None, 2, "i2", None),
    ]
    staged = frame(
        "channel string, campaign string, user_id string, rank int, item_id string, score double", rows
    )
    verdicts = [
        Verdict("weekly_staples", "duplicates", 2.0, "<= 0", False),
        Verdict("something_new", "duplicates", 3.0, "<= 0", False),
    ]
    found = list_figures(staged, campaigns=settings.campaigns, verdicts=verdicts)
    assert found == {
        "rows": 6,
        "null_values": 2,
        "out_of_range_rank": 4,
        "duplicates": 5,
        "gaps": 0,
        "not_finite": 0,
        "unknown_items": 0,
        "not_on_sale": 0,
    }
