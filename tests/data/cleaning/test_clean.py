"""Bronze to silver: every row ends as good, quarantined or duplicate, and says why."""

from __future__ import annotations

import random
from datetime import date, datetime

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean
from recsys_spark.data.cleaning.clean import cleaned, deduplicate, good, quarantined
from recsys_spark.lake.tables import BRONZE_INTERACTIONS, BRONZE_ITEMS
from recsys_spark.runtime.rows import frame_of
from tests.conftest import Frame
from tests.settings import a_source, with_defaults

RULES = with_defaults(
    Clean,
    event_types=["purchase"],
    max_id_length=20,
    max_text_length=30,
    max_abs_value=1e6,
    future_tolerance_days=1,
)
SOURCES = {
    "shop": a_source(kind="interactions", format="csv", path="x"),
    "epoch": a_source(kind="interactions", format="csv", path="x", time_format="seconds"),
}
ARRIVED, LATER = datetime(2024, 5, 1), datetime(2024, 6, 1)
NO_TIME = {"delivered_at": datetime(1970, 1, 1), "ingested_at": LATER}


def bronze(spark: SparkSession, rows: list[dict], table=BRONZE_INTERACTIONS) -> DataFrame:
    base = {
        "source": "shop",
        "source_file": "f",
        "content_hash": "h",
        "delivered_at": ARRIVED,
        "ingested_at": ARRIVED,
        "ingest_date": ARRIVED.date(),
        "event_type": "purchase",
    }
    whole = [{**dict.fromkeys(table.columns), **base, "row": n, **row} for n, row in enumerate(rows)]
    values = [tuple(row[name] for name in table.columns) for row in whole]
    return frame_of(spark, values, table.schema).repartition(3)


GOOD = {"event_id": "e", "user_id": "u", "item_id": "i", "event_at": "2024-04-01 10:00:00"}


@pytest.mark.parametrize("extra", [{}])
def test_every_rule_names_the_rows_that_break_it_and_no_other(spark: SparkSession, extra: dict) -> None:
    cases = {
        "good": ({}, []),
        "blank user": ({"user_id": " "}, ["missing_user_id"]),
        "no item": ({"item_id": None}, ["missing_item_id"]),
        "user of tabs": ({"user_id": "\t \r\n"}, ["missing_user_id"]),
        "item of hard spaces": ({"item_id": "\u00a0\u3000\ufeff"}, ["missing_item_id"]),
        "blanks around": ({"user_id": "\tu", "item_id": "  i\u00a0"}, []),
        "odd first letters": ({"user_id": "\u007f", "item_id": "ä"}, []),
        "no quantity": ({"quantity": "\t"}, []),
        "long id": ({"item_id": "x" * 21}, ["overlong_id"]),
        "emoji id": ({"user_id": "😀\u0000"}, []),
        "20 of many bytes": ({"item_id": "😀" * 20}, []),
        "21 of many bytes": ({"item_id": "😀" * 21}, ["overlong_id"]),
        "type": ({"event_type": "teleport"}, ["unknown_event_type"]),
        "no type": ({"event_type": None}, ["unknown_event_type"]),
        "no time": ({"event_at": "soon"}, ["unparsable_time"]),
        "epoch": ({"event_at": "1970-01-01 00:00:00"}, ["before_epoch"]),
        "future": ({"event_at": "2024-05-02 00:00:01"}, ["future_time"]),
        "just in time": ({"event_at": "2024-05-02 00:00:00"}, []),
        "ingested late": ({"event_at": "2024-05-02 00:00:01", "ingested_at": LATER}, ["future_time"]),
        "no time of delivery": ({"event_at": "2024-05-02 00:00:01", **NO_TIME}, []),
        "after its ingestion": ({"event_at": "2024-06-02 00:00:01", **NO_TIME}, ["future_time"]),
        "year 9999": ({"event_at": "9999-12-31 00:00:00"}, ["future_time"]),
        "not a number": ({"quantity": "NaN"}, ["bad_quantity"]),
        "infinite": ({"value": "Infinity"}, ["bad_value"]),
        "1e308": ({"value": "1e308"}, ["bad_value"]),
        "a word": ({"quantity": "two"}, ["bad_quantity"]),
        "negative, a return": ({"quantity": "-1"}, []),
        "malformed": ({"malformed": "a,b,c,d"}, ["malformed_row"]),
        "two faults": ({"user_id": "", "event_at": ""}, ["missing_user_id", "unparsable_time"]),
        "seconds": ({"source": "epoch", "event_at": "1711965600"}, []),
        "absurd seconds": ({"source": "epoch", "event_at": "9e18"}, ["unparsable_time"]),
    }
    rows = [{**GOOD, "event_id": name, **change} for name, (change, _) in cases.items()]
    judged = cleaned(bronze(spark, rows), "interactions", settings=RULES, sources=SOURCES)
    found = {row["event_id"]: row["reject_reasons"] for row in judged.collect()}
    assert found == {name: reasons for name, (_, reasons) in cases.items()}


def test_epoch_seconds_become_the_same_instant_as_their_text(spark: SparkSession) -> None:
    rows = [
        {**GOOD, "source": "epoch", "event_at": "1711965600"},
        {**GOOD, "event_at": "2024-04-01 10:00:00"},
    ]
    judged = cleaned(bronze(spark, rows), "interactions", settings=RULES, sources=SOURCES)
    assert {row[0] for row in judged.select(F.col("event_at").cast("string")).collect()} == {
        "2024-04-01 10:00:00"
    }


def test_a_rejected_row_keeps_its_reasons_and_the_row_as_it_came(spark: SparkSession) -> None:
    rows = [{**GOOD, "malformed": 'half "a line'}, {**GOOD, "user_id": "", "item_id": "=cmd()"}]
    judged = cleaned(bronze(spark, rows), "interactions", settings=RULES, sources=SOURCES)
    kept = {
        tuple(row["reject_reasons"]): row["raw"] for row in quarantined(judged, kind="interactions").collect()
    }
    assert kept[("malformed_row",)] == 'half "a line'
    assert '"item_id":"=cmd()"' in kept[("missing_user_id",)]


def test_the_latest_delivery_of_an_event_stands_whatever_the_order_and_ties_fall_to_the_content(
    spark: SparkSession,
) -> None:
    early, late = datetime(2024, 4, 2), datetime(2024, 4, 3)
    rows = [
        {**GOOD, "event_id": "a", "value": "1", "delivered_at": late},
        {**GOOD, "event_id": "a", "value": "2", "delivered_at": early},
        {**GOOD, "event_id": "b", "value": "3", "delivered_at": late},
        {**GOOD, "event_id": "b", "value": "4", "delivered_at": late},
        {**GOOD, "event_id": "c", "value": "5", "delivered_at": early},
    ]

    def survivors(order: list[int], partitions: int) -> set[tuple]:
        frame = bronze(spark, [rows[n] for n in order]).repartition(partitions)
        judged = cleaned(frame, "interactions", settings=RULES, sources=SOURCES)
        once = good(deduplicate(judged, "interactions")).localCheckpoint()
        twice = deduplicate(once, "interactions")
        found = {(row["event_id"], row["value"]) for row in once.collect()}
        assert found == {(row["event_id"], row["value"]) for row in twice.collect()}
        return found

    first = survivors([0, 1, 2, 3, 4], 1)
    assert first == survivors([2, 4, 3, 0, 1], 3)
    assert {("a", 1.0), ("c", 5.0)} < first
    assert len(first) == 3


def test_each_date_is_deduplicated_alone_and_lies_together_in_ascending_order(frame: Frame) -> None:
    draw = random.Random(3)
    days = [
        None,
        date(1899, 12, 31),
        date(1970, 1, 1),
        date(2024, 4, 1),
        date(2024, 4, 2),
        date(9999, 12, 31),
    ]
    rows = [
        (
            f"e{draw.randrange(40)}",
            draw.choice(days),
            datetime(2024, 5, draw.randrange(1, 3)),
            draw.randrange(3),
            draw.choice("st"),
            "h",
            number,
            ["bad"] if draw.random() < 0.2 else [],
        )
        for number in range(400)
    ]
    latest: dict[tuple, tuple] = {}
    for row in rows:
        event, day, *version, _, number, reasons = row
        key = (event, day, number if reasons else None)
        latest[key] = max(tuple(version), latest.get(key, tuple(version)))
    events = frame(
        "event_id string, event_date date, delivered_at timestamp, row_hash long, source string, "
        "content_hash string, row long, reject_reasons array<string>",
        rows,
    )
    once = deduplicate(events, "interactions", within_dates=True)
    found = once.withColumn("_partition", F.spark_partition_id()).collect()
    assert {
        (row["event_id"], row["event_date"], row["row"] if row["reject_reasons"] else None): (
            row["delivered_at"],
            row["row_hash"],
            row["source"],
        )
        for row in found
    } == latest
    assert len(found) == len(latest)
    dated = [(row["_partition"], row["event_date"]) for row in found if row["event_date"]]
    assert dated == sorted(dated)
    assert len(set(dated)) == len(days) - 1


def test_an_event_without_an_id_is_known_by_its_content(spark: SparkSession) -> None:
    rows = [
        {**GOOD, "event_id": None},
        {**GOOD, "event_id": None},
        {**GOOD, "event_id": None, "item_id": "j"},
    ]
    judged = cleaned(bronze(spark, rows), "interactions", settings=RULES, sources=SOURCES)
    once = good(deduplicate(judged, "interactions")).collect()
    assert sorted(row["item_id"] for row in once) == ["i", "j"]


def test_items_get_their_tags_their_defaults_and_their_validity(spark: SparkSession) -> None:
    rows = [
        {
            "item_id": "a",
            "title": " Tea ",
            "tags": "hot\u001f \u001fgreen",
            "price": "1.5",
            "valid_from": "2024-02-01",
        },
        {"item_id": "b", "title": " ", "is_available": "no"},
        {"item_id": "c", "title": "x" * 31},
        {"item_id": "d", "valid_from": "2024-02-02", "valid_to": "2024-02-01"},
    ]
    judged = cleaned(bronze(spark, rows, BRONZE_ITEMS), "items", settings=RULES, sources={})
    found = {row["item_id"]: row for row in judged.collect()}
    tea = found["a"]
    assert (tea["title"], tea["tags"], tea["price"], str(tea["valid_from"])) == (
        "Tea",
        ["hot", "green"],
        1.5,
        "2024-02-01",
    )
    assert (tea["is_available"], str(tea["valid_to"])) == (True, "9999-12-31")
    assert (found["b"]["title"], found["b"]["is_available"]) == (None, False)
    assert found["c"]["reject_reasons"] == ["overlong_text"]
    assert found["d"]["reject_reasons"] == ["bad_validity"]
