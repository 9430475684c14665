"""Outcomes of what was sent: judged, tied to their list, and known by their content where they have no id."""

from __future__ import annotations

from datetime import date, datetime

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean
from recsys_spark.data.cleaning.clean import cleaned, deduplicate, good
from recsys_spark.lake.schema import conform
from recsys_spark.lake.tables import BRONZE_OUTCOMES, SILVER_OUTCOMES
from tests.data.cleaning.test_clean import RULES
from tests.settings import a_source
from tests.tables import bronze

STRICT: Clean = RULES.model_copy(update={"max_id_length": 30})
SOURCES = {"mailer": a_source(kind="outcomes", format="jsonl", path="x", time_format="seconds")}
CLICK = {
    "source": "mailer",
    "run_date": "2024-03-30",
    "channel": "email",
    "campaign": "again",
    "user_id": "u",
    "item_id": "i",
    "outcome_type": "click",
    "event_at": "1711965600",
}


def test_every_rule_of_outcomes_names_the_rows_that_break_it_and_no_other(spark: SparkSession) -> None:
    cases = {
        "click": ({}, []),
        "shouted": ({"outcome_type": " Purchase "}, []),
        "open": ({"outcome_type": "open", "item_id": None}, []),
        "open of an item": ({"outcome_type": "open"}, []),
        "unsubscribe": ({"outcome_type": "unsubscribe", "item_id": " "}, []),
        "bounce": ({"outcome_type": "bounce", "item_id": ""}, []),
        "impression of nothing": ({"outcome_type": "impression", "item_id": ""}, ["missing_item_id"]),
        "click on nothing": ({"item_id": None}, ["missing_item_id"]),
        "purchase of nothing": ({"outcome_type": "purchase", "item_id": " "}, ["missing_item_id"]),
        "skip": ({"outcome_type": "skip"}, []),
        "skip of nothing": ({"outcome_type": "skip", "item_id": ""}, ["missing_item_id"]),
        "dislike of nothing": ({"outcome_type": "dislike", "item_id": None}, ["missing_item_id"]),
        "nobody": ({"user_id": " "}, ["missing_user_id"]),
        "no night": ({"run_date": None}, ["missing_run_date"]),
        "no date": ({"run_date": "last night"}, ["missing_run_date"]),
        "no campaign": ({"campaign": ""}, ["missing_campaign"]),
        "no channel": ({"channel": None}, ["missing_campaign"]),
        "long id": ({"item_id": "x" * 31}, ["overlong_id"]),
        "long campaign": ({"campaign": "x" * 31}, ["overlong_id"]),
        "unknown": ({"outcome_type": "telepathy", "item_id": None}, ["unknown_outcome_type"]),
        "no type": ({"outcome_type": None}, ["unknown_outcome_type"]),
        "no time": ({"event_at": "soon"}, ["unparsable_time"]),
        "epoch": ({"event_at": "0"}, ["before_epoch"]),
        "future": ({"event_at": "1714700000"}, ["future_time"]),
        "ingested late": ({"event_at": "1714700000", "ingested_at": datetime(2025, 1, 1)}, ["future_time"]),
        "malformed": ({"malformed": '{"who": '}, ["malformed_row"]),
        "three faults": (
            {"user_id": "", "item_id": "", "run_date": ""},
            ["missing_user_id", "missing_item_id", "missing_run_date"],
        ),
    }
    rows = [{**CLICK, "event_id": name, **change} for name, (change, _) in cases.items()]
    judged = cleaned(bronze(spark, rows, BRONZE_OUTCOMES), "outcomes", settings=STRICT, sources=SOURCES)
    kept = conform(good(judged).select(*SILVER_OUTCOMES.columns), SILVER_OUTCOMES)
    found = {
        row["event_id"]: row
        for row in judged.join(
            kept.select("event_id", F.lit(1).alias("is_good")), "event_id", "left"
        ).collect()
    }
    assert {name: row["reject_reasons"] for name, row in found.items()} == {
        name: reasons for name, (_, reasons) in cases.items()
    }
    assert {name for name, row in found.items() if row["is_good"]} == {
        name for name, (_, reasons) in cases.items() if not reasons
    }
    click = found["click"]
    assert (click["run_date"], click["event_at"], click["event_date"]) == (
        date(2024, 3, 30),
        datetime(2024, 4, 1, 10),
        date(2024, 4, 1),
    )
    assert (found["shouted"]["outcome_type"], found["bounce"]["item_id"]) == ("purchase", None)


def test_an_outcome_without_an_id_is_known_by_its_content(spark: SparkSession) -> None:
    different = [
        {},
        {"item_id": "j"},
        {"outcome_type": "open", "item_id": None},
        {"outcome_type": "open", "item_id": ""},  # the same as the one above
        {"run_date": "2024-03-31"},
        {"campaign": "fresh"},
        {"event_at": "1711965601"},
        {"event_at": " 1711965600.0", "run_date": "2024-03-30 00:00:00", "channel": "email "},  # the first
        {"user_id": "u", "item_id": "i"},  # the same as the first
        {"user_id": "ui", "item_id": ""},
    ]
    rows = [{**CLICK, **change} for change in different]
    rows[-1] = {**rows[-1], "outcome_type": "open"}
    judged = cleaned(bronze(spark, rows, BRONZE_OUTCOMES), "outcomes", settings=STRICT, sources=SOURCES)
    once = deduplicate(judged, "outcomes").collect()
    assert len(once) == len({row["event_id"] for row in once}) == 7
