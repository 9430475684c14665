"""Popularity, and the weights of the blend."""

from __future__ import annotations

from pyspark.sql import functions as F

from recsys_spark.config import TASKS
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.tables import MODEL_BLEND_WEIGHTS, MODEL_POPULARITY
from recsys_spark.models.versions import of_version, train_popularity_once


def run(job: Job) -> Summary:
    version = job.run.run_id
    train_popularity_once(job, version, job.run_date)
    rows = [
        (version, task, component, weight)
        for task in TASKS
        for component, weight in job.settings.blend.weights(task).items()
    ]
    frame = job.spark.createDataFrame(rows, MODEL_BLEND_WEIGHTS.schema).coalesce(1)
    job.overwrite_partition(MODEL_BLEND_WEIGHTS, frame, model_version=version)
    items = of_version(job, MODEL_POPULARITY, version).where(F.col("users") > 0).count()
    notes = (f"{items:,} items sold in {job.settings.popularity.window_days} days",)
    return Summary(items, len(rows), f"{MODEL_POPULARITY.name}, {MODEL_BLEND_WEIGHTS.name}", notes=notes)
