"""What may be ranked on a day: the items on sale, with all that a model version knows of them."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.snapshots import versions_on
from recsys_spark.data.validity import current_on
from recsys_spark.errors import ConfigError, NothingOnSaleError
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import (
    MODEL_BLEND_WEIGHTS,
    MODEL_COLD_ITEM_FACTORS,
    MODEL_CONTENT_VECTORS,
    MODEL_GROUP_POPULARITY,
    MODEL_ITEM_FACTORS,
    MODEL_POPULARITY,
    MODEL_USER_FACTORS,
)
from recsys_spark.models.popularity import group_of_user
from recsys_spark.models.versions import of_version
from recsys_spark.names import EVERYONE, HYBRID, POPULARITY_GROUP
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import Catalogue, catalogue_of
from recsys_spark.runtime.checkpoints import checkpointed


def rankable_catalogue(job: Job, version: str, day: date, *, with_cold: bool = True) -> Catalogue:
    """The items valid and available on the day, with the version's factors, words and popularities.

    Items that nobody has had compete with factors from their words and a prior for their popularity, where
    the version has such and with_cold says so. Raises NothingOnSaleError where there is no such item.
    """
    items = on_sale(versions_on(job.lake, job.settings, "items", day), day)
    counts, grouped = _popularity(job, version)
    warm = of_version(job, MODEL_ITEM_FACTORS, version).select("item_id", "factors")
    cold = cold_items(job, version) if with_cold and job.settings.cold_items.enabled else None
    try:
        return catalogue_of(
            items,
            factors=warm if cold is None else warm.unionByName(cold),
            vectors=of_version(job, MODEL_CONTENT_VECTORS, version),
            popularity=counts,
            group_popularity=grouped,
            cold=cold,
            prior=job.settings.cold_items.prior,
            has_places=job.settings.cold_items.places > 0,
            max_item_share=job.settings.ranking.max_item_share,
        )
    except NothingOnSaleError:
        raise NothingOnSaleError(
            f"no item is on sale on {day}: there is nothing to make lists of. Expected items that are valid "
            "on that day and available. Next: correct is_available and valid_from in sources of kind "
            "'items', and deliver them again."
        ) from None


def _popularity(job: Job, version: str) -> tuple[DataFrame, DataFrame | None]:
    """Everyone's (item_id, users, new_users, is_reference), with the season mixed in where there is one.

    And that of groups (group, item_id, users), None where popularity does not go by groups.
    """
    counts = of_version(job, MODEL_POPULARITY, version)
    if job.settings.popularity.is_plain:
        return counts, None
    grouped = checkpointed(of_version(job, MODEL_GROUP_POPULARITY, version))
    of_everyone = F.col("group") == EVERYONE
    mixed = grouped.where(of_everyone).select("item_id", F.col("users").alias("mixed"))
    counts = counts.join(mixed, on="item_id", how="left")
    if not mixed.isEmpty():
        counts = counts.withColumn("users", F.coalesce("mixed", F.lit(0.0)))
    return counts.drop("mixed"), grouped.where(~of_everyone) if job.settings.popularity.by else None


def in_groups(job: Job, users: DataFrame, day: date) -> DataFrame:
    """`users` with popularity_group as valid on the day, where popularity goes by groups."""
    by = job.settings.popularity.by
    if not by:
        return users
    groups = group_of_user(
        current_on(versions_on(job.lake, job.settings, "users", day), day, "user_id"), by=by
    )
    named = groups.select("user_id", F.col("group").alias(POPULARITY_GROUP))
    return users.join(named, on="user_id", how="left")


def on_sale(items: DataFrame, day: date) -> DataFrame:
    """(item_id) of the items whose version of the day is available: what may be recommended."""
    return current_on(items, day, "item_id").where("is_available").select("item_id")


def cold_items(job: Job, version: str) -> DataFrame:
    """(item_id, factors) of the items whose factors are from their words; none where that is switched off."""
    return of_version(job, MODEL_COLD_ITEM_FACTORS, version).select("item_id", "factors")


def user_factors(job: Job, version: str) -> DataFrame:
    """(user_id, factors) of the version."""
    return of_version(job, MODEL_USER_FACTORS, version).select("user_id", "factors")


def hybrids(job: Job, version: str) -> dict[str, Variant]:
    """Each task's blend with the version's stored weights: what was learned, not what conf says today.

    Places for items that nobody has had are kept as the configuration says.
    """
    rows = of_version(job, MODEL_BLEND_WEIGHTS, version).collect()
    if not rows:
        raise ConfigError(f"no blend weights of {version}. Next: recsys run --from train_blend")
    tasks: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        bins = tasks.setdefault(row["task"], {})
        bins.setdefault(row["min_pairs"], {})[row["component"]] = float(row["weight"])
    cold = job.settings.cold_items
    places = cold.places if cold.enabled else 0.0
    return {task: Variant.binned(task, HYBRID, bins, newcomers=places) for task, bins in tasks.items()}
