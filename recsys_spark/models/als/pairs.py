"""What ALS learns from: strengths, or ratings where feedback is explicit."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Settings
from recsys_spark.data.events import PAIR


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


def fold_in_pairs(
    preferences: DataFrame, settings: Settings, *, afresh: Callable[[DataFrame], DataFrame]
) -> DataFrame:
    """The same of all users, those below `min_events_per_user` among them.

    Their strengths are 0 in `preferences`, and are made afresh. afresh: the preferences of these users
    (user_id) with no least number of events; asked for only where somebody may have too few.
    """
    if settings.als.feedback == "explicit":
        return _rated(preferences)
    liked = preferences.where(F.col("strength") > 0).select(*PAIR, "strength")
    if settings.preferences.min_events_per_user == 1:
        return liked
    had = preferences.where((F.col("events") > 0) & ~F.col("is_excluded")).select(*PAIR)
    few = had.join(liked.select("user_id").distinct(), on="user_id", how="left_anti")
    theirs = afresh(few.select("user_id").distinct()).where(F.col("strength") > 0)
    return liked.unionByName(theirs.select(*PAIR, "strength").join(few, on=[*PAIR], how="left_semi"))


def _rated(preferences: DataFrame) -> DataFrame:
    rated = preferences.where(F.col("rating").isNotNull())
    return rated.select(*PAIR, F.col("rating").alias("strength"))
