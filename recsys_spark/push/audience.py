"""Who gets a list of a campaign, and to whom it may be sent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Campaign, Settings
from recsys_spark.data.events import as_of
from recsys_spark.data.preferences import valid_on
from recsys_spark.data.snapshots import versions_on
from recsys_spark.data.unsubscribes import is_unsubscribe, normal_channel, whom_they_mean
from recsys_spark.data.validity import current_on
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import SILVER_OUTCOMES, SILVER_USERS
from recsys_spark.names import EVERYONE


@dataclass(frozen=True)
class People:
    """Who is known on a run date: users and audiences that are valid on it, who unsubscribed up to it from
    which channel (user_id, channel, event_date; the id is a user's own), and who has a preference."""

    users: DataFrame
    audiences: DataFrame
    unsubscribes: DataFrame
    preferences: DataFrame


def people_on(lake: Lake, run_date: date, *, settings: Settings, preferences: DataFrame) -> People:
    """The people of silver on the run date; preferences (user_id, …): those of the night."""
    users, audiences = (versions_on(lake, settings, kind, run_date) for kind in ("users", "audiences"))
    ever = lake.read(SILVER_USERS).select("user_id")
    left = as_of(lake.read(SILVER_OUTCOMES), run_date).where(is_unsubscribe())
    return People(
        users=current_on(users, run_date, "user_id"),
        audiences=valid_on(audiences, run_date),
        unsubscribes=whom_they_mean(left.select("user_id", "channel", "event_date"), ever),
        preferences=preferences,
    )


def audience_of(campaign: Campaign, people: People) -> DataFrame:
    """(user_id, is_sendable) of all who get a list of the campaign, one row a user.

    Without a users table everyone with a preference is a user, and nobody has consented: their lists are
    made, and none is sent.
    """
    if campaign.audience == EVERYONE:
        members = people.users.select("user_id").union(people.preferences.select("user_id")).distinct()
    else:
        is_member = F.col("audience") == campaign.audience
        members = people.audiences.where(is_member).select("user_id").distinct()
    return sendable(members, campaign, people)


def sendable(users: DataFrame, campaign: Campaign, people: People) -> DataFrame:
    """(user_id, is_sendable) of these users (user_id, unique): who may be sent a list of the campaign."""
    consent = people.users.groupBy("user_id").agg(F.max("is_consented").alias("is_consented"))
    asked = users.join(consent, on="user_id", how="left").select(
        "user_id", F.coalesce("is_consented", F.lit(False)).alias("is_sendable")
    )
    if not campaign.honours_unsubscribes:
        return asked
    return _without_unsubscribed(asked, people, channel=campaign.channel)


def _without_unsubscribed(audience: DataFrame, people: People, *, channel: str) -> DataFrame:
    """The audience, `is_sendable` false for who unsubscribed from the channel up to the run date.

    It holds for every campaign of the channel, whichever mail it answered. Only a version of the user that
    began on a later day than the last unsubscribe gives consent anew; of a source of users without dates
    none ever does.
    """
    is_meant = normal_channel(F.col("channel")) == normal_channel(F.lit(channel))
    last = people.unsubscribes.where(is_meant).groupBy("user_id").agg(F.max("event_date").alias("left_on"))
    since = people.users.groupBy("user_id").agg(F.max("valid_from").alias("began_on"))
    has_returned = F.coalesce(F.col("began_on") > F.col("left_on"), F.lit(False))
    gone = last.join(since, on="user_id", how="left").where(~has_returned)
    marked = gone.select("user_id", F.lit(True).alias("_is_gone"))
    stays = F.col("_is_gone").isNull()
    return audience.join(marked, on="user_id", how="left").select(
        "user_id", (F.col("is_sendable") & stays).alias("is_sendable")
    )
