"""Spark's settings for a while: of what is looked up while a query is planned, and is no option of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import RLock

from pyspark.sql import SparkSession

# A session has one value of each for all its threads; who restores must find what was before it.
_ONE_AT_A_TIME = RLock()
# Rows of a few numbers: the session's 1,024 a batch would spend the time on batches, and its limit of bytes,
# which Spark looks up for every row, took half of the way to Python.
LARGE_BATCHES = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(2**31 - 1),
}


# Columns that are written as they are. Parquet tries a dictionary of each column, in each file anew, and
# gives it up where values hardly repeat: a third of the time to write a day of 50,000 events, no byte saved.
SELDOM_REPEATED = ("event_id", "event_at", "basket_id", "row", "row_hash")
# And where a file is a part of a large batch, of many users: a tenth of the time to write it, no byte saved.
SELDOM_REPEATED_IN_LARGE = ("user_id",)


@contextmanager
def session_settings(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """The session has these values inside, and its own again after; one thread at a time.

    Inside nothing may wait for a thread that asks for settings itself.
    """
    with _ONE_AT_A_TIME:
        before = {name: spark.conf.get(name, None) for name in values}
        try:
            for name, value in values.items():
                spark.conf.set(name, value)
            yield
        finally:
            for name, own in before.items():
                spark.conf.unset(name) if own is None else spark.conf.set(name, own)


def without_dictionary(*columns: str) -> dict[str, str]:
    """Parquet writes these columns as they are; it takes no setting of a column's from a write to Delta."""
    return {f"parquet.enable.dictionary#{column}": "false" for column in columns}
