"""The delivery: hands published lists to the channels, whenever the night has published some."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG
from recsys_stages import PARAMS, RECOMMENDATIONS, RETRIES, Stage

# Several nights may have been published since the last delivery (a backfill): only the newest is news.
NEWEST = "triggering_asset_events.values() | sum(start=[]) | map(attribute='extra.run_date') | max"

with DAG(
    "recsys_delivery",
    description="Export lists and render mails for the published night",
    schedule=[RECOMMENDATIONS],
    start_date=datetime(2017, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # one sender at a time: its journal is what keeps mails from going out twice
    dagrun_timeout=timedelta(hours=6),
    default_args=RETRIES,
    params=PARAMS,
    tags=["recsys"],
) as dag:
    Stage(stage="deliver", run_date=f"{{{{ params.run_date or ({NEWEST}) }}}}")
