"""Unsubscribes: whom they mean and on which channel, however a mailing system spells either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.kinds.rules import BLANKS, any_of

UNSUBSCRIBE = "unsubscribe"
# What is said one way here and another there: `E-Mail`, `e_mail` and `email` are one channel.
_BETWEEN = BLANKS + "-_\xad\u2010\u2011\u2012\u2013\u2014\u2015"
# The figures of `unmatched`.
UNMATCHED, OF_NOBODY, OF_NO_CAMPAIGN = (
    "unmatched_unsubscribes",
    "unsubscribes_of_nobody",
    "unsubscribes_elsewhere",
)


def normal_channel(channel: Column) -> Column:
    """The channel in lower case, without blanks, hyphens and underscores."""
    return F.lower(F.translate(channel, _BETWEEN, ""))


def is_unsubscribe() -> Column:
    """Whether the row of silver.outcomes is one."""
    return F.col("outcome_type") == UNSUBSCRIBE


def whom_they_mean(unsubscribes: DataFrame, known: DataFrame) -> DataFrame:
    """The unsubscribes with the ids of the users that they mean in the place of their own; a row for each.

    An id means the users whose ids are the same but for blanks around them. Where there is none it means the
    one user whose id differs by upper and lower case only; where there are two such, nobody.

    unsubscribes: with user_id.
    known: (user_id), all users ever known.
    """
    meant = _meant(unsubscribes, known).select("_id", F.explode("_users").alias("_user_id"))
    named = unsubscribes.withColumn("_id", _without_blanks("user_id"))
    return (
        named.join(meant, on="_id", how="inner")
        .drop("_id", "user_id")
        .withColumnRenamed("_user_id", "user_id")
    )


def unmatched(
    unsubscribes: DataFrame, known: DataFrame | None, *, channels: Iterable[str]
) -> dict[str, float]:
    """How many unsubscribes match nobody: of no known user, or on a channel of no campaign. One Spark job.

    unsubscribes: (user_id, channel).
    known: (user_id), all users ever known; None: no user is looked for.
    channels: of the campaigns.
    """
    goes_somewhere = any_of(
        [F.lit(False), *[normal_channel(F.col("channel")) == _normal(name) for name in channels]]
    )
    rows = unsubscribes.select(
        _without_blanks("user_id").alias("_id"), (~goes_somewhere).alias("_is_elsewhere")
    )
    if known is None:
        rows = rows.withColumn("_is_nobody", F.lit(False))
    else:
        found = _meant(unsubscribes, known).select("_id", F.lit(False).alias("_is_nobody"))
        rows = rows.join(found, on="_id", how="left").withColumn(
            "_is_nobody", F.coalesce("_is_nobody", F.lit(True))
        )
    nobody, elsewhere = F.col("_is_nobody"), F.coalesce("_is_elsewhere", F.lit(True))
    counts = rows.agg(
        F.count_if(nobody | elsewhere).alias(UNMATCHED),
        F.count_if(nobody).alias(OF_NOBODY),
        F.count_if(elsewhere).alias(OF_NO_CAMPAIGN),
    )
    return {name: float(count) for name, count in counts.collect()[0].asDict().items()}


def unmatched_note(figures: Mapping[str, float]) -> str:
    """The figures of `unmatched` as words for people; empty where all match."""
    counts = [int(figures.get(name, 0)) for name in (UNMATCHED, OF_NOBODY, OF_NO_CAMPAIGN)]
    if not counts[0]:
        return ""
    return "{:,} unsubscribes match nobody: {:,} of no known user, {:,} on a channel of no campaign".format(
        *counts
    )


def _normal(channel: str) -> Column:
    return normal_channel(F.lit(channel))


def _without_blanks(name: str) -> Column:
    return F.trim(F.col(name), F.lit(BLANKS))


def _meant(unsubscribes: DataFrame, known: DataFrame) -> DataFrame:
    """(_id, _users) of the unsubscribes' ids without blanks around them that mean somebody, each once."""
    asked = unsubscribes.select(_without_blanks("user_id").alias("_id")).distinct()
    users = known.select("user_id", _without_blanks("user_id").alias("_known"))
    alike = asked.withColumn("_folded", F.lower("_id")).join(
        users.withColumn("_folded", F.lower("_known")), on="_folded", how="inner"
    )
    is_same = F.col("_known") == F.col("_id")
    grouped = alike.groupBy("_id").agg(
        F.collect_set(F.when(is_same, F.col("user_id"))).alias("_same"),
        F.collect_set("user_id").alias("_alike"),
        F.count_distinct("_known").alias("_forms"),
    )
    users_meant = F.when(F.size("_same") > 0, F.col("_same")).when(F.col("_forms") == 1, F.col("_alike"))
    return grouped.select("_id", users_meant.alias("_users")).where(F.col("_users").isNotNull())
