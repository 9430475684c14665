"""Factors that a night takes over from an earlier one, and users that are folded into them."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Als
from recsys_spark.data.ids import dense_index
from recsys_spark.lake.job import Job
from recsys_spark.lake.runs import Run, opened_runs
from recsys_spark.lake.tables import MODEL_ALS_TRAINING, MODEL_USER_FACTORS
from recsys_spark.models.als.factors import Factors
from recsys_spark.models.als.fold_in import fold_in

# What factors depend on beside the events; of [als] all but what says when and where they are made.
_SECTIONS = ("preferences", "bots", "clean", "privacy")
_WHEN = ("retrain_days", "warm_start", "driver_pairs", "loss_every")


def trained_before(job: Job, version: str, day: date) -> str | None:
    """The version whose factors this one takes over under `als.retrain_days`, or None: it must be trained.

    For a night's own version that of the last earlier night that trained, with equal settings, less than so
    many days ago. For a night's backtest the backtest of that same night, as many days before: it is as old
    beside its day as the night's factors are, and knows as little of the days that judge it. Other versions
    are always trained.
    """
    is_night = version == job.run.run_id
    if job.settings.als.retrain_days == 1 or not (is_night or version == backtest_name(job.run, day)):
        return None
    for run, settings in opened_runs(job.lake, job.settings.env, before=job.run_date):
        age = (job.run_date - run.run_date).days
        if age >= job.settings.als.retrain_days:
            break
        earlier = run.run_id if is_night else backtest_name(run, day - timedelta(days=age))
        if _basis(settings) == _basis(job.settings.meaning()) and _is_trained(job, earlier):
            return earlier
    return None


def backtest_name(run: Run, cutoff: date) -> str:
    """The version of the models that a run's backtest trains: equal for equal inputs, settings and code."""
    return f"backtest-{cutoff:%Y%m%d}-{run.key_of(cutoff)}"


def with_newcomers(factors: Factors, pairs: DataFrame, settings: Als) -> tuple[Factors, int]:
    """The factors with those of all users of `pairs` (user_id, item_id, strength) that they lack; how many.

    Nothing is trained, and whoever has factors keeps them. A user all of whose items are unknown to the
    model gets none. New indexes follow those that exist, in the order of the ids.
    """
    unknown = pairs.join(factors.users.select("user_id"), on="user_id", how="left_anti")
    folded = fold_in(unknown, factors.items, settings)
    index = dense_index(folded, id_column="user_id", index_column="_place")
    count = index.count()
    if count == 0:
        return factors, 0
    last = factors.users.agg(F.coalesce(F.max("user_index"), F.lit(-1))).collect()[0][0]
    rows = folded.join(index, on="user_id", how="inner").select(
        (F.col("_place") + F.lit(last + 1)).cast("int").alias("user_index"), "user_id", "factors"
    )
    users = factors.users.select("user_index", "user_id", "factors").unionByName(rows)
    return Factors(users, factors.items, factors.history), count


def _is_trained(job: Job, version: str) -> bool:
    """Whether the version is whole and its factors are its own."""
    if not job.lake.has_partition(MODEL_USER_FACTORS, model_version=version):
        return False
    is_taken = (F.col("model_version") == version) & (F.col("iteration") == 0)
    return job.read(MODEL_ALS_TRAINING).where(is_taken).isEmpty()


def _basis(settings: dict[str, Any]) -> str:
    kept = {name: settings.get(name) for name in _SECTIONS}
    als = {name: value for name, value in settings.get("als", {}).items() if name not in _WHEN}
    return json.dumps({**kept, "als": als}, sort_keys=True)
