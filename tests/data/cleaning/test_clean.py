"""Bronze to silver: every row ends as good, quarantined or duplicate, and says why."""

from __future__ import annotations

import random
from datetime import date, datetime

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Clean
from recsys_spark.data.cleaning.clean import cleaned, deduplicate, good, quarantined
from recsys_spark.lake.tables import (
    BRONZE_AUDIENCES,
    BRONZE_INTERACTIONS,
    BRONZE_ITEMS,
    BRONZE_OUTCOMES,
    BRONZE_USERS,
    Table,
)
from tests.conftest import Frame
from tests.settings import a_source, with_defaults
from tests.tables import bronze

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
    "copy": a_source(kind="interactions", format="csv", path="x", same_events_as="shop"),
}
LATER = datetime(2024, 6, 1)
NO_TIME = {"delivered_at": datetime(1970, 1, 1), "ingested_at": LATER}


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


def test_the_latest_delivery_of_an_event_stands_whatever_the_order(spark: SparkSession) -> None:
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


def stands(spark: SparkSession, kind: str, table: Table, rows: list[dict], *names: str) -> set[tuple]:
    """These columns of what is left of the rows, which is the same from one partition and from three."""
    found = []
    for partitions in (1, 3):
        frame = bronze(spark, rows, table).repartition(partitions)
        judged = good(cleaned(frame, kind, settings=RULES, sources=SOURCES))
        found.append([tuple(row[name] for name in names) for row in deduplicate(judged, kind).collect()])
    assert sorted(found[0], key=repr) == sorted(found[1], key=repr)
    assert len(set(found[0])) == len(found[0])
    return set(found[0])


def test_ids_are_those_of_their_source_but_where_a_setting_says_whose_events_it_has(
    spark: SparkSession,
) -> None:
    """Two sources count from 1; a third has the first one's events; some events have no id."""
    ids = ["1", "2", "3", "4", "5", None]
    rows = [
        {**GOOD, "event_id": event_id, "source": source, "user_id": source}
        for source in ("shop", "epoch")
        for event_id in ids
    ]
    seconds = {"event_at": "1711965600"}
    rows = [{**row, **seconds} if row["source"] == "epoch" else row for row in rows]
    rows += [{**row, "source": "copy"} for row in rows[:6]]  # delivered by both
    rows += [{**row, "source": "epoch", **seconds} for row in rows[5:6]]  # the same doing, told by another
    found = stands(spark, "interactions", BRONZE_INTERACTIONS, rows, "source", "user_id", "event_id")
    per_source = {name: [row for row in found if row[0] == name] for name in ("shop", "epoch")}
    assert {name: len(of) for name, of in per_source.items()} == {"shop": 6, "epoch": 7}
    assert len(found) == 13
    outcome = {"run_date": "2024-04-01", "channel": "email", "campaign": "c", "user_id": "u"}
    outcome |= {"outcome_type": "open", "event_at": "2024-04-02 10:00:00"}
    told = [
        {**outcome, "event_id": event_id, "source": source}
        for source in ("shop", "mailer", "copy")
        for event_id in ("1", None)
    ]
    found = stands(spark, "outcomes", BRONZE_OUTCOMES, told, "source", "outcome_type", "event_id")
    assert sorted(row[0] for row in found) == ["mailer", "mailer", "shop", "shop"]


def test_of_rows_of_one_key_in_one_delivery_the_later_event_then_the_later_row_and_a_no_stands(
    spark: SparkSession,
) -> None:
    """Each case twelve times, so that no hash is right by chance; its value is its name."""
    march, may = "2024-03-01 10:00:00", "2024-04-30 10:00:00"
    first = {"delivered_at": datetime(2024, 4, 30)}

    def pairs(id_column: str, case: str, *rows: dict) -> list[dict]:
        return [
            {**row, id_column: f"{case}{n}", "row": place}
            for n in range(12)
            for place, row in enumerate(rows)
        ]

    def told(rating: str, at: str, **other: object) -> dict:
        return {**GOOD, "value": rating, "event_at": at, **other}

    ratings = [
        *pairs("event_id", "9 later event", told("2", march), told("9", may)),
        *pairs("event_id", "9 event above", told("9", may), told("2", march)),
        *pairs("event_id", "9 later row", told("2", march), told("9", march)),
        *pairs("event_id", "9 later delivery", told("9", march), told("2", may, **first)),
    ]
    names = ("event_id", "value")
    found = stands(spark, "interactions", BRONZE_INTERACTIONS, ratings, *names)
    assert len(found) == 48
    assert {value for _, value in found} == {9.0}

    def user(consent: str, **other: object) -> dict:
        return {"is_consented": consent, **other}

    people = [
        *pairs("user_id", "no below", user("true"), user("false")),
        *pairs("user_id", "no above", user("false"), user("true")),
        *pairs("user_id", "no of another file", user("false"), user("true", content_hash="g")),
        *pairs("user_id", "no later", user("false"), user("true", **first)),
        *pairs("user_id", "yes later", user("true"), user("false", **first)),
    ]
    found = stands(spark, "users", BRONZE_USERS, people, "user_id", "is_consented")
    assert len(found) == 60
    assert all(is_consented == name.startswith("yes") for name, is_consented in found)

    def item(title: str, **other: object) -> dict:
        return {"title": title, **other}

    things = [
        *pairs("item_id", "row", item("no"), item("yes")),
        *pairs("item_id", "delivery", item("yes"), item("no", **first)),
        *pairs("item_id", "day", item("no", valid_from=march), item("yes", valid_from=march)),
    ]
    found = stands(spark, "items", BRONZE_ITEMS, things, "item_id", "title")
    assert len(found) == 36
    assert {title for _, title in found} == {"yes"}
    members = [
        {"user_id": f"u{n}", "audience": "a", "valid_to": end, "row": place}
        for n in range(12)
        for place, end in enumerate(("2024-06-01", "2024-05-01"))
    ]
    found = stands(spark, "audiences", BRONZE_AUDIENCES, members, "user_id", "valid_to")
    assert len(found) == 12
    assert {end for _, end in found} == {date(2024, 5, 1)}


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
            f"e{draw.randrange(20)}",
            draw.choice("st"),
            draw.choice(days),
            datetime(2024, 5, draw.randrange(1, 3)),
            datetime(2024, 4, draw.randrange(1, 3)),
            number,
            draw.randrange(3),
            "h",
            ["bad"] if draw.random() < 0.2 else [],
        )
        for number in range(400)
    ]
    latest: dict[tuple, tuple] = {}
    for row in rows:
        event, source, day, *version, _, reasons = row
        key = (event, source, day, version[2] if reasons else None)
        latest[key] = max(tuple(version), latest.get(key, tuple(version)))
    events = frame(
        "event_id string, source string, event_date date, delivered_at timestamp, event_at timestamp, row long, "
        "row_hash long, content_hash string, reject_reasons array<string>",
        rows,
    )
    once = deduplicate(events, "interactions", within_dates=True)
    found = once.withColumn("_partition", F.spark_partition_id()).collect()
    named = ("event_id", "source", "event_date")
    assert {
        (*(row[name] for name in named), row["row"] if row["reject_reasons"] else None): (
            row["delivered_at"],
            row["event_at"],
            row["row"],
            row["row_hash"],
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
