"""A lake with people and lists, and no models: what publish and deliver need of a night."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pyspark.sql import SparkSession

from recsys_spark.config.load import load_settings
from recsys_spark.config.sections import Campaign, LakePlace, Place, Settings
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import (
    GOLD_OUTBOX,
    GOLD_RECOMMENDATIONS,
    SILVER_OUTCOMES,
    SILVER_PREFERENCES,
    SILVER_USERS,
    Table,
)
from recsys_spark.push.audience import audience_of, people_on
from recsys_spark.runtime.rows import frame_of
from tests.settings import a_campaign, base

DAY, EVER, NEVER = date(2024, 6, 2), date(1970, 1, 1), date(9999, 12, 31)
OUT = "https://example.org/out"


def mail(channel: str = "email", **given: Any) -> Campaign:
    return a_campaign(channel=channel, k=1, repeat_allowed=True, unsubscribe_url=OUT, brand_name="B", **given)


def small_job(spark: SparkSession, root: Path, campaigns: Mapping[str, Campaign], env: str = "demo") -> Job:
    """A night of an environment in the lake below the root; the output folder has the environment's name."""
    changed = {
        "env": env,
        "lake": LakePlace(**{**base()["lake"], "path": str(root / "lake"), "wait_seconds": 0}),
        "output": Place(path=str(root / env)),
        "campaigns": dict(campaigns),
    }
    settings: Settings = load_settings("demo").model_copy(update=changed)
    return Job(spark, settings, DAY)


def user(name: str, *, since: date = EVER, until: date = NEVER, consents: bool = True) -> dict[str, Any]:
    return {"user_id": name, "is_consented": consents, "valid_from": since, "valid_to": until}


def told(name: str, what: str, at: datetime, channel: str = "email") -> dict[str, Any]:
    version = {"event_id": f"{name} {what}", "event_date": at.date(), "campaign": "another", "run_date": EVER}
    return {"user_id": name, "outcome_type": what, "event_at": at, "channel": channel, **version}


def keep(job: Job, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows to a table, null where they say nothing."""
    whole = [tuple(row.get(name) for name in table.columns) for row in rows]
    job.append(table, frame_of(job.spark, whole, table.schema).repartition(3))


def replace_people(
    job: Job, users: Iterable[Mapping[str, Any]], outcomes: Iterable[Mapping[str, Any]]
) -> None:
    """These users and outcomes in silver, and no others."""
    for table, rows in ((SILVER_USERS, users), (SILVER_OUTCOMES, outcomes)):
        job.lake.delete(table, "true")
        keep(job, table, rows)


def make_visible(job: Job, *, run_id: str = "r1") -> None:
    """One slot for each member of each campaign's audience, published without a gate."""
    people = people_on(job.lake, DAY, settings=job.settings, preferences=job.read(SILVER_PREFERENCES))
    rows = []
    for name, campaign in job.settings.campaigns.items():
        for member in audience_of(campaign, people).collect():
            of_list = {"run_date": DAY, "channel": campaign.channel, "campaign": name, **member.asDict()}
            rows.append({**of_list, "rank": 1, "item_id": "tea", "score": 1.0, "run_id": run_id})
    values = [tuple(row.get(name) for name in GOLD_RECOMMENDATIONS.columns) for row in rows]
    lists = frame_of(job.spark, values, GOLD_RECOMMENDATIONS.schema).repartition(3)
    job.overwrite_partition(GOLD_RECOMMENDATIONS, lists, run_date=DAY)


def outbox_of(job: Job, state: str) -> set[tuple[str, str]]:
    """(campaign, user_id) of the date's rows of this state."""
    rows = job.read(GOLD_OUTBOX).where(f"run_date = '{DAY}' AND state = '{state}'").collect()
    return {(row["campaign"], row["user_id"]) for row in rows}


def exported(job: Job) -> set[tuple[str, str]]:
    """(campaign, user_id) of all lines of all exports of the date."""
    files = (job.output / str(DAY) / "exports").iterdir()
    lines = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    return {(line["campaign"], line["user_id"]) for line in lines}


def mailed(job: Job) -> set[tuple[str, str]]:
    """(campaign, user_id) of all mails of the date on disk."""
    files = (job.output / str(DAY) / "mails").glob("*/*")
    return {(file.parent.name, unquote(file.stem)) for file in files}
