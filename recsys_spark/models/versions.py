"""Model versions: trained once for given inputs, stored, and found again."""

from __future__ import annotations

from datetime import date
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import digest
from recsys_spark.data.features import item_features, number_names, user_features
from recsys_spark.data.reading import lenient_preferences_on, liked_on
from recsys_spark.data.snapshots import versions_on
from recsys_spark.data.validity import current_on
from recsys_spark.errors import NothingToLearnError
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import (
    MODEL_ALS_TRAINING,
    MODEL_COLD_ITEM_FACTORS,
    MODEL_CONTENT_TERMS,
    MODEL_CONTENT_VECTORS,
    MODEL_GROUP_POPULARITY,
    MODEL_ITEM_FACTORS,
    MODEL_ITEM_FEATURES,
    MODEL_POPULARITY,
    MODEL_USER_FACTORS,
    MODEL_USER_FEATURES,
    SILVER_PREFERENCES,
    Table,
)
from recsys_spark.models.als.factors import Factors
from recsys_spark.models.als.fit import fit_als
from recsys_spark.models.als.nights import earlier_night, factors_of, training_rows
from recsys_spark.models.als.pairs import fold_in_pairs, training_pairs
from recsys_spark.models.als.reuse import backtest_name, trained_before, with_newcomers
from recsys_spark.models.cold_items import cold_item_factors
from recsys_spark.models.content import fit_content
from recsys_spark.models.content_features import check_features
from recsys_spark.models.popularity import group_of_user, group_popularity, popularity


def backtest_version(job: Job, cutoff: date) -> str:
    """The version of the models that a backtest trains: equal for equal inputs and settings."""
    return backtest_name(job.run, cutoff)


def last_one_version(job: Job) -> str:
    """The version of the models that know all events but each user's last."""
    run = job.run
    key = digest(["last one", job.run_date, run.input_hash, run.config_hash, run.code_hash])
    return f"last-one-{job.run_date:%Y%m%d}-{key[:10]}"


def preferences_of(job: Job) -> DataFrame:
    """The night's own preferences."""
    return job.read(SILVER_PREFERENCES).where(F.col("run_date") == F.lit(job.run_date))


def of_version(job: Job, table: Table, version: str) -> DataFrame:
    return job.read(table).where(F.col("model_version") == version).drop("model_version")


def train_als_once(
    job: Job,
    version: str,
    pairs: DataFrame,
    *,
    day: date | None = None,
    events: DataFrame | None = None,
    may_lack: bool = True,
) -> str:
    """Store both factor tables unless the version has them; how they were made, empty where they were there.

    They are trained, or under `als.retrain_days` taken over from an earlier version. Users without a model
    who had something are folded in.

    job: its lake takes the factors; its settings say how they are made.
    version: under which they are stored.
    pairs: the preferences as of the day.
    day: the last that the factors may know; None: the run date.
    events: what speaks for items, where it is not all that was liked up to the day.
    may_lack: whether nobody gets factors where there is nothing to learn from, instead of an error.

    Raises what `fit_als` does.
    """
    if job.lake.has_partition(MODEL_USER_FACTORS, model_version=version):
        return ""
    day = job.run_date if day is None else day
    source = trained_before(job, version, day)
    try:
        if source is None:
            factors, training, sentence = _trained(job, version, pairs, day, events)
        else:
            factors, training, sentence = _taken(job, source)
    except NothingToLearnError as error:
        if not may_lack:
            raise
        return "lists are made without als: " + str(error).removeprefix("als: ")
    if source is not None or job.settings.preferences.min_events_per_user > 1:
        afresh = partial(lenient_preferences_on, job, day, events=events)
        newcomers = fold_in_pairs(pairs, job.settings, afresh=afresh)
        factors, count = with_newcomers(factors, newcomers, job.settings.als)
        sentence += f", {count:,} users folded in"
    if training is not None:
        _write(job, MODEL_ALS_TRAINING, version, training)
    # Users last: their presence marks the version as whole.
    for table, rows in ((MODEL_ITEM_FACTORS, factors.items), (MODEL_USER_FACTORS, factors.users)):
        _write(job, table, version, rows)
    return sentence


def _trained(
    job: Job, version: str, pairs: DataFrame, day: date, events: DataFrame | None
) -> tuple[Factors, DataFrame | None, str]:
    """New factors, what is kept of the training of a night's own version, and a sentence."""
    earlier = earlier_night(job, version)
    started_from, start = (None, None) if earlier is None else earlier
    is_night = version == job.run.run_id
    liked = training_pairs(pairs, job.settings)
    factors = fit_als(
        liked,
        job.settings.als,
        start=start,
        is_measured=is_night,
        events=lambda: liked_on(job, day) if events is None else events,
    )
    return factors, training_rows(job, factors, started_from) if is_night else None, "trained"


def _taken(job: Job, source: str) -> tuple[Factors, DataFrame, str]:
    """Those of the source, and a row that says so: iteration 0."""
    return factors_of(job, source), training_rows(job, None, source), f"factors of {source}"


def train_content_once(job: Job, version: str, day: date, *, may_lack: bool = True) -> bool:
    """Train and store TF-IDF, and configured features, of the items valid on the day, unless it is there.

    Where no word is shared items have none in lists, or, if they may not lack them, NothingToLearnError is
    raised.
    """
    if job.lake.has_partition(MODEL_CONTENT_VECTORS, model_version=version):
        return False
    items = current_on(versions_on(job.lake, job.settings, "items", day), day, "item_id")
    settings = job.settings.content
    numbers = _item_numbers(job, items, day) if settings.features else None
    model = fit_content(items, settings, numbers=numbers, needs_words=not may_lack)
    for table, rows in ((MODEL_CONTENT_TERMS, model.terms), (MODEL_CONTENT_VECTORS, model.vectors)):
        _write(job, table, version, rows)
    return True


def store_features_once(job: Job, version: str, day: date) -> bool:
    """Store the features of the items and users valid on the day, unless the version has them."""
    if job.lake.has_partition(MODEL_ITEM_FEATURES, model_version=version):
        return False
    at_least = job.settings.features.min_users
    users = user_features(
        current_on(versions_on(job.lake, job.settings, "users", day), day, "user_id"), min_users=at_least
    )
    items = _item_numbers(
        job, current_on(versions_on(job.lake, job.settings, "items", day), day, "item_id"), day
    )
    # Items last: their presence marks the version's features as whole.
    for table, rows in ((MODEL_USER_FEATURES, users), (MODEL_ITEM_FEATURES, items)):
        _write(job, table, version, rows)
    return True


def _item_numbers(job: Job, items: DataFrame, day: date) -> DataFrame:
    settings = job.settings
    names = number_names(settings.sources, settings.features)
    check_features(settings.content, names)
    return item_features(items, day, names=names, log1p=settings.features.log1p)


def train_cold_items_once(job: Job, version: str, pairs: DataFrame) -> bool:
    """Map and store factors of items without any, if configured, unless the version has them.

    pairs: the preferences that the version's factors were trained on; its words must be there.
    """
    settings = job.settings.cold_items
    if not settings.enabled or job.lake.has_partition(MODEL_COLD_ITEM_FACTORS, model_version=version):
        return False
    rows = cold_item_factors(
        of_version(job, MODEL_ITEM_FACTORS, version),
        vectors=of_version(job, MODEL_CONTENT_VECTORS, version),
        preferences=pairs,
        settings=settings,
    )
    _write(job, MODEL_COLD_ITEM_FACTORS, version, rows)
    return True


def train_popularity_once(job: Job, version: str, day: date, *, events: DataFrame | None = None) -> bool:
    """Count and store recent popularity as of the day, of everyone and of groups, unless the version has it.

    events: what speaks for items, where it is not all that was liked up to the day.
    """
    if job.lake.has_partition(MODEL_POPULARITY, model_version=version):
        return False
    known = liked_on(job, day) if events is None else events
    settings = job.settings.popularity
    if not settings.is_plain:
        users = current_on(versions_on(job.lake, job.settings, "users", day), day, "user_id")
        groups = group_of_user(users, by=settings.by)
        grouped = group_popularity(known, run_date=day, settings=settings, groups=groups)
        _write(job, MODEL_GROUP_POPULARITY, version, grouped)
    counts = popularity(
        known,
        run_date=day,
        window_days=settings.window_days,
        reference_days=job.settings.blend.reference_days,
    )
    # Everyone's last: their presence marks the version's popularity as whole.
    _write(job, MODEL_POPULARITY, version, counts)
    return True


def train_earlier_once(job: Job, day: date, pairs: DataFrame) -> str:
    """Train what a backtest needs of models as of an earlier day, unless it is there; its version.

    pairs: the preferences as of that day.
    """
    version = backtest_version(job, day)
    train_once(job, version, day, pairs)
    return version


def train_once(
    job: Job,
    version: str,
    day: date,
    pairs: DataFrame,
    *,
    events: DataFrame | None = None,
    may_lack: bool = True,
) -> None:
    """Train all that lists are made of from the pairs and items of a day, unless the version has it.

    job: its lake takes the models; its settings say how they are made.
    version: under which they are stored.
    day: the last that the models may know.
    pairs: the preferences as of the day.
    events: what speaks for items, where it is not all that was liked up to the day.
    may_lack: whether a component for which nothing speaks is left out, instead of NothingToLearnError.
    """
    train_als_once(job, version, pairs, day=day, events=events, may_lack=may_lack)
    train_content_once(job, version, day, may_lack=may_lack)
    train_cold_items_once(job, version, pairs)
    train_popularity_once(job, version, day, events=events)


def _write(job: Job, table: Table, version: str, rows: DataFrame) -> None:
    whole = rows.withColumn("model_version", F.lit(version)).select(*table.columns)
    job.overwrite_partition(table, whole, model_version=version)
