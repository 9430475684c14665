"""Silver interactions to one strength per user and item, as of the run date."""

from __future__ import annotations

from recsys_spark.data.preferences import preferences
from recsys_spark.errors import InputError
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.tables import SILVER_INTERACTIONS, SILVER_PREFERENCES


def run(job: Job) -> Summary:
    job.run  # noqa: B018 - no open run: say so before any work
    settings = job.settings.preferences
    pairs = preferences(
        job.read(SILVER_INTERACTIONS),
        run_date=job.run_date,
        event_weights=settings.event_weights,
        half_life_days=settings.half_life_days,
        cap=settings.cap,
    )
    job.overwrite_partition(SILVER_PREFERENCES, pairs, run_date=job.run_date)
    rows = job.lake.rows_written(SILVER_PREFERENCES)
    if rows == 0:
        raise InputError(
            f"no preferences on {job.run_date}: no event until then has a type that "
            "preferences.event_weights gives a weight."
        )
    return Summary(rows, rows, SILVER_PREFERENCES.name)
