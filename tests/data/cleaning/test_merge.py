"""Batches into silver: whatever the order of deliveries, the same table, and only the batch's dates touched."""

from __future__ import annotations

import itertools
import zlib
from datetime import date, datetime
from pathlib import Path

import pytest
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.data.cleaning import merge
from recsys_spark.data.cleaning.merge import merge_batch
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import SILVER_INTERACTIONS
from tests.tables import rows_for

MONDAY, TUESDAY, FRIDAY = date(2024, 4, 1), date(2024, 4, 2), date(2024, 4, 5)
Event = tuple[str, date, str, datetime]

# (event_id, its date, the item, when it was delivered): corrections change the date or the item.
FIRST: list[Event] = [
    ("a", MONDAY, "tea", datetime(2024, 4, 6)),
    ("b", MONDAY, "bread", datetime(2024, 4, 6)),
    ("c", TUESDAY, "soap", datetime(2024, 4, 6)),
]
CORRECTED: list[Event] = [
    ("a", TUESDAY, "tea", datetime(2024, 4, 7)),
    ("b", MONDAY, "rolls", datetime(2024, 4, 7)),
    ("d", FRIDAY, "fruit", datetime(2024, 4, 7)),
]
AGAIN: list[Event] = [
    ("a", FRIDAY, "green tea", datetime(2024, 4, 8)),
    ("c", TUESDAY, "soap", datetime(2024, 4, 6)),
]


def delivery(spark: SparkSession, events: list[Event]) -> DataFrame:
    rows = [
        {
            "event_id": event_id,
            "user_id": "u",
            "item_id": item,
            "event_type": "purchase",
            "event_at": datetime.combine(day, datetime.min.time()),
            "event_date": day,
            "source": "s",
            "delivered_at": delivered,
            "row_hash": zlib.crc32(item.encode()),
        }
        for event_id, day, item, delivered in events
    ]
    return rows_for(spark, SILVER_INTERACTIONS, *rows)


def latest(batches: list[list[Event]]) -> set[tuple[str, date, str]]:
    """The oracle: of each event the row delivered last."""
    last: dict[str, Event] = {}
    for event in itertools.chain(*batches):
        if event[0] not in last or event[3] > last[event[0]][3]:
            last[event[0]] = event
    return {(event_id, day, item) for event_id, day, item, _ in last.values()}


@pytest.mark.parametrize("order", [(2, 1, 0), pytest.param((0, 1, 2), marks=pytest.mark.soak)])
def test_the_latest_delivery_of_an_event_stands_under_its_own_date(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]
) -> None:
    batches, lake = [FIRST, CORRECTED, AGAIN], Lake(spark, str(tmp_path))
    for number in order:
        # One of them as if it were too large to be sent to the table's rows.
        monkeypatch.setattr(merge, "SENT_ROWS", 0 if number == 1 else 500_000)
        merge_batch(lake, "interactions", delivery(spark, batches[number]))
    rows = lake.read(SILVER_INTERACTIONS).collect()
    assert sorted((row["event_id"], row["event_date"], row["item_id"]) for row in rows) == sorted(
        latest(batches)
    )


def test_the_same_batch_twice_changes_no_row_and_new_dates_are_only_appended(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = Lake(spark, str(tmp_path))
    for batch in (FIRST, FIRST, CORRECTED[2:]):
        merge_batch(lake, "interactions", delivery(spark, batch))
    history = DeltaTable.forPath(spark, lake.path(SILVER_INTERACTIONS)).history().orderBy("version").collect()
    assert [row["operation"] for row in history] == ["WRITE", "MERGE", "WRITE"]
    assert history[1]["operationMetrics"]["numTargetRowsUpdated"] == "0"
    assert history[1]["operationMetrics"]["numTargetRowsInserted"] == "0"
    found = {row["event_id"] for row in lake.read(SILVER_INTERACTIONS).collect()}
    assert found == {"a", "b", "c", "d"}


def silver(event_id: str, source: str, item: str, *, at: int, hour: int, **other: object) -> dict:
    """An event of an hour of Monday, delivered on a day of April."""
    moment = datetime(2024, 4, 1, hour)
    known = {"event_id": event_id, "source": source, "item_id": item, "user_id": "u", "row_hash": 0, "row": 0}
    when = {"event_at": moment, "event_date": MONDAY, "delivered_at": datetime(2024, 4, at)}
    return {**known, **when, "event_type": "purchase", **other}


def test_one_rule_says_which_row_stands_in_a_lake_of_an_earlier_version_too(
    spark: SparkSession, tmp_path: Path
) -> None:
    """The table has neither `row` nor one row of an event that two sources deliver, one of them twice."""
    table, lake = SILVER_INTERACTIONS, Lake(spark, str(tmp_path))
    known = [
        silver("1", "tills", "tea", at=6, hour=9, row_hash=9),
        silver("2", "tills", "tea", at=6, hour=9, row_hash=9),
        silver("3", "tills", "tea", at=6, hour=9, row_hash=9),
        silver("4", "copy", "tea", at=6, hour=9),
        silver("5", "copy", "tea", at=8, hour=9),
        silver("6", "copy", "tea", at=6, hour=9),
        silver("6", "tills", "tea", at=5, hour=9),
    ]
    old = rows_for(spark, table, *known).drop("row")
    old.write.format("delta").partitionBy("event_date").save(lake.path(table))
    batch = [
        silver("1", "web", "soap", at=7, hour=9),  # another source's 1
        silver("2", "tills", "soap", at=6, hour=8, row=5),  # an earlier event of the same moment of delivery
        silver("3", "tills", "soap", at=6, hour=9, row=5),  # a later row of it
        silver("4", "tills", "soap", at=7, hour=9),  # the same event as the copy's
        silver("5", "tills", "soap", at=7, hour=9),  # delivered before the copy
        silver("6", "tills", "soap", at=7, hour=9),
    ]
    merge_batch(lake, "interactions", rows_for(spark, table, *batch), same_events={"copy": "tills"})
    found = {(row["event_id"], row["source"], row["item_id"]) for row in lake.read(table).collect()}
    assert found == {
        ("1", "tills", "tea"),
        ("1", "web", "soap"),
        ("2", "tills", "tea"),
        ("3", "tills", "soap"),
        ("4", "tills", "soap"),
        ("5", "copy", "tea"),
        ("6", "tills", "soap"),
    }
    assert lake.read(table).count() == len(found)
