"""Who gets a list in a campaign, and how a ranked row becomes one that can be published."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import COLD_ITEM, POPULARITY_GROUP, Campaign
from recsys_spark.data.events import as_of

EVERYONE = "everyone"

# One sentence per source; what a person is told about why an item is there.
REASONS = {
    "history": "You have bought this before",
    "als": "Customers with a similar basket buy this",
    "content": "Similar to what you buy",
    "popularity": "Popular with other customers lately",
    "popularity_group": "Popular with customers like you lately",
    "trial": "Many customers are trying this",
    COLD_ITEM: "New here, and close to what you buy",
}
# Before the title of what the user has, where the slot's item is among those that go with it.
GOES_WITH = "Goes with "


def audience_of(
    campaign: Campaign, *, users: DataFrame, audiences: DataFrame, preferences: DataFrame
) -> DataFrame:
    """(user_id, is_sendable) of the campaign's audience, one row a user.

    `users` and `audiences` are those valid on the run date. Without a users table everyone with a
    preference is a user, and nobody has consented: their lists are made, and none is sent.
    """
    consent = users.groupBy("user_id").agg(F.max("is_consented").alias("is_consented"))
    if campaign.audience == EVERYONE:
        members = consent.select("user_id").union(preferences.select("user_id")).distinct()
    else:
        members = audiences.where(F.col("audience") == campaign.audience).select("user_id").distinct()
    return members.join(consent, on="user_id", how="left").select(
        "user_id", F.coalesce("is_consented", F.lit(False)).alias("is_sendable")
    )


def without_unsubscribed(
    audience: DataFrame, *, outcomes: DataFrame, users: DataFrame, channel: str, run_date: date
) -> DataFrame:
    """The audience, `is_sendable` false for who unsubscribed from the channel up to the run date.

    It holds for every campaign of the channel, whichever mail it answered. Only a version of the user
    (`users`: those valid on the run date) that began on a later day than the last unsubscribe gives
    consent anew; of a source of users without dates none ever does.
    """
    is_meant = (F.col("outcome_type") == "unsubscribe") & (F.lower("channel") == F.lit(channel.lower()))
    told = as_of(outcomes, run_date).where(is_meant)
    last = told.groupBy("user_id").agg(F.max("event_date").alias("left_on"))
    since = users.groupBy("user_id").agg(F.max("valid_from").alias("began_on"))
    has_returned = F.coalesce(F.col("began_on") > F.col("left_on"), F.lit(False))
    gone = last.join(since, on="user_id", how="left").where(~has_returned)
    marked = gone.select("user_id", F.lit(True).alias("_is_gone"))
    stays = F.col("_is_gone").isNull()
    return audience.join(marked, on="user_id", how="left").select(
        "user_id", (F.col("is_sendable") & stays).alias("is_sendable")
    )


def explained(ranked: DataFrame, cold_items: DataFrame | None = None) -> DataFrame:
    """Adds the reason that is told for each slot's source.

    cold_items (item_id): those whose factors are from their words; where als carried one, or the prior of
    what is popular, the source becomes cold_item, as it is in places that were kept for such. Where `ranked`
    has a column goes_with, a title that is not null is the reason of a slot that is neither a repeat nor new
    to everyone, whatever carried it.
    """
    reason = F.create_map(*[F.lit(text) for pair in REASONS.items() for text in pair])
    source = F.col("source")
    if cold_items is not None:
        cold = cold_items.select("item_id", F.lit(True).alias("_is_cold"))
        ranked = ranked.join(F.broadcast(cold), on="item_id", how="left")
        by_prior = source.isin("als", "popularity", "trial", POPULARITY_GROUP) & F.col("_is_cold")
        source = F.when(by_prior, F.lit(COLD_ITEM)).otherwise(source)
    told = ranked.withColumn("source", source).drop("_is_cold")
    why = reason[F.col("source")]
    if "goes_with" in ranked.columns:
        is_told = F.col("goes_with").isNotNull() & ~F.col("source").isin("history", COLD_ITEM)
        why = F.when(is_told, F.concat(F.lit(GOES_WITH), "goes_with")).otherwise(why)
    return told.withColumn("reason", why).drop("goes_with")
