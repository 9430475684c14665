"""The night: one task per stage, from the source files to the published lists."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable
from airflow.sdk.bases.operator import chain
from recsys_stages import PARAMS, RECOMMENDATIONS, RETRIES, Stage

BEFORE_PUBLISH = (
    "ingest",
    "clean",
    "preferences",
    "train_als",
    "train_content",
    "train_blend",
    "recommend",
    "evaluate",
)

cron = os.environ.get("RECSYS_SCHEDULE", "0 2 * * *")

with DAG(
    "recsys_nightly",
    description="Ingest, clean, train, recommend, evaluate, publish",
    # A timetable of intervals: the run at 02:00 stands for the day that has just ended, whole.
    schedule=CronDataIntervalTimetable(cron, timezone="UTC") if cron else None,
    start_date=datetime(2017, 1, 1, tzinfo=UTC),
    catchup=False,  # missed nights are a decision: airflow backfill create, in ascending order
    max_active_runs=1,  # a night reads what the night before has published
    dagrun_timeout=timedelta(hours=12),
    default_args=RETRIES,
    params=PARAMS,
    tags=["recsys"],
) as dag:
    run_date = "{{ params.run_date or ds }}"
    chain(
        *(Stage(stage=stage, run_date=run_date) for stage in BEFORE_PUBLISH),
        Stage(stage="publish", run_date=run_date, outlets=[RECOMMENDATIONS]),
    )
