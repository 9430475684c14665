"""What has not happened yet helps nobody: shuffled futures are found as by chance, later facts not at all.

A made-up world without popular items: 3 tastes of 40 users and 20 items each. A user had 8 items of the own
taste and will have 4 more of it, and every item is had, and will be wanted, equally often. So a slot of a
list that knows nothing of its user holds a wanted item with probability 4 / 60, whatever the list.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config.load import load_settings
from recsys_spark.config.sections import Settings
from recsys_spark.data.events import effective_events
from recsys_spark.data.preferences import liked, preferences
from recsys_spark.data.validity import current_on
from recsys_spark.evaluation.backtest import relevant_items, variants_of
from recsys_spark.evaluation.metrics.metrics import user_scores
from recsys_spark.evaluation.metrics.significance import paired_bootstrap
from recsys_spark.models.als.fit import fit_als
from recsys_spark.models.content import fit_content
from recsys_spark.models.popularity import popularity
from recsys_spark.names import COMPONENTS, TASKS
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import catalogue_of, lists
from recsys_spark.runtime.checkpoints import checkpointed
from recsys_spark.runtime.rows import frame_of
from tests.settings import changed

TODAY = date(2024, 3, 10)
NEXT, LONG_AGO = TODAY + timedelta(days=1), date(2024, 1, 1)
TASTES, USERS, ITEMS, HAD, WANTED = 3, 40, 20, 8, 4
CHANCE = WANTED / (TASTES * ITEMS)
EVENTS = (
    "event_id string, user_id string, item_id string, event_type string, event_at timestamp, event_date date, "
    "quantity double, value double, cancels_event_id string, source string"
)
VERSIONS = (
    "item_id string, title string, valid_from date, valid_to date, delivered_at timestamp, row_hash string"
)
Pairs = list[tuple[str, str]]


def of_taste(taste: int, user: int, places: Sequence[int]) -> list[str]:
    """Items of the taste in a circle, from the user's own place on."""
    return [f"i{taste}{(user + place) % ITEMS:02d}" for place in places]


def pairs_of(places: Sequence[int]) -> Pairs:
    people = [(taste, user) for taste in range(TASTES) for user in range(USERS)]
    return [(f"u{t}{u:02d}", item) for t, u in people for item in of_taste(t, u, places)]


PAST, FUTURE = pairs_of(range(HAD)), pairs_of(range(HAD, HAD + WANTED))


def dealt_to_others(pairs: Pairs, seed: int) -> Pairs:
    """Each user gets all that another one had."""
    users = sorted({user for user, _ in pairs})
    others = random.Random(seed).sample(users, len(users))
    given = dict(zip(users, others, strict=True))
    return [(given[user], item) for user, item in pairs]


def shuffled(pairs: Pairs, seed: int) -> Pairs:
    """The same items as often, and the same users, in pairs by chance."""
    items = random.Random(seed).sample([item for _, item in pairs], len(pairs))
    return sorted({(user, item) for (user, _), item in zip(pairs, items, strict=True)})


def events_of(spark: SparkSession, past: Pairs, future: Pairs) -> DataFrame:
    """Silver holds both: what may be known is for the readers to tell."""
    rows = [
        (
            f"{user} {item} {day}",
            user,
            item,
            "purchase",
            datetime.combine(day, time(12)),
            day,
            1.0,
            None,
            None,
            "shop",
        )
        for day, pairs in ((TODAY, past), (NEXT, future))
        for user, item in pairs
    ]
    return frame_of(spark, rows, EVENTS).repartition(3)


def titled(spark: SparkSession, *, at: date, tells_taste: bool) -> DataFrame:
    """A version of every item from the day on; its title is its taste, or a word that is of no use."""
    begun = datetime.combine(at, time(1))
    rows = [
        (f"i{t}{i:02d}", f"taste{t}" if tells_taste else f"word{i % 5}", at, date(2100, 1, 1), begun, "")
        for t in range(TASTES)
        for i in range(ITEMS)
    ]
    return frame_of(spark, rows, VERSIONS).repartition(3)


DEALT = dealt_to_others(FUTURE, seed=3)


@pytest.fixture(scope="module")
def settings() -> Settings:
    quick = {"trainer": "cg", "rank": 6, "iterations": 4}
    return changed(load_settings("demo"), als=quick, content={"fields": ["title"]})


class World:
    """The lists that a night of the day makes, and how many of the slots are wanted."""

    def __init__(self, silver: DataFrame, versions: DataFrame, settings: Settings, day: date = TODAY) -> None:
        known = checkpointed(
            effective_events(silver, day, clean=settings.clean, ratings=settings.preferences.ratings)
        )
        self.pairs = checkpointed(preferences(known, run_date=day, settings=settings.preferences))
        factors = fit_als(self.pairs, settings.als)
        items = current_on(versions, day, "item_id")
        catalogue = catalogue_of(
            items.select("item_id"),
            factors=factors.items.select("item_id", "factors"),
            vectors=fit_content(items, settings.content).vectors,
            popularity=popularity(
                liked(known, settings.preferences), run_date=day, window_days=28, reference_days=90
            ),
        )
        blends = [Variant(task, "hybrid", settings.blend.fixed(task)) for task in TASKS]
        self.ranked = checkpointed(
            lists(
                self.pairs.select("user_id").distinct(),
                preferences=self.pairs,
                user_factors=factors.users,
                catalogue=catalogue,
                variants=variants_of(blends),
                k=10,
                partitions=2,
            ).select("task", "model", "user_id", "item_id", "rank")
        )
        catalogue.shared.release()

    def precision(self, events: DataFrame) -> dict[tuple[str, str], np.ndarray]:
        """Precision at 10 of each user, by task and model, where these events come next."""
        relevant = relevant_items(events, self.pairs)
        rows = user_scores(self.ranked, relevant, ks=[10], item_popularity=None).where("n > 0").collect()
        of_model: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            of_model.setdefault((row["task"], row["model"]), []).append(row["precision@10"])
        return {key: np.array(values) for key, values in of_model.items()}

    def slots(self) -> list[tuple[Any, ...]]:
        return sorted(map(tuple, self.ranked.collect()))


def is_by_chance(values: np.ndarray) -> bool:
    """99.9 %: a dozen intervals are looked at."""
    interval = paired_bootstrap(values - CHANCE, samples=2000, seed=1, level=0.999)
    return interval.low <= 0 <= interval.high


@pytest.fixture(scope="module")
def night(spark: SparkSession, settings: Settings) -> World:
    """A night that nothing has been told of the future, and nothing of use by the titles."""
    return World(events_of(spark, PAST, []), titled(spark, at=LONG_AGO, tells_taste=False), settings)


def test_a_future_dealt_to_others_is_found_as_by_chance(spark: SparkSession, night: World) -> None:
    own = night.precision(events_of(spark, [], FUTURE))
    assert own["new_items_only", "hybrid"].mean() > 4 * CHANCE
    assert own["new_items_only", "als"].mean() > 4 * CHANCE
    others = night.precision(events_of(spark, [], DEALT))
    assert {model for _, model in others} == {"hybrid", *COMPONENTS}
    assert [key for key, values in others.items() if not is_by_chance(values)] == []


def test_models_of_shuffled_pairs_find_the_future_as_by_chance(
    spark: SparkSession, settings: Settings
) -> None:
    silver = events_of(spark, shuffled(PAST, seed=5), FUTURE)
    world = World(silver, titled(spark, at=LONG_AGO, tells_taste=False), settings)
    precision = world.precision(events_of(spark, [], FUTURE))
    assert [key for key, values in precision.items() if not is_by_chance(values)] == []


def test_events_and_words_of_the_next_day_change_no_list(
    spark: SparkSession, night: World, settings: Settings
) -> None:
    """From tomorrow on the titles tell who will want what, and silver holds what that is."""
    later = titled(spark, at=LONG_AGO, tells_taste=False).unionByName(
        titled(spark, at=NEXT, tells_taste=True)
    )
    assert World(events_of(spark, PAST, FUTURE), later, settings).slots() == night.slots()
    precision = night.precision(events_of(spark, [], FUTURE))
    assert precision["new_items_only", "content"].mean() < 2 * CHANCE


def test_a_night_that_looks_a_day_ahead_would_be_seen(spark: SparkSession, settings: Settings) -> None:
    """The tests above can fail: the same events and words, one day too early."""
    world = World(events_of(spark, PAST, DEALT), titled(spark, at=NEXT, tells_taste=True), settings, day=NEXT)
    precision = world.precision(events_of(spark, [], DEALT))
    for model in ("hybrid", "history", "als"):
        assert not is_by_chance(precision["repeats_allowed", model])
        assert precision["repeats_allowed", model].mean() > 2 * CHANCE
    by_words = world.precision(events_of(spark, [], FUTURE))["new_items_only", "content"]
    assert by_words.mean() > 4 * CHANCE
