"""Item texts to TF-IDF vectors, and what else is known of items and users, once per model version."""

from __future__ import annotations

from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.tables import MODEL_COLD_ITEM_FACTORS, MODEL_CONTENT_TERMS, MODEL_CONTENT_VECTORS
from recsys_spark.models.content import no_words
from recsys_spark.models.versions import (
    of_version,
    preferences_of,
    store_features_once,
    train_cold_items_once,
    train_content_once,
)


def run(job: Job) -> Summary:
    version = job.run.run_id
    trained = train_content_once(job, version, job.run_date)
    store_features_once(job, version, job.run_date)
    train_cold_items_once(job, version, preferences_of(job))
    items = of_version(job, MODEL_CONTENT_VECTORS, version).count()
    terms = of_version(job, MODEL_CONTENT_TERMS, version).count()
    notes = [f"{terms:,} terms" if trained else "kept: already trained for these inputs"]
    if not terms:
        notes = [f"lists are made without content: {no_words(job.settings.content)}"]
    figures = {("terms", ""): float(terms)}
    if job.settings.cold_items.enabled:
        cold = of_version(job, MODEL_COLD_ITEM_FACTORS, version).count()
        figures["cold_items", ""] = float(cold)
        notes.append(f"{cold:,} items without an event have factors from their words")
    return Summary(items, items, MODEL_CONTENT_VECTORS.name, figures, tuple(notes))
