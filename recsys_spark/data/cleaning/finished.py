"""What silver has already: the files that it took in or leaves out for good, the items and users it knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Campaign
from recsys_spark.data.cleaning.batch import Batch
from recsys_spark.data.unsubscribes import UNSUBSCRIBE, is_unsubscribe, unmatched
from recsys_spark.lake.runs import Delivered
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import OPS_METRICS, SILVER_ITEMS, SILVER_USERS

# In ops.metrics, labelled `kind:source:content hash`: what is in silver, and what is never to be.
DONE, DISCARDED = "cleaned_file", "discarded_file"


def finished_files(lake: Lake) -> set[str]:
    """The files that `clean` does not look at again."""
    return _labels(lake, DONE, DISCARDED)


def cleaned_files(lake: Lake) -> set[str]:
    """The files whose good rows silver has."""
    return _labels(lake, DONE)


def _labels(lake: Lake, *metrics: str) -> set[str]:
    rows = lake.read(OPS_METRICS).where(F.col("metric").isin(*metrics)).select("label").distinct()
    return {row["label"] for row in rows.collect()}


def file_key(file: Delivered) -> str:
    return f"{file.kind}:{file.source}:{file.content_hash}"


def known_items(lake: Lake, batch: Batch | None) -> DataFrame:
    """item_id of all items in silver, and of the batch of items that is to be merged."""
    known = lake.read(SILVER_ITEMS).select("item_id")
    return known if batch is None else known.unionByName(batch.good.select("item_id"))


def known_users(lake: Lake, batch: Batch | None) -> DataFrame | None:
    """user_id of all users in silver, and of the batch of users that is to be merged; None without any users,
    as in a shop that delivers no table of them."""
    known = lake.read(SILVER_USERS).select("user_id")
    known = known if batch is None else known.unionByName(batch.good.select("user_id"))
    return None if known.isEmpty() else known


def count_unmatched(lake: Lake, batches: Mapping[str, Batch], *, campaigns: Iterable[Campaign]) -> None:
    """Add to the figures of the outcomes how many of their unsubscribes match nobody; batches are by kind."""
    outcomes = batches.get("outcomes")
    if outcomes is None or not outcomes.figures.get(f"outcomes_{UNSUBSCRIBE}"):
        return
    told = outcomes.good.where(is_unsubscribe()).select("user_id", "channel")
    channels = sorted({campaign.channel for campaign in campaigns})
    outcomes.figures.update(unmatched(told, known_users(lake, batches.get("users")), channels=channels))
