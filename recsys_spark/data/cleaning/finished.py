"""What silver has already: the files that it took in or leaves out for good, and the items it knows."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.cleaning.batch import Batch
from recsys_spark.lake.runs import Delivered
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import OPS_METRICS, SILVER_ITEMS

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
