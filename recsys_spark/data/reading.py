"""What a stage may know of users' doings on a day: effective events of people, and what they dislike."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import lru_cache

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Bots
from recsys_spark.data.bots import excluded_users, without
from recsys_spark.data.events import effective_events
from recsys_spark.data.preferences import liked, preferences
from recsys_spark.lake.job import Job
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import SILVER_EXCLUDED_USERS, SILVER_INTERACTIONS, SILVER_OUTCOMES
from recsys_spark.runtime.checkpoints import checkpointed


def excluded_on(job: Job, day: date) -> DataFrame:
    """(run_date, user_id, reason, observed, allowed): the night's own, or computed for another day."""
    if day == job.run_date:
        return job.read(SILVER_EXCLUDED_USERS).where(F.col("run_date") == F.lit(day))
    return _computed(job.spark, job.lake.root, job.run.run_id, day, job.settings.bots)


@lru_cache(maxsize=4)
def _computed(spark: SparkSession, root: str, run_id: str, day: date, bots: Bots) -> DataFrame:  # noqa: ARG001
    """Found once for a run (its inputs, settings and code): a backtest reads an earlier day several times."""
    interactions = Lake(spark, root).read(SILVER_INTERACTIONS)
    return checkpointed(excluded_users(interactions, day, bots=bots))


def events_on(job: Job, day: date) -> DataFrame:
    """The effective events of the day (silver.interactions' columns) of users who are not excluded."""
    settings = job.settings
    people = without(job.read(SILVER_INTERACTIONS), excluded_on(job, day))
    return effective_events(people, day, clean=settings.clean, ratings=settings.preferences.ratings)


def liked_on(job: Job, day: date) -> DataFrame:
    """Those of `events_on` that speak for their item."""
    return liked(events_on(job, day), job.settings.preferences)


def preferences_on(job: Job, day: date, *, events: DataFrame | None = None) -> DataFrame:
    """The preferences as of the end of the day, computed afresh; of `events` where not all are to count."""
    return preferences(
        events_on(job, day) if events is None else events,
        run_date=day,
        settings=job.settings.preferences,
        outcomes=without(job.read(SILVER_OUTCOMES), excluded_on(job, day)),
    )


def lenient_preferences_on(
    job: Job, day: date, users: DataFrame, *, events: DataFrame | None = None
) -> DataFrame:
    """The preferences of these users (user_id, unique), however few events they or their items have."""
    known = events_on(job, day) if events is None else events
    theirs = known.join(users, on="user_id", how="left_semi")
    bounds = {"min_events_per_user": 1, "min_events_per_item": 1}
    section = job.settings.preferences.model_copy(update=bounds)
    lenient = replace(job, settings=job.settings.model_copy(update={"preferences": section}))
    return preferences_on(lenient, day, events=theirs)
