"""Files of events, read as a source of the shop says."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import Row, SparkSession

from recsys_spark.config.sections import Source
from recsys_spark.data.sources import find_files, read_source
from tests.settings import a_source

COLUMNS = {"user_id": "user", "item_id": "item", "event_at": "at"}
EVENTS = a_source(
    kind="interactions", format="csv", path="x", columns=COLUMNS, constants={"event_type": "purchase"}
)


def read(spark: SparkSession, path: Path, source: Source = EVENTS, **changed: object) -> list[Row]:
    """The rows of the files there, in the order of files and lines; changed: of what the source says."""
    files = find_files(spark, "shop", str(path))
    rows = read_source(spark, "shop", source.model_copy(update=changed), files)
    return rows.orderBy("source_file", "row").collect()
