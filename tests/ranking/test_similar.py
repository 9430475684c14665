"""What goes with an item, against plain Python: three cosines, held back, weighed, sorted."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.sections import Similar
from recsys_spark.ranking.catalogue import Catalogue, catalogue_of
from recsys_spark.ranking.similar import pieces, sampled, similar_items
from tests.conftest import Frame
from tests.frames import frames, ids

ITEMS, TERMS, RANK = 150, 12, 4
SETTINGS = Similar(
    k=7,
    neighbours="sold",
    together="basket",
    days=365,
    max_lines=100_000,
    min_shared=2,
    shrinkage=3.0,
    als=0.3,
    content=0.2,
    co_purchase=1.0,
)


@dataclass
class World:
    """Items by id: ALS factors, words, buyers lately; and baskets of them."""

    factors: dict[str, list[float]] = field(default_factory=dict)
    words: dict[str, dict[int, float]] = field(default_factory=dict)
    users: dict[str, int] = field(default_factory=dict)
    baskets: list[set[str]] = field(default_factory=list)


def made(seed: int = 1) -> World:
    """Twins (i000, i001), ten items never bought, one without words (i002), one no longer sold (i003)."""
    draw = random.Random(seed)
    world = World()
    names = [f"i{n:03d}" for n in range(ITEMS)]
    bought = names[:-10]
    for name in names:
        terms = draw.sample(range(TERMS), 3)
        length = math.sqrt(sum((1 + t) ** 2 for t in terms))
        world.words[name] = {t: (1 + t) / length for t in terms}
    for name in bought:
        world.factors[name] = [draw.gauss(0, 1) for _ in range(RANK)]
        world.users[name] = draw.randint(1, 9)
    world.words["i002"], world.users["i003"] = {}, 0
    world.words["i001"], world.factors["i001"] = world.words["i000"], world.factors["i000"]
    for _ in range(150):
        basket = {bought[int(len(bought) * draw.random() ** 2)] for _ in range(6)}
        world.baskets.append(basket | ({"i000", "i001"} if basket & {"i000", "i001"} else set()))
    return world


def expected(world: World, settings: Similar) -> dict[str, list[tuple[str, float, str]]]:
    held = {name: sum(name in basket for basket in world.baskets) for name in world.words}
    sold = {name for name in world.words if world.users.get(name) or settings.neighbours == "on_sale"}

    def trust(n: int) -> float:
        return n / (n + settings.shrinkage)

    def parts(one: str, other: str) -> dict[str, float]:
        x, y = (world.factors.get(name, [0.0] * RANK) for name in (one, other))
        lengths = math.hypot(*x) * math.hypot(*y)
        als = sum(map(float.__mul__, x, y)) / lengths if lengths else 0.0
        s, t = world.words[one], world.words[other]
        both = sum({one, other} <= basket for basket in world.baskets)
        apart = math.sqrt(held[one] * held[other])
        return {
            "als": settings.als * als * math.sqrt(trust(held[one]) * trust(held[other])),
            "content": settings.content * sum(s[term] * t[term] for term in s if term in t),
            "co_purchase": settings.co_purchase * both / apart * trust(both)
            if both >= settings.min_shared
            else 0.0,
        }

    lists = {}
    for one in world.words:
        scored = [(other, parts(one, other)) for other in sorted(sold) if other != one]
        ranked = sorted(scored, key=lambda pair: (-sum(pair[1].values()), pair[0]))
        lists[one] = [
            (other, sum(given.values()), max(given, key=given.__getitem__))
            for other, given in ranked[: settings.k]
            if sum(given.values()) > 0
        ]
    return lists


def opened(spark: SparkSession, world: World) -> Catalogue:
    names = sorted(world.words)
    words = [
        (name, sorted(world.words[name]), [world.words[name][t] for t in sorted(world.words[name])])
        for name in names
    ]

    counts = [(name, users, 0, True) for name, users in world.users.items()]
    whole = frames(spark, items=ids(names), factors=world.factors.items(), vectors=words, popularity=counts)
    return catalogue_of(**{name: frame.repartition(3) for name, frame in whole.items()})


@pytest.fixture(scope="module")
def catalogue(spark: SparkSession) -> Iterator[Catalogue]:
    """Of made(): its baskets are no part of it."""
    made_of = opened(spark, made())
    yield made_of
    made_of.shared.release()


def neighbours_of(
    catalogue: Catalogue, frame: Frame, world: World, settings: Similar = SETTINGS, **knobs
) -> dict[str, list]:
    together = [(n, item) for n, basket in enumerate(world.baskets) for item in sorted(basket)]
    lists = defaultdict(list)
    with similar_items(
        catalogue,
        frame("basket bigint, item_id string", [*together, (0, "not on sale")]),
        settings=settings,
        **{"partitions": 3, **knobs},
    ) as rows:
        for row in sorted(rows.collect(), key=lambda row: (row["item_id"], row["rank"])):
            lists[row["item_id"]].append(row)
            assert row["rank"] == len(lists[row["item_id"]])
    return lists


@pytest.mark.parametrize("neighbours", ["sold", "on_sale"])
def test_neighbours_are_those_of_all_blended_scores_sorted(catalogue, frame, neighbours):
    world = made()
    settings = SETTINGS.model_copy(update={"neighbours": neighbours})
    lists = neighbours_of(catalogue, frame, world, settings)
    right = expected(world, settings)
    assert len(right) == ITEMS
    for name, ranked in right.items():
        rows = lists[name]
        assert [row["similar_item_id"] for row in rows] == [other for other, _, _ in ranked], name
        assert [row["score"] for row in rows] == pytest.approx([score for _, score, _ in ranked], abs=1e-6)
        assert [row["source"] for row in rows] == [source for _, _, source in ranked]
    sources = {source for ranked in right.values() for _, _, source in ranked}
    assert sources == {"als", "content", "co_purchase"}
    everywhere = {other for ranked in right.values() for other, _, _ in ranked}
    assert (everywhere & {"i003", "i149"} != set()) == (neighbours == "on_sale")


def test_partitions_shards_and_batches_change_nothing(catalogue, frame, monkeypatch):
    world = made()
    whole = neighbours_of(catalogue, frame, world)
    assert neighbours_of(catalogue, frame, world, partitions=1) == whole
    assert neighbours_of(catalogue, frame, world, max_item_share=1e-6) == whole
    monkeypatch.setattr("recsys_spark.ranking.similar.PAIRS_AT_ONCE", 40)
    assert neighbours_of(catalogue, frame, world) == whole


def test_items_at_once_are_cut_by_the_work_of_their_baskets():
    cut = pieces(np.array([0, 3, 4, 9, 50, 2, 0, 7]), 10)
    assert [part.tolist() for part in cut] == [[0, 1, 2, 3], [4], [5, 6, 7]]
    assert [part.tolist() for part in pieces(np.array([0, 0, 0]), 10)] == [[0, 1, 2]]


def test_of_too_many_lines_whole_baskets_are_drawn_the_same_whatever_the_order(frame):
    lines = [(item, basket) for basket in range(400) for item in range(basket % 5 + 1)]
    schema = "item_index int, basket bigint"
    kept = sampled(frame(schema, lines), 300).to_pylist()
    rows = {(row["item_index"], row["basket"]) for row in kept}
    baskets = {basket for _, basket in rows}
    assert rows == {line for line in lines if line[1] in baskets}
    assert 200 < len(rows) < 400
    again = sampled(frame(schema, lines[::-1], 2), 300).to_pylist()
    assert {(row["item_index"], row["basket"]) for row in again} == rows
    assert sampled(frame(schema, lines), len(lines)).num_rows == len(lines)


def test_items_that_nobody_had_have_neighbours_by_words_alone(catalogue, frame):
    world = made()
    lists = neighbours_of(catalogue, frame, world)
    for name in (f"i{n}" for n in range(140, 150)):
        assert lists[name], name
        for row in lists[name]:
            given = row["component_scores"]
            assert row["source"] == "content"
            assert (given["als"], given["co_purchase"]) == (0.0, 0.0)
            assert row["score"] == pytest.approx(SETTINGS.content * given["content"])


def test_a_shop_without_sales_or_factors_has_no_neighbours_or_those_of_words(spark, frame):
    world = World(words={"a": {0: 1.0}, "b": {0: 1.0}, "c": {1: 1.0}})
    catalogue = opened(spark, world)
    assert neighbours_of(catalogue, frame, world) == {}
    every = neighbours_of(catalogue, frame, world, SETTINGS.model_copy(update={"neighbours": "on_sale"}))
    assert {name: [row["similar_item_id"] for row in rows] for name, rows in every.items()} == {
        "a": ["b"],
        "b": ["a"],
    }


def test_a_basket_of_a_whole_shop_says_nothing(catalogue, frame, monkeypatch):
    world = made()
    without = neighbours_of(catalogue, frame, world)
    world.baskets.append(set(world.words))
    assert neighbours_of(catalogue, frame, world) != without
    monkeypatch.setattr("recsys_spark.ranking.similar.MAX_TOGETHER", ITEMS - 1)
    assert neighbours_of(catalogue, frame, world) == without
