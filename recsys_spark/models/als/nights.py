"""What a night's ALS training begins from, and what is kept of how it went."""

from __future__ import annotations

import json
import math

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import (
    MODEL_ALS_TRAINING,
    MODEL_ITEM_FACTORS,
    MODEL_USER_FACTORS,
    OPS_RUNS,
)
from recsys_spark.models.als.factors import Factors
from recsys_spark.runtime.rows import frame_of


def earlier_night(job: Job, version: str) -> tuple[str, Factors] | None:
    """The last earlier night of this environment with a whole model of the same rank: version and factors.

    None without `als.warm_start`, and for versions that are not the night's own: what a backtest trains
    must know nothing of the days that judge it.
    """
    if not job.settings.als.warm_start or version != job.run.run_id:
        return None
    runs = (
        job.read(OPS_RUNS)
        .where((F.col("env") == job.settings.env) & (F.col("run_date") < F.lit(job.run_date)))
        .groupBy("run_id", "run_date")
        .agg(F.max("recorded_at").alias("recorded_at"))
        .orderBy(F.desc("run_date"), F.desc("recorded_at"), "run_id")
    )
    for run in runs.select("run_id").collect():
        earlier = run["run_id"]
        factors = factors_of(job, earlier)
        first = factors.users.select(F.size("factors")).first()
        if first is not None and first[0] == job.settings.als.rank:
            return earlier, factors
    return None


def training_rows(job: Job, factors: Factors | None, started_from: str | None) -> DataFrame:
    """One row per iteration whose loss is known, without model_version.

    No factors: nothing was trained, those of `started_from` are taken over: iteration 0, without a loss.
    """
    settings = job.settings.als
    parameters = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    known: list[tuple[int, float | None, float]] = [(0, None, 0.0)]
    if factors is not None:
        losses = [None if math.isnan(one.loss) else one.loss for one in factors.history]
        known = [
            (one.iteration, loss, one.seconds) for one, loss in zip(factors.history, losses, strict=True)
        ]
    rows = [(*one, settings.trainer, started_from, parameters, job.run.inputs) for one in known]
    schema = MODEL_ALS_TRAINING.schema
    schema = type(schema)([field for field in schema if field.name != "model_version"])
    return frame_of(job.spark, rows, schema)


def factors_of(job: Job, version: str) -> Factors:
    """The stored factors of the version; none where it has none."""
    users, items = (
        job.read(table).where(F.col("model_version") == version).drop("model_version")
        for table in (MODEL_USER_FACTORS, MODEL_ITEM_FACTORS)
    )
    return Factors(users, items)
