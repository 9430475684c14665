"""Who is in a campaign, and whose list may be sent."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

from pyspark.sql import SparkSession

from recsys_spark.config.sections import Campaign
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import SILVER_OUTCOMES, SILVER_PREFERENCES, SILVER_USERS
from recsys_spark.push.audience import audience_of, people_on
from tests.settings import a_campaign, demo_in
from tests.tables import rows_for

DAY, EVER, NEVER = date(2024, 6, 2), date(1970, 1, 1), date(9999, 12, 31)
MAIL = a_campaign(channel="email", k=5, repeat_allowed=True)


def user(name: str, *, since: date = EVER, until: date = NEVER, consents: bool = True) -> dict:
    return {"user_id": name, "is_consented": consents, "valid_from": since, "valid_to": until}


def outcome(name: str, what: str, at: datetime, channel: str = "email") -> dict:
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
    outcome("reads", "open", SPRING),
    outcome("left", "unsubscribe", SPRING, "Email"),
    outcome("left tonight", "unsubscribe", datetime(2024, 6, 2, 23, 59)),
    outcome("leaves tomorrow", "unsubscribe", datetime(2024, 6, 3)),
    outcome("left the app", "unsubscribe", SPRING, "push"),
    outcome("left on the day of a new version", "unsubscribe", SPRING),
    outcome("came back", "unsubscribe", SPRING),
    {**outcome("came back and left", "unsubscribe", SPRING), "event_id": "first"},
    outcome("came back and left", "unsubscribe", datetime(2024, 5, 20)),
    outcome("changed since, without consent", "unsubscribe", SPRING),
    outcome("a stranger", "unsubscribe", SPRING),
]


def test_lists_of_who_unsubscribed_from_the_channel_are_made_and_may_not_be_sent(
    spark: SparkSession, tmp_path: Path
) -> None:
    job = Job(spark, demo_in(tmp_path, lake={"wait_seconds": 0}), DAY)
    for table, rows in ((SILVER_USERS, USERS), (SILVER_OUTCOMES, OUTCOMES)):
        job.append(table, rows_for(spark, table, *rows))

    def sendable(campaign: Campaign) -> set[str]:
        nobody = job.read(SILVER_PREFERENCES)
        rows = audience_of(
            campaign, people_on(job.lake, DAY, settings=job.settings, preferences=nobody)
        ).collect()
        assert sorted(row["user_id"] for row in rows) == sorted({row["user_id"] for row in USERS})
        return {row["user_id"] for row in rows if row["is_sendable"]}

    honoured = {"has it all", "reads", "leaves tomorrow", "left the app", "came back"}
    assert sendable(MAIL) == honoured
    ignored = MAIL.model_copy(update={"honours_unsubscribes": False})
    gone = {"left", "left tonight", "left on the day of a new version", "came back and left"}
    assert sendable(ignored) == honoured | gone
