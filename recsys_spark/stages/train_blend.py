"""Popularity, and the weights of the blend."""

from __future__ import annotations

from pyspark.sql import functions as F

from recsys_spark.evaluation.weights.fit import weigh_once
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.tables import MODEL_BLEND_WEIGHTS, MODEL_POPULARITY
from recsys_spark.models.versions import of_version, train_popularity_once


def run(job: Job) -> Summary:
    version = job.run.run_id
    train_popularity_once(job, version, job.run_date)
    weighed = weigh_once(job, version, job.run_date)
    rows = of_version(job, MODEL_BLEND_WEIGHTS, version).count()
    items = of_version(job, MODEL_POPULARITY, version).where(F.col("users") > 0).count()
    notes = (f"{items:,} items sold in {job.settings.popularity.window_days} days", *weighed)
    return Summary(items, rows, f"{MODEL_POPULARITY.name}, {MODEL_BLEND_WEIGHTS.name}", notes=notes)
