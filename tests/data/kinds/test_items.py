"""Items and users: typed and judged, read as of a day, and known after they are gone."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from datetime import date, datetime, timedelta
from functools import reduce
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.data.cleaning.clean import cleaned, deduplicate, good
from recsys_spark.data.sources import find_files, read_source
from recsys_spark.data.validity import current_on, known_on
from recsys_spark.errors import ConfigError
from recsys_spark.lake.schema import conform
from recsys_spark.lake.tables import BRONZE_AUDIENCES, BRONZE_ITEMS, BRONZE_USERS, SILVER_ITEMS, SILVER_USERS
from recsys_spark.ranking.rankable import on_sale
from tests.conftest import Frame
from tests.data.cleaning.test_clean import RULES
from tests.settings import a_source
from tests.tables import bronze

GERMAN = {"shop": a_source(kind="items", format="csv", path="x", time_format="dd.MM.yyyy")}
FIRST = date(2024, 1, 1)


def attributes(**texts: str | None) -> dict[str, str]:
    return {"attributes": json.dumps(texts)}


def test_every_rule_of_items_names_the_rows_that_break_it_and_no_other(spark: SparkSession) -> None:
    cases = {
        "good": ({"price": "2.5", **attributes(size="3", weight="-1e3", colour=" ", depth=None)}, []),
        "undated": ({}, []),
        "price word": ({"price": "two"}, ["bad_price"]),
        "price below zero": ({"price": "-0.01"}, ["bad_price"]),
        "price of nothing": ({"price": "0"}, []),
        "attribute word": (attributes(size="3", weight="light"), ["bad_attribute"]),
        "attribute NaN": (attributes(weight="NaN"), ["bad_attribute"]),
        "attribute infinite": (attributes(weight="-Infinity"), ["bad_attribute"]),
        "attribute huge": (attributes(weight="1000001"), ["bad_attribute"]),
        "attribute list": ({"attributes": "[1, 2]"}, ["bad_attribute"]),
        "attribute half": ({"attributes": '{"size": "1'}, ["bad_attribute"]),
        "attribute twice": ({"attributes": '{"size": "1", "size": "2"}'}, ["bad_attribute"]),
        "released": ({"released_at": "29.02.2024"}, []),
        "released never": ({"released_at": "30.02.2024"}, ["unparsable_time"]),
        "dated": ({"valid_from": "01.03.2024", "valid_to": "02.03.2024"}, []),
        "dated elsewhere": ({"valid_from": "2024-03-01"}, ["bad_validity"]),
        "over before it began": ({"valid_from": "02.03.2024", "valid_to": "02.03.2024"}, ["bad_validity"]),
        "  ": ({}, ["missing_item_id"]),
        "long title": ({"title": "x" * 31}, ["overlong_text"]),
        "malformed": ({"malformed": "a;b"}, ["malformed_row"]),
    }
    rows = [{"item_id": name, **change} for name, (change, _) in cases.items()]
    judged = cleaned(bronze(spark, rows, BRONZE_ITEMS), "items", settings=RULES, sources=GERMAN)
    conform(judged.select(*SILVER_ITEMS.columns), SILVER_ITEMS)
    found = {row["item_id"]: row for row in judged.collect()}
    assert {name: row["reject_reasons"] for name, row in found.items()} == {
        name: reasons for name, (_, reasons) in cases.items()
    }
    assert found["good"]["attributes"] == {"size": 3.0, "weight": -1000.0}
    assert found["undated"]["attributes"] is None
    assert found["released"]["released_at"] == datetime(2024, 2, 29)
    assert (found["dated"]["valid_from"], found["dated"]["valid_to"]) == (date(2024, 3, 1), date(2024, 3, 2))


def test_users_have_groups_and_neither_users_nor_audiences_have_long_texts(spark: SparkSession) -> None:
    groups = {"country": "NZ", "region": " South ", "segment": "", "age_band": "35-44"}
    users = [
        {"user_id": "a", **groups, "is_consented": "Yes"},
        {"user_id": "b", "region": "x" * 31},
        {"user_id": "c", "is_consented": "perhaps"},
    ]
    judged = cleaned(bronze(spark, users, BRONZE_USERS), "users", settings=RULES, sources={})
    conform(judged.select(*SILVER_USERS.columns), SILVER_USERS)
    found = {row["user_id"]: row for row in judged.collect()}
    assert [found["a"][name] for name in groups] == ["NZ", "South", None, "35-44"]
    assert {user: row["is_consented"] for user, row in found.items()} == {"a": True, "b": False, "c": None}
    assert found["b"]["reject_reasons"] == ["overlong_text"]
    assert found["c"]["reject_reasons"] == ["unreadable_flag"]
    members = [{"user_id": "a", "audience": "x" * 21}, {"user_id": "a", "audience": "spring"}]
    rows = cleaned(bronze(spark, members, BRONZE_AUDIENCES), "audiences", settings=RULES, sources={})
    reasons = {row["audience"]: row["reject_reasons"] for row in rows.collect()}
    assert reasons == {"x" * 21: ["overlong_id"], "spring": []}


def test_attributes_come_from_the_columns_that_the_source_names(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("sku,g,stars\na,250,4.5\nb,,x\n")
    source = a_source(
        kind="items",
        format="csv",
        path="x",
        columns={"item_id": "sku"},
        attributes={"weight": "g", "rating": "stars"},
    )
    files = find_files(spark, "shop", str(tmp_path))
    rows = read_source(spark, "shop", source, files).collect()
    found = {row["item_id"]: json.loads(row["attributes"]) for row in rows}
    assert found == {"a": {"rating": "4.5", "weight": "250"}, "b": {"rating": "x", "weight": None}}
    wrong = source.model_copy(update={"attributes": {"weight": "gg", "rating": "star"}})
    with pytest.raises(ConfigError, match=r"'gg' \(for weight\) not found.* Did you mean stars\?"):
        read_source(spark, "shop", wrong, files)


def test_attributes_belong_to_items_and_have_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="attributes belong to sources of kind 'items', not 'users'"):
        a_source(kind="users", format="csv", path="x", attributes={"age": "age"})
    with pytest.raises(ValueError, match="attributes may not be called 'price'"):
        a_source(kind="items", format="csv", path="x", attributes={"price": "cost"})


def deliveries(draw: random.Random) -> list[dict]:
    """Versions of 60 items in up to four deliveries, some with an end, some delivered again and changed."""
    rows = []
    for item in range(60):
        for _ in range(draw.randint(1, 6)):
            start = FIRST + timedelta(days=draw.randrange(12))
            ends = draw.random() < 0.4
            rows.append(
                {
                    "row": len(rows),
                    "item_id": f"i{item:02d}",
                    "title": f"title {draw.randrange(1000)}",
                    "valid_from": str(start) if draw.random() < 0.85 else None,
                    "valid_to": str(start + timedelta(days=draw.randint(1, 5))) if ends else None,
                    "is_available": draw.choice(["true", "false"]),
                    "delivered_at": datetime(2024, 5, 1 + draw.randrange(4)),
                    "content_hash": f"h{draw.randrange(3)}",
                }
            )
    return rows


def oracle(silver: list[tuple], day: date) -> dict[str, tuple]:
    """item -> (title, ended, available) of the version that began last; rows: what silver must hold."""
    begun = defaultdict(list)
    for item, start, end, title, is_available in silver:
        if start <= day:
            begun[item].append((start, end, title, is_available))
    return {item: max(versions) for item, versions in begun.items()}


def test_one_version_of_each_item_holds_on_a_day_whatever_the_order_of_deliveries(
    spark: SparkSession,
) -> None:
    rows = deliveries(random.Random(3))
    days = [FIRST + timedelta(days=n) for n in (-1, 0, 4, 9, 30)]

    def read(order: list[dict], partitions: int) -> tuple[list[tuple], dict[tuple, set]]:
        frame = bronze(spark, order, BRONZE_ITEMS).repartition(partitions)
        judged = good(cleaned(frame, "items", settings=RULES, sources={}))
        silver = deduplicate(judged, "items").select(*SILVER_ITEMS.columns).localCheckpoint()
        columns = ("item_id", "valid_from", "valid_to", "title", "is_available")
        views: list[DataFrame] = [
            reader(silver, day, "item_id").select(F.lit(name), F.lit(day), *columns)
            for day in days
            for name, reader in (("known", known_on), ("current", current_on))
        ]
        found = defaultdict(set)
        for name, day, *version in reduce(DataFrame.unionAll, views).collect():
            assert version[0] not in {earlier[0] for earlier in found[name, day]}
            found[name, day].add(tuple(version))
        return [tuple(row) for row in silver.select(*columns).collect()], dict(found)

    silver, found = read(rows, 1)
    assert len(silver) > 150
    for day in days:
        newest = oracle(silver, day)
        known = {(item, *version) for item, version in newest.items()}
        assert found.get(("known", day), set()) == known
        assert found.get(("current", day), set()) == {version for version in known if day < version[2]}
    assert len(found["current", days[3]]) < len(found["known", days[3]]) == 60
    again, same = read(rows[::-1], 5)
    assert (sorted(again), same) == (sorted(silver), found)


def test_an_item_that_is_no_longer_sold_is_known_by_its_title_and_not_recommended(frame: Frame) -> None:
    ends = date(9999, 12, 31)
    day = date(2024, 6, 2)
    rows = [
        ("sold", "Tea", True, FIRST, ends),
        ("out of stock", "Milk", False, FIRST, ends),
        ("ended today", "Bread", True, FIRST, day),
        ("ends tomorrow", "Jam", True, FIRST, day + timedelta(days=1)),
        ("taken off", "Soap", True, FIRST, ends),
        ("taken off", "Old soap", False, day, ends),
        ("brought back", "Fish", False, FIRST, ends),
        ("brought back", "Fresh fish", True, day, ends),
        ("offer over", "Salt", True, FIRST, ends),
        ("offer over", "Cheap salt", True, FIRST + timedelta(days=1), FIRST + timedelta(days=3)),
        ("not yet", "Plums", True, day + timedelta(days=1), ends),
    ]
    schema = "item_id string, title string, is_available boolean, valid_from date, valid_to date"
    versions = frame(schema, rows).withColumns(
        {"delivered_at": F.lit(datetime(2024, 5, 1)), "row_hash": F.lit(1)}
    )
    assert {row["item_id"] for row in on_sale(versions, day).collect()} == {
        "sold",
        "ends tomorrow",
        "brought back",
    }
    assert {row["item_id"]: row["title"] for row in known_on(versions, day, "item_id").collect()} == {
        "sold": "Tea",
        "out of stock": "Milk",
        "ended today": "Bread",
        "ends tomorrow": "Jam",
        "taken off": "Old soap",
        "brought back": "Fresh fish",
        "offer over": "Cheap salt",
    }
