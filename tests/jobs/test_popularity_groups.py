"""Popularity by segment and with the season, from the made-up shop's silver to a new user's list."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date

from pyspark.sql import SparkSession

from recsys_spark.data.reading import liked_on
from recsys_spark.lake.tables import MODEL_GROUP_POPULARITY, SILVER_USERS
from recsys_spark.models.versions import of_version, train_popularity_once
from recsys_spark.names import COMPONENTS
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import lists
from recsys_spark.ranking.rankable import in_groups, rankable_catalogue
from recsys_spark.runtime.rows import frame_of
from tests.frames import frames
from tests.jobs.conftest import Night
from tests.settings import changed

DAY, PRIOR = date(2024, 6, 2), 10.0
ALONE = Variant("repeats_allowed", "popularity", {name: float(name == "popularity") for name in COMPONENTS})


def test_a_user_without_an_event_gets_what_their_segment_buys(night: Night, spark: SparkSession) -> None:
    changes = {"by": ["segment"], "group_prior": PRIOR, "max_groups": 3}
    job = replace(night.job, settings=changed(night.job.settings, popularity=changes))
    train_popularity_once(job, "grouped", DAY)

    segment = {row["user_id"]: row["segment"] for row in job.read(SILVER_USERS).collect()}
    recent = {
        (row["user_id"], row["item_id"])
        for row in liked_on(job, DAY).collect()
        if (DAY - row["event_date"]).days < job.settings.popularity.window_days
    }
    buyers = {user for user, _ in recent}
    sizes = Counter(segment[user] for user in buyers)
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:3]
    share = Counter(item for _, item in recent)
    own = Counter((segment[user], item) for user, item in recent)
    expected = {
        (f"segment={name}", item): own[name, item] + PRIOR * share[item] / len(buyers)
        for name in largest
        for item in share
    }
    stored = of_version(job, MODEL_GROUP_POPULARITY, "grouped").collect()
    users_of = {(row["group"], row["item_id"]): row["users"] for row in stored}
    assert users_of.keys() == expected.keys()
    assert all(abs(users_of[key] - expected[key]) < 1e-9 for key in expected)

    # As if two of the shop's users had never bought anything: one of a segment that is counted, one not.
    left_out = next(name for name in sizes if name not in largest)
    users = {name: min(user for user in segment if segment[user] == name) for name in (largest[0], left_out)}
    catalogue = rankable_catalogue(job, "grouped", DAY)
    rows = lists(
        in_groups(job, frame_of(spark, [(user,) for user in users.values()], "user_id string"), DAY),
        **frames(spark, preferences=[], user_factors=[]),
        catalogue=catalogue,
        variants=[ALONE],
        k=5,
        partitions=1,
    ).collect()
    catalogue.shared.release()
    listed = {
        name: [row["item_id"] for row in rows if row["user_id"] == user] for name, user in users.items()
    }
    counted = {item: expected[f"segment={largest[0]}", item] for item in share}
    assert listed[largest[0]] == sorted(counted, key=lambda item: (-counted[item], item))[:5]
    assert listed[left_out] == sorted(share, key=lambda item: (-share[item], item))[:5]
    assert listed[largest[0]] != listed[left_out]
