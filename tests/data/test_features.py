"""Features of items and users: scaled by their stated rules, to the last bit whatever the partitions."""

from __future__ import annotations

import math
import random
from datetime import date, datetime, timedelta
from statistics import fmean, median, pstdev

import numpy as np
import pytest

from recsys_spark.config.sections import Features
from recsys_spark.data.features import item_features, number_names, user_features
from recsys_spark.errors import ConfigError
from recsys_spark.lake.schema import conform
from recsys_spark.lake.tables import MODEL_ITEM_FEATURES, MODEL_USER_FEATURES, Table
from tests.conftest import Frame
from tests.settings import a_source

DAY = date(2024, 6, 2)
ITEMS = "item_id string, price double, released_at timestamp, attributes map<string,double>"
USERS = "user_id string, country string, region string, segment string, age_band string"
NAMES = ("price", "age_days", "constant", "huge", "never", "weight")


def conforms(rows, table: Table) -> bool:
    """Whether the frame has the table's columns, but for the version."""
    return conform(rows.selectExpr("'v' AS model_version", "*"), table) is not None


def made_up_items() -> list[tuple]:
    draw = random.Random(5)
    rows = []
    for item in range(200):
        price = None if item % 7 == 0 else round(draw.lognormvariate(1, 1), 2)
        age = timedelta(days=draw.randrange(-30, 400), seconds=draw.randrange(86400))
        released = None if item % 11 == 0 else datetime(2024, 6, 2) - age
        given = {"constant": 3.0, "huge": draw.uniform(-1e9, 1e9), "weight": 1e-6 * draw.random() + 1000}
        rows.append((f"i{item:03d}", price, released, None if item % 5 == 0 else given))
    return rows


def numbers_of(row: tuple) -> dict[str, float | None]:
    """What is known of one item, by the rules in words: the oracle."""
    _, price, released, given = row
    age = None if released is None else max((DAY - released.date()).days, 0)
    numbers = {name: (given or {}).get(name) for name in NAMES}
    return {**numbers, "price": None if price is None else math.log1p(price), "age_days": age}


def test_numbers_are_standardised_over_all_items_with_the_median_in_the_place_of_what_is_missing(
    frame: Frame,
) -> None:
    rows = made_up_items()
    expected = {row[0]: [] for row in rows}
    for name in NAMES:
        known = {row[0]: numbers_of(row)[name] for row in rows}
        given = [value for value in known.values() if value is not None]
        middle = median(given) if given else 0.0
        filled = {item: middle if value is None else value for item, value in known.items()}
        mean, spread = fmean(filled.values()), pstdev(filled.values())
        is_constant = len(set(filled.values())) == 1
        for item, value in filled.items():
            scaled = 0.0 if is_constant else (value - mean) / spread
            expected[item] += [scaled, float(known[item] is None)]
    found = []
    for order, partitions in ((rows, 1), (rows[::-1], 4)):
        features = item_features(frame(ITEMS, order, partitions), DAY, names=NAMES, log1p=["price"])
        assert conforms(features, MODEL_ITEM_FEATURES)
        found.append(
            {row["item_id"]: (tuple(row["names"]), tuple(row["values"])) for row in features.collect()}
        )
    assert found[0] == found[1]
    labels = tuple(label for name in NAMES for label in (name, f"{name}_is_missing"))
    assert {names for names, _ in found[0].values()} == {labels}
    # A spread of 1e-6 around 1000 leaves a double seven digits.
    for item, values in expected.items():
        np.testing.assert_allclose(found[0][item][1], values, rtol=1e-5, atol=1e-5, err_msg=item)


def test_long_tails_of_both_signs_can_be_drawn_in_and_one_item_alone_is_the_mean(frame: Frame) -> None:
    rows = [("a", None, None, {"x": -99.0}), ("b", None, None, {"x": 99.0}), ("c", None, None, {"x": 0.0})]
    found = item_features(frame(ITEMS, rows), DAY, names=("x",), log1p=["x"]).collect()
    values = {row["item_id"]: row["values"][0] for row in found}
    assert values == {"a": pytest.approx(-math.sqrt(1.5)), "b": pytest.approx(math.sqrt(1.5)), "c": 0.0}
    [alone] = item_features(frame(ITEMS, rows[:1]), DAY, names=("x", "price")).collect()
    assert alone["values"] == [0.0, 0.0, 0.0, 1.0]


def test_the_numbers_are_those_of_all_sources_and_a_misspelt_one_is_refused() -> None:
    sources = {
        name: a_source(kind="items", format="csv", path="x", attributes=columns)
        for name, columns in (("a", {"weight": "g", "size": "s"}), ("b", {"weight": "kg"}))
    }
    sources["c"] = a_source(kind="users", format="csv", path="x")
    settings = Features(log1p=["price", "weight"], min_users=1)
    assert number_names(sources, settings) == ("price", "age_days", "size", "weight")
    with pytest.raises(ConfigError, match=r"features.log1p names 'wieght'.* Did you mean weight\?"):
        number_names(sources, Features(log1p=["wieght"], min_users=1))


def test_groups_of_enough_users_have_a_column_and_small_ones_share_one(frame: Frame) -> None:
    rows = [
        ("a", "NZ", "North", "new", "18-24"),
        ("b", "NZ", "South", "new", None),
        ("c", "AU", "South", "other", "25-34"),
        ("d", "NZ", None, "unknown", "18-24"),
    ]
    features = user_features(frame(USERS, rows), min_users=2)
    assert conforms(features, MODEL_USER_FEATURES)
    found = {row["user_id"]: row for row in features.collect()}
    names = [
        *("country=NZ", "country=other", "country=unknown"),
        *("region=South", "region=other", "region=unknown"),
        *("segment=new", "segment=other", "segment=unknown"),
        *("age_band=18-24", "age_band=other", "age_band=unknown"),
    ]
    assert {tuple(row["names"]) for row in found.values()} == {tuple(names)}
    assert {
        user: [n for n, v in zip(names, row["values"], strict=True) if v] for user, row in found.items()
    } == {
        "a": ["country=NZ", "region=other", "segment=new", "age_band=18-24"],
        "b": ["country=NZ", "region=South", "segment=new", "age_band=unknown"],
        "c": ["country=other", "region=South", "segment=other", "age_band=other"],
        "d": ["country=NZ", "region=unknown", "segment=unknown", "age_band=18-24"],
    }
    assert {value for row in found.values() for value in row["values"]} == {0.0, 1.0}
