"""Factors of users without a model, from whatever events they have, by what the trainer itself does last.

Of ALS that is its last half-step, solved exactly; of factors whose user side is a sum (`linear`) the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.sections import Als
from recsys_spark.models.als.loss import histories, rows_of
from recsys_spark.models.als.solve import Objective, exact_row, gramian
from recsys_spark.runtime.batches import lists_of
from recsys_spark.runtime.checkpoints import checkpointed
from recsys_spark.runtime.matrices import MatrixSeries, SharedMatrix
from recsys_spark.runtime.workers import warm_worker

SCHEMA = "user_id string, factors array<float>"

# Of the rows of a user's items [n, d] and their strengths [n]: the user's factors [d].
_Solve = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[Any]]


def fold_in(preferences: DataFrame, item_factors: DataFrame, settings: Als) -> DataFrame:
    """One row (user_id, factors) per user with a preference for an item of the model.

    preferences: unique (user_id, item_id, strength); item_factors: (item_id, factors). Items unknown to the
    model say nothing and do not count. Each user is one system in closed form, or one sum, in float64 and
    independent of all others; nothing is trained. The rows are computed here and kept on the executors.
    """
    spark = preferences.sparkSession
    table = item_factors.select("item_id", "factors").toArrow()
    ids = table.column("item_id").combine_chunks()
    order = pc.sort_indices(ids)  # whatever order they came in, sums are the same
    values = table.column("factors").combine_chunks().take(order).flatten()
    y = values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(ids), -1)
    position = pa.table({"item_id": ids.take(order), "item_index": np.arange(len(ids), dtype=np.int32)})
    known = preferences.join(spark.createDataFrame(position), on="item_id", how="inner").select(
        F.col("user_id").alias("user_index"), "item_index", "strength"
    )
    series = MatrixSeries(spark, "als-item-factors", *y.shape)
    solving = _solving(series.share_rows(y), _summed if settings.is_linear else _exact(y, settings))
    try:
        return checkpointed(histories(known).mapInArrow(solving, SCHEMA))
    finally:
        series.close()


def _exact(y: NDArray[np.float32], settings: Als) -> _Solve:
    objective = Objective.of(settings)
    gram = gramian(y) if objective.implicit else np.zeros((0, 0))
    return lambda rows, strengths: exact_row(rows, gram, strengths, objective)


def _summed(rows: NDArray[np.float32], strengths: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.log1p(strengths.astype(np.float64)) @ rows.astype(np.float64)


def _solving(
    shared: SharedMatrix, solve_row: _Solve
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def solve(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        warm_worker()
        for batch in batches:
            rows = rows_of(batch.column("indices"), batch.column("strengths"))
            y, indices = shared.needed(rows.indices)
            x = np.empty((batch.num_rows, y.shape[1]), np.float32)
            for row in range(batch.num_rows):
                here = slice(rows.indptr[row], rows.indptr[row + 1])
                x[row] = solve_row(y[indices[here]], rows.values[here])
            yield pa.RecordBatch.from_arrays([batch.column(0), lists_of(x)], names=["user_id", "factors"])

    return solve
