"""What may be ranked on a day: the items on sale, with all that a model version knows of them."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame

from recsys_spark.data.validity import current_on
from recsys_spark.errors import ConfigError
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import (
    MODEL_BLEND_WEIGHTS,
    MODEL_COLD_ITEM_FACTORS,
    MODEL_CONTENT_VECTORS,
    MODEL_ITEM_FACTORS,
    MODEL_POPULARITY,
    MODEL_USER_FACTORS,
    SILVER_ITEMS,
)
from recsys_spark.models.versions import of_version
from recsys_spark.ranking.blend import Variant
from recsys_spark.ranking.lists import Catalogue, catalogue_of


def rankable_catalogue(job: Job, version: str, day: date, *, with_cold: bool = True) -> Catalogue:
    """The items valid and available on the day, with the version's factors, words and popularity.

    Items that nobody has had compete with factors from their words, where the version has such and
    with_cold says so.
    """
    items = on_sale(job.read(SILVER_ITEMS), day)
    warm = of_version(job, MODEL_ITEM_FACTORS, version).select("item_id", "factors")
    return catalogue_of(
        items,
        factors=warm.unionByName(cold_items(job, version)) if with_cold else warm,
        vectors=of_version(job, MODEL_CONTENT_VECTORS, version),
        popularity=of_version(job, MODEL_POPULARITY, version),
        max_item_share=job.settings.ranking.max_item_share,
    )


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
    """Each task's blend with the version's stored weights: what was learned, not what conf says today."""
    rows = of_version(job, MODEL_BLEND_WEIGHTS, version).collect()
    if not rows:
        raise ConfigError(f"no blend weights of {version}. Next: recsys run --from train_blend")
    tasks: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        bins = tasks.setdefault(row["task"], {})
        bins.setdefault(row["min_pairs"], {})[row["component"]] = float(row["weight"])
    return {task: Variant.binned(task, "hybrid", bins) for task, bins in tasks.items()}
