"""Item texts to TF-IDF vectors, and what else is known of items and users, once per model version."""

from __future__ import annotations

from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.tables import MODEL_CONTENT_TERMS, MODEL_CONTENT_VECTORS
from recsys_spark.models.versions import of_version, store_features_once, train_content_once


def run(job: Job) -> Summary:
    version = job.run.run_id
    trained = train_content_once(job, version, job.run_date)
    store_features_once(job, version, job.run_date)
    items = of_version(job, MODEL_CONTENT_VECTORS, version).count()
    terms = of_version(job, MODEL_CONTENT_TERMS, version).count()
    note = f"{terms:,} terms" if trained else "kept: already trained for these inputs"
    return Summary(items, items, MODEL_CONTENT_VECTORS.name, {("terms", ""): terms}, (note,))
