"""Rows that are sent to every executor whole, so that larger ones need not travel to meet them."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

NEAR_ROWS = 1_000_000  # of an id and a number or two: 50 to 100 bytes each in an executor's memory


def broadcast_if_small(rows: DataFrame, count: int) -> DataFrame:
    """The rows, broadcast in a join where their `count` allows it; else Spark decides."""
    return F.broadcast(rows) if count <= NEAR_ROWS else rows
