"""Dense integer indexes inside a model version: the rank of the sorted ids."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.errors import InputError
from recsys_spark.runtime.checkpoints import checkpointed

# Indexes are ints from 0: 2^31 of them.
MAX_IDS = 2**31


def require_indexable(ids: int, id_column: str) -> None:
    """Raise InputError where there are more distinct ids than a 32-bit index can tell apart."""
    if ids > MAX_IDS:
        raise InputError(
            f"{ids:,} distinct values of {id_column}: expected at most {MAX_IDS:,}, which is what a 32-bit "
            "index can tell apart. Next: raise preferences.min_events_per_user or min_events_per_item."
        )


def dense_index(rows: DataFrame, *, id_column: str, index_column: str) -> DataFrame:
    """One row per distinct id with its rank (int, from 0) among the sorted ids.

    Ids are sorted by range partitions, and each partition's rows are numbered after those before it:
    no global window, and only one count per partition reaches the driver. Ids are ordered by their
    UTF-8 bytes. Raises InputError beyond 2^31 ids.
    """
    by_range = checkpointed(
        rows.select(id_column)
        .distinct()
        .repartitionByRange(id_column)
        .sortWithinPartitions(id_column)
        .select(
            id_column, F.spark_partition_id().alias("_part"), F.monotonically_increasing_id().alias("_at")
        )
    )
    counts = by_range.groupBy("_part").agg(F.count(F.lit(1)).alias("_rows"), F.min("_at").alias("_first"))
    total = counts.agg(F.coalesce(F.sum("_rows"), F.lit(0))).collect()[0][0]
    require_indexable(total, id_column)
    # A window over one row per partition, not over the ids.
    earlier = Window.orderBy("_part").rowsBetween(Window.unboundedPreceding, -1)
    offsets = counts.withColumn("_before", F.coalesce(F.sum("_rows").over(earlier), F.lit(0))).drop("_rows")
    index = (F.col("_at") - F.col("_first") + F.col("_before")).cast("int")
    return by_range.join(F.broadcast(offsets), on="_part", how="inner").select(
        id_column, index.alias(index_column)
    )
