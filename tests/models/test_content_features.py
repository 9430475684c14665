"""Features beside the words: their formula, and what they let lists and the map of cold items find."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config.sections import ColdItems, Content
from recsys_spark.errors import ConfigError
from recsys_spark.models.cold_items import cold_item_factors
from recsys_spark.models.content import fit_content
from recsys_spark.models.content_features import check_features
from recsys_spark.names import COMPONENTS
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import catalogue_of, lists
from recsys_spark.runtime.rows import frame_of
from tests.conftest import Frame
from tests.frames import frames, ids
from tests.settings import with_defaults

ITEMS = "item_id string, title string, category string, brand string, tags array<string>"
NUMBERS = "item_id string, names array<string>, values array<float>"


def settings(features: list[str], weight: float = 0.5) -> Content:
    return with_defaults(
        Content,
        fields=["title"],
        ngram=1,
        min_items=2,
        max_terms=100,
        features=features,
        feature_weight=weight,
    )


def test_a_vector_is_its_words_and_its_weighted_features_over_their_length(frame: Frame) -> None:
    items = [
        ("a", "tea", "x", "Mill", ["hot", "green", "rare"]),
        ("b", "tea", "x", "Mill", ["hot"]),
        ("c", "nothing", None, None, ["green"]),
        ("d", "anything", "x", "Other", None),
    ]
    numbers = [
        ("a", ["price", "price_is_missing", "weight", "weight_is_missing"], [-0.5, 0.0, 9.0, 0.0]),
        ("b", ["price", "price_is_missing", "weight", "weight_is_missing"], [1.5, 0.0, 0.25, 1.0]),
        ("d", ["price", "price_is_missing", "weight", "weight_is_missing"], [0.0, 0.0, -4.0, 0.0]),
    ]
    given = settings(["price", "weight", "brand", "tags"])
    model = fit_content(frame(ITEMS, items), given, numbers=frame(NUMBERS, numbers))
    terms = {row["term_index"]: row["term"] for row in model.terms.collect()}
    # `Other` and `rare` are of one item; c and d share no word with another.
    expected_terms = ["tea", "brand=Mill", "price", "tags=green", "tags=hot", "weight"]
    assert [terms[n] for n in range(len(terms))] == expected_terms
    raw = {
        "a": {
            "tea": 1,
            "brand=Mill": 0.5,
            "price": -0.25,
            "tags=green": 0.5 / sqrt(2),
            "tags=hot": 0.5 / sqrt(2),
            "weight": 1.5,
        },
        "b": {"tea": 1, "brand=Mill": 0.5, "price": 0.75, "tags=hot": 0.5},
        "c": {"tags=green": 0.5},
        "d": {"weight": -1.5},
    }
    found = {
        row["item_id"]: {terms[t]: w for t, w in zip(row["terms"], row["weights"], strict=True)}
        for row in model.vectors.collect()
    }
    for item, weights in raw.items():
        length = max(1.0, sqrt(sum(weight**2 for weight in weights.values())))  # without words it may be less
        assert found[item] == pytest.approx({name: w / length for name, w in weights.items()}), item


def test_without_features_words_are_all(frame: Frame) -> None:
    items = frame(
        ITEMS, [(name, "tea", "x", "Mill", ["hot"]) for name in "ab"] + [("c", "", "x", "Mill", [])]
    )
    vectors = fit_content(items, settings([])).vectors.collect()
    assert {row["item_id"]: row["weights"] for row in vectors} == {"a": [1.0], "b": [1.0], "c": []}


def test_a_feature_that_nobody_knows_is_refused_with_the_nearest_name() -> None:
    check_features(settings(["price", "brand"]), ["price", "age_days"])
    with pytest.raises(ConfigError, match="content.features names 'prise'.*Did you mean price"):
        check_features(settings(["prise"]), ["price", "age_days"])


N = 40  # items: every other one is dear, every other pair of them is red


def planted(spark: SparkSession, features: list[str]) -> DataFrame:
    """Content vectors of items whose words say nothing of their price."""
    items = [(f"i{n:02d}", ("red", "blue")[n // 2 % 2], "c", "b", None) for n in range(N)]
    numbers = [(f"i{n:02d}", ["price", "price_is_missing"], [float((-1) ** n), 0.0]) for n in range(N)]
    return fit_content(
        frame_of(spark, items, ITEMS),
        settings(features),
        numbers=frame_of(spark, numbers, NUMBERS),
    ).vectors


@pytest.mark.parametrize("features", [["price"], []], ids=["with the price", "without"])
def test_who_buys_what_is_cheap_is_shown_it_first_where_the_price_is_read(
    spark: SparkSession, features: list[str]
) -> None:
    """Odd items are cheap, and the user had all but the last. By the words alone the first is as good."""
    withheld, bought = f"i{N - 1:02d}", [f"i{n:02d}" for n in range(1, N - 1, 2)]
    catalogue = catalogue_of(
        **frames(spark, items=ids(f"i{n:02d}" for n in range(N)), factors=[], popularity=[]),
        vectors=planted(spark, features),
    )
    by_content = Variant("new_items_only", "content", {name: float(name == "content") for name in COMPONENTS})
    rows = lists(
        **frames(spark, users=[("u",)], preferences=[("u", item, 1.0) for item in bought], user_factors=[]),
        catalogue=catalogue,
        variants=[by_content],
        k=1,
        partitions=1,
    ).collect()
    catalogue.shared.release()
    assert [row["item_id"] for row in rows] == [withheld if features else "i00"]


@pytest.mark.parametrize("features", [["price"], []], ids=["with the price", "without"])
def test_factors_of_an_item_that_nobody_had_follow_its_price_where_it_is_read(
    spark: SparkSession, features: list[str]
) -> None:
    cold = {f"i{N - 2:02d}": 0, f"i{N - 1:02d}": 1}
    draw = np.random.default_rng(4)
    warm = [
        (f"i{n:02d}", [float(v) for v in (1.0 - n % 2, n % 2) + draw.normal(scale=0.01, size=2)])
        for n in range(N - 2)
    ]
    pairs = [(f"u{u}", item, 1.0) for item, _ in warm for u in range(3)]
    rows = cold_item_factors(
        **frames(spark, factors=warm, preferences=pairs),
        vectors=planted(spark, features),
        settings=with_defaults(ColdItems, enabled=True, dims=3, length=1.0, min_items=10, seed=1),
    ).collect()
    found = {row["item_id"]: np.array(row["factors"]) for row in rows}
    assert set(found) == set(cold)
    follow = [found[item][own] > 5 * abs(found[item][1 - own]) for item, own in cold.items()]
    assert follow == [bool(features)] * 2
