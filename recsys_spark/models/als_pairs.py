"""What ALS learns from: strengths, or ratings where feedback is explicit."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Settings

PAIR = ("user_id", "item_id")


def training_pairs(preferences: DataFrame, settings: Settings) -> DataFrame:
    """(user_id, item_id, strength > 0), or with explicit feedback every rated pair, its rating as strength.

    A disliked pair with a rating is among the latter. Strengths know the least numbers of events already;
    for ratings they are counted here: users with enough ratings, then items of those users, once.
    """
    if settings.als.feedback == "implicit":
        return preferences.where(F.col("strength") > 0)
    rated = _rated(preferences)
    for column, least in (
        ("user_id", settings.preferences.min_events_per_user),
        ("item_id", settings.preferences.min_events_per_item),
    ):
        if least > 1:
            enough = rated.groupBy(column).count().where(F.col("count") >= least).select(column)
            rated = rated.join(enough, on=column, how="left_semi")
    return rated


def _rated(preferences: DataFrame) -> DataFrame:
    rated = preferences.where(F.col("rating").isNotNull())
    return rated.select(*PAIR, F.col("rating").alias("strength"))
