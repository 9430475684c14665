"""Who is in a campaign, and whose list may be sent."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

from pyspark.sql import SparkSession

from recsys_spark.config.load import load_settings
from recsys_spark.config.sections import Campaign, LakePlace
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import SILVER_OUTCOMES, SILVER_PREFERENCES, SILVER_USERS, Table
from recsys_spark.push.audience import audience_of, people_on
from recsys_spark.runtime.rows import frame_of
from tests.settings import a_campaign, with_defaults

DAY, EVER, NEVER = date(2024, 6, 2), date(1970, 1, 1), date(9999, 12, 31)
MAIL = a_campaign(channel="email", k=5, repeat_allowed=True)


def user(name: str, *, since: date = EVER, until: date = NEVER, consents: bool = True) -> dict:
    return {"user_id": name, "is_consented": consents, "valid_from": since, "valid_to": until}


def told(name: str, what: str, at: datetime, channel: str = "email") -> dict:
    version = {"event_id": f"{name} {what}", "event_date": at.date(), "campaign": "another", "run_date": EVER}
    return {"user_id": name, "outcome_type": what, "event_at": at, "channel": channel, **version}


USERS = [
    user("never wanted any", consents=False),
    user("has it all"),
    user("reads"),
    user("left"),
    user("left tonight"),
    user("leaves tomorrow"),
    user("left the app"),
    user("left on the day of a new version", since=date(2024, 5, 1)),
    user("came back", until=date(2024, 5, 2)),
    user("came back", since=date(2024, 5, 2)),
    user("came back and left", since=date(2024, 5, 2)),
    user("changed since, without consent", since=date(2024, 5, 2), consents=False),
]
SPRING = datetime(2024, 5, 1, 12)
OUTCOMES = [
    told("reads", "open", SPRING),
    told("left", "unsubscribe", SPRING, "Email"),
    told("left tonight", "unsubscribe", datetime(2024, 6, 2, 23, 59)),
    told("leaves tomorrow", "unsubscribe", datetime(2024, 6, 3)),
    told("left the app", "unsubscribe", SPRING, "push"),
    told("left on the day of a new version", "unsubscribe", SPRING),
    told("came back", "unsubscribe", SPRING),
    {**told("came back and left", "unsubscribe", SPRING), "event_id": "first"},
    told("came back and left", "unsubscribe", datetime(2024, 5, 20)),
    told("changed since, without consent", "unsubscribe", SPRING),
    told("a stranger", "unsubscribe", SPRING),
]


def test_lists_of_who_unsubscribed_from_the_channel_are_made_and_may_not_be_sent(
    spark: SparkSession, tmp_path: Path
) -> None:
    settings = load_settings("demo").model_copy(
        update={"lake": with_defaults(LakePlace, path=str(tmp_path), wait_seconds=0)}
    )
    job = Job(spark, settings, DAY)

    def keep(table: Table, rows: list[dict]) -> None:
        job.append(table, frame_of(spark, rows, table.schema).repartition(3))

    keep(SILVER_USERS, USERS)
    keep(SILVER_OUTCOMES, OUTCOMES)

    def sendable(campaign: Campaign) -> set[str]:
        nobody = job.read(SILVER_PREFERENCES)
        rows = audience_of(campaign, people_on(job.lake, DAY, preferences=nobody)).collect()
        assert sorted(row["user_id"] for row in rows) == sorted({row["user_id"] for row in USERS})
        return {row["user_id"] for row in rows if row["is_sendable"]}

    honoured = {"has it all", "reads", "leaves tomorrow", "left the app", "came back"}
    assert sendable(MAIL) == honoured
    ignored = MAIL.model_copy(update={"honours_unsubscribes": False})
    gone = {"left", "left tonight", "left on the day of a new version", "came back and left"}
    assert sendable(ignored) == honoured | gone
