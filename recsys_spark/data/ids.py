"""Dense integer indexes inside a model version: the rank of the sorted ids."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.errors import InputError

MAX_INDEX = 2**31 - 1


def dense_index(rows: DataFrame, *, id_column: str, index_column: str) -> DataFrame:
    """One row per distinct id with its rank (int, from 0) among the sorted ids.

    Ids are sorted by range partitions, and each partition's rows are numbered after those before it:
    no global window, and only one count per partition reaches the driver. The caller must not change
    the number of rows in between; raises InputError beyond 2^31 - 1 ids.
    """
    by_range = (
        rows.select(id_column)
        .distinct()
        .repartitionByRange(id_column)
        .sortWithinPartitions(id_column)
        .select(
            id_column, F.spark_partition_id().alias("_part"), F.monotonically_increasing_id().alias("_at")
        )
    ).localCheckpoint(eager=True)
    counts = by_range.groupBy("_part").agg(F.count(F.lit(1)).alias("_rows"), F.min("_at").alias("_first"))
    total = counts.agg(F.sum("_rows")).first()
    if total and total[0] and total[0] > MAX_INDEX:
        raise InputError(f"{total[0]:,} distinct values of {id_column}: expected at most {MAX_INDEX:,}.")
    # A window over one row per partition, not over the ids.
    earlier = Window.orderBy("_part").rowsBetween(Window.unboundedPreceding, -1)
    offsets = counts.withColumn("_before", F.coalesce(F.sum("_rows").over(earlier), F.lit(0))).drop("_rows")
    index = (F.col("_at") - F.col("_first") + F.col("_before")).cast("int")
    return by_range.join(F.broadcast(offsets), on="_part", how="inner").select(
        id_column, index.alias(index_column)
    )
