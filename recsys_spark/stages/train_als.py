"""Preferences to ALS factors, written once per model version."""

from __future__ import annotations

from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.tables import MODEL_ITEM_FACTORS, MODEL_USER_FACTORS
from recsys_spark.models.versions import preferences_of, train_als_once


def run(job: Job) -> Summary:
    version = job.run.run_id
    made = train_als_once(job, version, preferences_of(job))
    note = (made or "kept: already trained for these inputs",) if made != "trained" else ()
    rows = job.lake.read(MODEL_USER_FACTORS).where(f"model_version = '{version}'").count()
    return Summary(rows, rows, f"{MODEL_USER_FACTORS.name}, {MODEL_ITEM_FACTORS.name}", notes=note)
