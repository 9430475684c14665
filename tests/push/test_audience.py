"""Who is in a campaign, and whose list may be sent."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

from pyspark.sql import SparkSession

from recsys_spark.config.sections import Campaign
from recsys_spark.lake.tables import SILVER_OUTCOMES, SILVER_PREFERENCES, SILVER_USERS
from recsys_spark.push.audience import audience_of, people_on
from tests.push.small_lake import DAY, keep, mail, small_job, told, user

MAIL = mail()


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


# Unsubscribes that are not spelt as users and campaigns are: the same but for blanks, the one user that
# differs by case, the channel by its normal form.
SPELT = [
    user("u10"),
    user("u11"),
    user("u12"),
    user("u13"),
    user("U14"),
    user("twin"),
    user("Twin"),
    user("TWIN x"),
    user("gone", until=date(2024, 1, 1)),
    user("Gone"),
]
UNSPELT = [
    told("u10 ", "unsubscribe", SPRING),
    told("\t U11\u00a0", "unsubscribe", SPRING),
    told("u12", "unsubscribe", SPRING, "E-Mail"),
    told("U13", "unsubscribe", SPRING, " e_MAIL "),
    told("u14", "unsubscribe", SPRING, "e\u2011mail"),
    told("TWIN", "unsubscribe", SPRING),  # of two it may mean nobody knows which
    told("Twin", "unsubscribe", SPRING),  # and this one means one of them
    told("gone", "unsubscribe", SPRING),  # who is no user any more is not the one of the other case
    told("u", "unsubscribe", SPRING),
]


def test_lists_of_who_unsubscribed_from_the_channel_are_made_and_may_not_be_sent(
    spark: SparkSession, tmp_path: Path
) -> None:
    job = small_job(spark, tmp_path, {})
    keep(job, SILVER_USERS, USERS + SPELT)
    keep(job, SILVER_OUTCOMES, OUTCOMES + UNSPELT)

    def sendable(campaign: Campaign) -> set[str]:
        nobody = job.read(SILVER_PREFERENCES)
        people = people_on(job.lake, DAY, settings=job.settings, preferences=nobody)
        rows = audience_of(campaign, people).collect()
        valid = {row["user_id"] for row in USERS + SPELT} - {"gone"}
        assert sorted(row["user_id"] for row in rows) == sorted(valid)
        return {row["user_id"] for row in rows if row["is_sendable"]}

    honoured = {
        "has it all",
        "reads",
        "leaves tomorrow",
        "left the app",
        "came back",
        "twin",
        "TWIN x",
        "Gone",
    }
    assert sendable(MAIL) == honoured
    assert sendable(MAIL.model_copy(update={"channel": "E Mail"})) == honoured
    ignored = MAIL.model_copy(update={"honours_unsubscribes": False})
    gone = {"left", "left tonight", "left on the day of a new version", "came back and left"}
    assert sendable(ignored) == honoured | gone | {"u10", "u11", "u12", "u13", "U14", "Twin"}
