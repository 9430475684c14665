"""The loss that both ALS trainers minimise.

    Σ_u Σ_i c_ui (p_ui − x_u·y_i)²  +  λ (Σ_u n_u^e |x_u|² + Σ_i n_i^e |y_i|²)
over *all* users and items for implicit feedback: p = 1 and c = 1 + α·strength where there is a preference,
p = 0 and c = 1 elsewhere. Explicit feedback sums (r − x·y)² over the given pairs only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.models.als.factors import Factors, IndexedPairs
from recsys_spark.models.als.solve import Matrix, Objective, Rows, gramian, solve_rows, weights_of
from recsys_spark.runtime.matrices import MatrixSeries, SharedMatrix
from recsys_spark.runtime.workers import warm_worker

# Rows of both factor matrices gathered at a time: 64 MB at rank 64.
_PAIRS_AT_ONCE = 65_536


def als_loss(
    x: NDArray[Any],
    y: NDArray[Any],
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    values: NDArray[Any],
    objective: Objective,
) -> float:
    """The loss on the pairs, in closed form and float64.

    The sum over all pairs without a preference is tr(XᵀX YᵀY) minus what the others add to it.

    x: factors [users, d].
    y: factors [items, d].
    rows: the user of each pair, int [pairs].
    columns: the item of each pair, int [pairs].
    values: the strength or rating of each pair, [pairs].
    objective: which loss.
    """
    x, y, values = x.astype(np.float64), y.astype(np.float64), values.astype(np.float64)
    scores = np.empty(rows.size)
    for at in range(0, rows.size, _PAIRS_AT_ONCE):
        some = slice(at, at + _PAIRS_AT_ONCE)
        np.einsum("nd,nd->n", x[rows[some]], y[columns[some]], out=scores[some])
    weight, target, _ = weights_of(values, objective)
    if objective.implicit:
        # c (p − s)² − s² = t − 2 t s + w s² where p = 1; w s² where p = 0.
        fit = float((target - 2 * target * scores + weight * scores**2).sum())
        fit += float(((x.T @ x) * (y.T @ y)).sum())
    else:
        fit = float(((values - scores) ** 2).sum())
    counted = values > 0 if objective.implicit else np.ones(values.size, bool)
    penalty = 0.0
    for side, index in ((x, rows), (y, columns)):
        n = np.bincount(index[counted], minlength=len(side)).astype(np.float64)
        scale = np.where(n > 0, n**objective.exponent, 0.0)
        penalty += float((scale * (side**2).sum(axis=1)).sum())
    return fit + objective.regularization * penalty


def loss_of(factors: Factors, indexed: IndexedPairs, objective: Objective, *, driver_pairs: int = 0) -> float:
    """The same on Spark: items pass through the driver once, users stay where they are.

    Each user's part is rounded to 1e-9 before they are added, so that the sum has no order. Up to
    `driver_pairs` pairs the driver computes it itself: a tenth of the time where there are few.
    """
    y = _collected(factors.items, "item_index")
    if indexed.n_pairs <= driver_pairs:
        pairs = indexed.pairs.select("user_index", "item_index", "strength").toArrow()
        pairs = pairs.sort_by([("user_index", "ascending"), ("item_index", "ascending")])
        rows, columns, values = (column.to_numpy() for column in pairs.columns)
        return als_loss(_collected(factors.users, "user_index"), y, rows, columns, values, objective)
    series = MatrixSeries(indexed.pairs.sparkSession, "als-item-factors", *y.shape)
    shared = series.share_rows(y)
    try:
        gram = gramian(y) if objective.implicit else np.zeros((0, 0))
        per_user = histories(indexed.pairs).join(
            factors.users.select("user_index", "factors"), on="user_index", how="inner"
        )
        parts = per_user.select("factors", "indices", "strengths").mapInArrow(
            _measuring(shared, gram, objective), "loss double"
        )
        exact = F.sum(F.col("loss").cast("decimal(38,9)")).cast("double")
        total = parts.agg(exact.alias("loss")).first()
        return float(total[0] if total and total[0] is not None else 0.0) + _item_penalty(
            y, indexed.pairs, objective
        )
    finally:
        series.close()


def _collected(factors: DataFrame, index_column: str) -> Matrix:
    """The factors on the driver, by index; each index from 0 on has its row."""
    table = factors.select(index_column, "factors").toArrow().sort_by(index_column)
    flat: Matrix = table.column("factors").combine_chunks().flatten().to_numpy()
    return flat.reshape(table.num_rows, -1)


def histories(pairs: DataFrame) -> DataFrame:
    """(user_index, indices, strengths): each user's pairs as two arrays, ordered by item."""
    pair = F.struct("item_index", F.col("strength").cast("float").alias("strength"))
    listed = F.sort_array(F.collect_list(pair))
    return (
        pairs.groupBy("user_index")
        .agg(listed.alias("pairs"))
        .select(
            "user_index",
            F.col("pairs.item_index").alias("indices"),
            F.col("pairs.strength").alias("strengths"),
        )
    )


def rows_of(indices: pa.ListArray, strengths: pa.ListArray) -> Rows:
    """Two list columns as CSR."""
    lengths = np.asarray(indices.value_lengths())
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Rows(
        indptr,
        indices.flatten().to_numpy().astype(np.int32),
        strengths.flatten().to_numpy().astype(np.float32),
    )


def _measuring(
    shared: SharedMatrix, gram: NDArray[np.float64], objective: Objective
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def measure(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        warm_worker()
        for batch in batches:
            x = batch.column("factors").flatten().to_numpy().reshape(batch.num_rows, -1).astype(np.float32)
            rows = rows_of(batch.column("indices"), batch.column("strengths"))
            y, indices = shared.needed(rows.indices)
            rows = Rows(rows.indptr, indices, rows.values)
            losses, _ = solve_rows(rows, y, gram, x, objective, steps=0)
            yield pa.RecordBatch.from_arrays([pa.array(losses)], names=["loss"])

    return measure


def _item_penalty(y: Matrix, pairs: DataFrame, objective: Objective) -> float:
    counted = pairs.where("strength > 0") if objective.implicit else pairs
    table = counted.groupBy("item_index").count().toArrow()
    n = np.zeros(len(y))
    n[table.column(0).to_numpy()] = table.column(1).to_numpy()
    scale = np.where(n > 0, n**objective.exponent, 0.0)
    return objective.regularization * float((scale * (y.astype(np.float64) ** 2).sum(axis=1)).sum())
