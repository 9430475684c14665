"""Whether two frames hold the same rows, without sorting or moving them."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import MapType


def fingerprint(rows: DataFrame) -> tuple[int, int]:
    """Count, and the sum of the rows' 64-bit hashes: equal for equal rows in any order and partitioning.

    Maps, which Spark does not hash, count as their entries in order.
    """
    whole = F.xxhash64(
        *[
            F.map_entries(field.name) if isinstance(field.dataType, MapType) else F.col(field.name)
            for field in rows.schema.fields
        ]
    )
    count, total = rows.agg(F.count(F.lit(1)), F.sum(whole.cast("decimal(38,0)"))).collect()[0]
    return int(count), int(total or 0)
