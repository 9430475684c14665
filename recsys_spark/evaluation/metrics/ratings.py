"""Ratings as predicted against ratings as given: RMSE and MAE.

    rmse   root of the mean squared difference of given and predicted ratings
    mae    mean absolute difference

Means are over pairs of user and item that were rated in the window and not before it. A prediction is the
product of the pair's factors, cut to the configured scale. A pair of which user or item has no factors has
no prediction: it is left out of every model's figures, so that all are judged by the same pairs, and told
in a count.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Ratings
from recsys_spark.evaluation.metrics.metrics import order_free_mean
from recsys_spark.names import ALS, MAE, RMSE


@dataclass(frozen=True)
class RatingJudgement:
    """values[model] is rmse and mae over `pairs` ratings; `unknown` further ones cannot be predicted."""

    values: dict[str, dict[str, float]]
    pairs: int
    unknown: int


def new_ratings(events: DataFrame, before: DataFrame, *, event_type: str) -> DataFrame:
    """(user_id, item_id, rating): the window's ratings of pairs that `before` (user_id, item_id) lacks.

    `events` are effective events, so that a user's rating of an item is one.
    """
    is_rating = (F.col("event_type") == event_type) & F.col("value").isNotNull()
    given = events.where(is_rating).select("user_id", "item_id", F.col("value").alias("rating"))
    return given.join(before.select("user_id", "item_id"), on=["user_id", "item_id"], how="left_anti")


def with_prediction(
    rated: DataFrame, *, user_factors: DataFrame, item_factors: DataFrame, scale: Ratings
) -> DataFrame:
    """(user_id, item_id, rating, predicted): x_u·y_i within the scale, null without factors of either."""
    users = user_factors.select("user_id", F.col("factors").alias("of_user"))
    items = item_factors.select("item_id", F.col("factors").alias("of_item"))
    products = F.zip_with("of_user", "of_item", lambda x, y: x.cast("double") * y.cast("double"))
    product = F.aggregate(products, F.lit(0.0), lambda total, value: total + value)
    within = F.least(F.greatest(product, F.lit(scale.min)), F.lit(scale.max))
    return (
        rated.join(users, on="user_id", how="left")
        .join(items, on="item_id", how="left")
        .select("user_id", "item_id", "rating", F.when(product.isNotNull(), within).alias("predicted"))
    )


def judged_ratings(predicted: DataFrame, beside: pa.Table | None = None) -> RatingJudgement:
    """RMSE and MAE of `predicted` (as `with_prediction` gives it) as `als`.

    And of the models of `beside` (model, user_id, item_id, predicted), a row a model for each pair.
    """
    known = predicted.where(F.col("predicted").isNotNull())
    rows = known.select(F.lit(ALS).alias("model"), "rating", "predicted")
    if beside is not None:
        others = predicted.sparkSession.createDataFrame(beside)
        truth = known.select("user_id", "item_id", "rating")
        given = others.join(truth, on=["user_id", "item_id"], how="inner")
        rows = rows.unionByName(given.select("model", "rating", "predicted"))
    error = F.col("rating") - F.col("predicted")
    per_model = rows.groupBy("model").agg(
        F.sqrt(order_free_mean(error * error)).alias(RMSE), order_free_mean(F.abs(error)).alias(MAE)
    )
    values = {row["model"]: {RMSE: row[RMSE], MAE: row[MAE]} for row in per_model.collect()}
    pairs, all_pairs = predicted.agg(F.count("predicted"), F.count(F.lit(1))).collect()[0]
    return RatingJudgement(values, pairs, all_pairs - pairs)
